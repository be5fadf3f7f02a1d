// A backend: sends from every account of the service over one WebSocket, and prints the receipts as they stream in on it.
// usage: node demo-client.mjs URL COUNT
import { createRequire } from "node:module";

const require = createRequire(new URL("../.parts/node/package.json", import.meta.url));
const { WebSocket } = require("ws");

const [url, count] = [process.argv[2], Number(process.argv[3])];
const socket = new WebSocket(url);
const answers = new Map();
let nextId = 1;
let onReceipts = () => {};

function call(method, params) {
    const id = nextId++;
    socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    return new Promise((resolve, reject) => answers.set(id, { resolve, reject }));
}

socket.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.method === "eth_subscription") {
        onReceipts(message.params.result);
    } else if (answers.has(message.id)) {
        const { resolve, reject } = answers.get(message.id);
        answers.delete(message.id);
        if (message.error) {
            reject(new Error(`${message.error.message} ${JSON.stringify(message.error.data ?? {})}`));
        } else {
            resolve(message.result);
        }
    }
});

function fail(error) {
    console.error(`demo client: ${error.message}`);
    process.exit(1);
}
socket.on("error", fail);
socket.on("close", () => fail(new Error("the connection ended")));
setTimeout(() => fail(new Error("not all receipts came within 60 s")), 60_000).unref();

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const short = (hex) => `${hex.slice(0, 10)}…`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function run() {
    const accounts = await call("eth_accounts", []);
    const waits = { answer: [], receipt: [] };
    const sends = new Map(); // hash → the promise of when it was sent; a receipt may overtake the answer that tells the hash
    const sendOf = (hash) => {
        if (!sends.has(hash)) {
            const send = {};
            send.at = new Promise((resolve) => (send.told = resolve));
            sends.set(hash, send);
        }
        return sends.get(hash);
    };
    const all = new Promise((resolve) => {
        onReceipts = async (receipts) => {
            for (const receipt of receipts) {
                const now = performance.now();
                const ms = Math.round(now - (await sendOf(receipt.transactionHash).at));
                waits.receipt.push(ms);
                console.log(
                    `receipt  ${short(receipt.transactionHash)}  from ${short(receipt.from)}  block ${Number(receipt.blockNumber)}` +
                        `  status ${Number(receipt.status)}  after ${ms} ms`,
                );
                if (waits.receipt.length === count) resolve();
            }
        };
    });
    await call("eth_subscribe", ["transactionReceipts"]);
    const begin = performance.now();
    const send = async (i) => {
        const [from, to] = [accounts[i % accounts.length], accounts[(i + 1) % accounts.length]];
        const at = performance.now();
        const hash = await call("eth_sendTransaction", [{ from, to, value: `0x${(i + 1).toString(16)}` }]);
        waits.answer.push(Math.round(performance.now() - at));
        sendOf(hash).told(at);
    };
    const sent = [];
    for (let i = 0; i < count; i++) {
        sent.push(send(i));
        // One round of all accounts at once, then a moment: the blocks of the demo come once a second.
        if ((i + 1) % accounts.length === 0) await pause(400);
    }
    await Promise.all(sent);
    await all;
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    console.log(
        `\n${sends.size} transactions from ${accounts.length} KMS addresses, ${waits.receipt.length} receipts over one WebSocket in ${seconds} s` +
            ` (blocks of 1 s; median ${median(waits.answer)} ms to the hash, ${median(waits.receipt)} ms to the receipt)`,
    );
    process.exit(0);
}

socket.on("open", () => run().catch(fail));
