// What the scripts in JavaScript share: the plan, a bound against hanging, and the shape of the report.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/// Loads a package that scripts/parts has installed.
export const require = createRequire(new URL("../../.parts/node/package.json", import.meta.url));

export const plan = JSON.parse(readFileSync(new URL("plan.json", import.meta.url)));

/// EIP-712 data of the plan, for this chain.
export function typedData(chainId) {
    return { ...plan.typed, domain: { ...plan.typed.domain, chainId: Number(chainId) } };
}

/// The promise's value, within a minute.
export async function within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`gave up waiting: ${what}`)), 60_000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Acts until what was waited for is there. A subscription may be on its way only when a library says that it is made: what happens
/// before it is there is not seen.
export async function until(what, seen, act) {
    for (let i = 0; i < 120; i++) {
        await act();
        const found = await Promise.race([seen, new Promise((resolve) => setTimeout(resolve, 250))]);
        if (found !== undefined) return found;
    }
    throw new Error(`gave up waiting: ${what}`);
}

/// The JSON-RPC error inside a library's error, the innermost. Libraries have codes of their own, which are not negative; 3 is a revert.
function rpcError(error, depth = 0) {
    if (error === null || typeof error !== "object" || depth > 6) return undefined;
    for (const inner of [error.error, error.info?.error, error.innerError, error.cause]) {
        const found = inner === error ? undefined : rpcError(inner, depth + 1);
        if (found) return found;
    }
    return Number.isInteger(error.code) && (error.code < 0 || error.code === 3) ? error : undefined;
}

/// What the library makes of a call that must fail: its own name for it, and what it kept of the JSON-RPC error.
export async function failure(name, promise) {
    try {
        await within("an error", promise);
    } catch (error) {
        const rpc = rpcError(error);
        const messages = [];
        for (let one = error; one instanceof Error && messages.length < 6; one = one.cause) messages.push(one.message);
        return { name: name(error), code: rpc?.code ?? null, reason: rpc?.data?.reason ?? null, message: messages.join(": ") };
    }
    throw new Error("it went well");
}

/// Runs the script, prints its report as one line, and ends the process.
export function main(run, close) {
    const text = (report) => JSON.stringify(report, (_, value) => (typeof value === "bigint" ? Number(value) : value));
    run().then(
        async (report) => {
            console.log(text(report));
            await close();
            process.exit(0);
        },
        (error) => {
            console.error(error);
            process.exit(1);
        },
    );
}
