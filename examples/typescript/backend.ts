// A small backend that pays out: it sends every payout of a file over one WebSocket, and follows each on that same WebSocket until it is
// confirmed. usage: node backend.js URL FILE. ../README.md has the file's form and the reasons.
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { WebSocket } from "ws";

interface Payout {
    reference: string;
    to: string;
    value: string;
    nonce?: number;
    hash?: string;
    /** What happened, in order, each event once: committed, broadcast, included, confirmed; orphaned after a reorganisation. */
    history?: string[];
    /** Whether it is in a block and its execution failed: the fee is paid and nothing else. */
    reverted?: boolean;
    /** Why nothing of it will be mined. */
    error?: string;
}
interface State { from: string; cursor?: string; payouts: Payout[] }
interface Event { cursor: string; hash: string; slot: { nonce: string }; state: string; reverted?: boolean; detail: string | null }
interface RpcError { code: number; message: string; data?: { reason?: string; retryAfterMs?: number } }

const [url, file] = process.argv.slice(2) as [string, string];
const state: State = JSON.parse(readFileSync(file, "utf8"));

/** Cursor and payouts are one file, replaced as a whole: whenever this process ends, an event has been worked on once or will be. */
function save(): void {
    const copy = openSync(`${file}.new`, "w");
    writeSync(copy, JSON.stringify(state, null, 2));
    fsyncSync(copy);
    closeSync(copy);
    renameSync(`${file}.new`, file);
}

const settled = (payout: Payout) => payout.error !== undefined || payout.history?.at(-1) === "confirmed";
const onRecord = (payout: Payout) => payout.hash !== undefined || settled(payout);
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

function onEvent(event: Event): void {
    const payout = state.payouts.find(({ nonce }) => nonce === Number(event.slot.nonce));
    if (payout) {
        payout.hash = event.hash;
        payout.reverted = event.reverted ?? payout.reverted;
        (payout.history ??= []).push(event.state);
        if (event.state === "refused" || event.state === "replaced") payout.error = event.detail ?? event.state;
        console.log(`${payout.reference} ${event.state}${payout.reverted ? ", but its execution failed" : ""}`);
    }
    state.cursor = event.cursor;
    save();
}

/** One WebSocket: calls with their answers, and the events of its one subscription. */
class Connection {
    private readonly answers = new Map<number, (message: any) => void>();
    private last = 0;
    private watchdog?: NodeJS.Timeout;
    /** Rejects when the connection is over. */
    readonly over: Promise<never>;

    private constructor(private readonly socket: WebSocket) {
        this.over = new Promise((_, reject) => {
            socket.on("close", () => {
                clearTimeout(this.watchdog);
                reject(new Error("the connection ended"));
            });
        });
        this.over.catch(() => {});
        socket.on("error", () => socket.terminate());
        socket.on("message", (text) => this.take(JSON.parse(String(text))));
        socket.on("ping", () => this.alive());
        this.alive();
    }

    static open(): Promise<Connection> {
        return new Promise((resolve, reject) => {
            const socket = new WebSocket(url);
            socket.once("open", () => resolve(new Connection(socket)));
            socket.once("error", reject);
        });
    }

    /** The result. Rejects with the JSON-RPC error, or with another one if there was no answer. */
    async call(method: string, ...params: unknown[]): Promise<any> {
        const id = ++this.last;
        const answer = new Promise<any>((resolve) => this.answers.set(id, resolve));
        this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
        const { result, error } = await Promise.race([answer, this.over]);
        if (error) throw error;
        return result;
    }

    /** The gateway pings every 20 s: a minute of silence is a dead connection. */
    private alive(): void {
        clearTimeout(this.watchdog);
        this.watchdog = setTimeout(() => this.socket.terminate(), 60_000);
    }

    private take(message: any): void {
        this.alive();
        if (message.method === "sluice_subscription") {
            // The last notification of a stream that ends has an error: come back by cursor.
            if (message.params.error) this.socket.terminate();
            else onEvent(message.params.result);
        } else {
            this.answers.get(message.id)?.(message);
            this.answers.delete(message.id);
        }
    }
}

/** Asks for one payout. The nonce is ours and on disk, so to ask again is never a second payment. */
async function ask(connection: Connection, payout: Payout): Promise<void> {
    const { to, value, nonce } = payout;
    try {
        payout.hash = await connection.call("eth_sendTransaction", { from: state.from, to, value, nonce: `0x${nonce!.toString(16)}` });
    } catch (error) {
        const { message, data } = error as RpcError;
        // Without data there was no answer, which says nothing. Held or used: an earlier request of ours got through, its event says which.
        const later = !data || data.retryAfterMs !== undefined || ["nonce_held", "nonce_too_low", "internal"].includes(data.reason ?? "");
        if (!later) payout.error = message;
    }
    save();
}

/** Follows and sends over this connection until all is settled. */
async function work(connection: Connection): Promise<void> {
    // A cursor from before the first send: nothing of it is missed, however early the connection is lost.
    state.cursor ??= await connection.call("sluice_getCursor", { from: state.from }) as string;
    save();
    await connection.call("sluice_subscribe", "transactions", { from: state.from, after: state.cursor });
    const taken = new Set(state.payouts.map(({ nonce }) => nonce));
    let next = Number(await connection.call("eth_getTransactionCount", state.from, "pending"));
    for (const payout of state.payouts.filter(({ nonce }) => nonce === undefined)) {
        while (taken.has(next)) next++;
        payout.nonce = next++;
    }
    save();
    for (let round = 0; !state.payouts.every(settled); round++) {
        // All at once, and again every 10 s what is neither answered nor in the stream.
        if (round % 100 === 0) for (const payout of state.payouts) if (!onRecord(payout)) void ask(connection, payout);
        const failed = state.payouts.find(({ error }) => error !== undefined);
        // Higher nonces wait behind it: somebody has to look.
        if (failed) throw new Error(`${failed.reference}: ${failed.error}`);
        await Promise.race([connection.over, pause(100)]);
    }
}

for (let wait = 100; ; wait = Math.min(wait * 2, 10_000)) {
    try {
        const connection = await Connection.open();
        wait = 100;
        await work(connection);
        process.exit(state.payouts.some(({ reverted }) => reverted) ? 1 : 0);
    } catch (error) {
        console.error((error as Error).message);
        const { data } = error as RpcError;
        const refused = data && data.retryAfterMs === undefined;
        if (refused || state.payouts.some((payout) => payout.error !== undefined)) process.exit(1);
        await pause(wait * (0.5 + Math.random() / 2));
    }
}
