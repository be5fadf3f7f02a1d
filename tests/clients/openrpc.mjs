// The OpenRPC document of a service against the service itself: it keeps the meta-schema, its examples are answered as it says, and
// every error is one that it names.
// usage: node openrpc.mjs HTTP_URL WS_URL. Ends with 0 if all of it is true. Says on the last line which methods it has called.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const documents = createRequire(new URL("../../.parts/documents/package.json", import.meta.url));
const WebSocket = createRequire(new URL("../../.parts/node/package.json", import.meta.url))("ws");
const Ajv = documents("ajv");
const metaSchema = documents("@open-rpc/meta-schema").default;
const jsonSchema = documents("@json-schema-tools/meta-schema").default;

const [http, ws] = process.argv.slice(2);
const STRANGER = "0x4242424242424242424242424242424242424242";

async function post(method, params = []) {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const answer = await fetch(http, { method: "POST", headers: { "content-type": "application/json" }, body });
    return answer.json();
}

/// Calls over one WebSocket, and the notifications that come by it.
class Socket {
    static async open(url) {
        const opened = new Socket();
        opened.socket = new WebSocket(url);
        opened.socket.on("message", (text) => opened.take(JSON.parse(text)));
        await within("a WebSocket", new Promise((resolve, reject) => {
            opened.socket.on("open", resolve);
            opened.socket.on("error", reject);
        }));
        return opened;
    }

    waiting = new Map();
    notes = [];
    listener = () => {};

    take(message) {
        if (message.method !== undefined) {
            this.notes.push(message);
            this.listener();
            return;
        }
        this.waiting.get(message.id)(message);
        this.waiting.delete(message.id);
    }

    call(method, params) {
        const id = this.next = (this.next ?? 0) + 1;
        const answer = new Promise((resolve) => this.waiting.set(id, resolve));
        this.socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
        return within(method, answer);
    }

    /// The first notification of this subscription.
    note(subscription) {
        const found = () => this.notes.find((note) => note.params.subscription === subscription);
        return within("a notification", new Promise((resolve) => {
            this.listener = () => found() && resolve(found());
            this.listener();
        }));
    }
}

async function within(what, promise) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`gave up waiting: ${what}`)), 60_000);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const { result: document } = await post("rpc_discover");
assert.deepEqual((await post("rpc.discover")).result, document, "both names answer the same");

// Both name as their own meta-schema what is no draft that ajv knows; they are of draft 7, its default.
const [{ $schema: _, ...rules }, { $schema: __, ...anySchema }] = [metaSchema, jsonSchema];
const meta = new Ajv({ strict: false, formats: { uri: (text) => URL.canParse(text), "uri-reference": true, regex: true } });
meta.addSchema(anySchema);
// The one refers to the other without the last slash.
meta.addSchema({ $ref: anySchema.$id }, anySchema.$id.replace(/\/$/, ""));
assert.ok(meta.validate(rules, document), `not an OpenRPC document: ${meta.errorsText()}`);
assert.deepEqual(document.servers.map(({ url }) => url), [http, ws]);

const ajv = new Ajv({ strict: false, allErrors: true });
ajv.addSchema(document, "document");

/// Asserts that the value keeps the schema at this place of the document.
function keeps(value, place, what) {
    const validate = ajv.getSchema(`document#${place}`);
    assert.ok(validate, `no schema at ${place}`);
    assert.ok(validate(value), `${what}: ${ajv.errorsText(validate.errors)} in ${JSON.stringify(value)}`);
}

const everywhere = ["ParseError", "InvalidRequest", "MethodNotFound", "ResponseTooLarge", "TooManyCalls", "ServiceRemoved", "Internal"];

/// Asserts that the error is one that the document has for this method.
function named(error, method, what) {
    const names = [...(method.errors ?? []).map(({ $ref }) => $ref.split("/").pop()), ...everywhere];
    if (error.data?.reason === undefined) {
        assert.ok(method["x-node-errors"], `${what}: an error of the node, and the document does not speak of such: ${JSON.stringify(error)}`);
        return;
    }
    const fits = names.some((name) => {
        const { code } = document.components.errors[name];
        return code === error.code && ajv.getSchema(`document#/components/errors/${name}/data`)(error.data);
    });
    assert.ok(fits, `${what}: no such error in the document: ${JSON.stringify(error)}`);
}

const socket = await Socket.open(ws);
const called = [];
// Where the schema of its items is, by subscription.
const streams = new Map();

for (const [index, method] of document.methods.entries()) {
    const { name, params } = method;
    assert.ok(method.summary, `${name} is described`);
    assert.equal(method.paramStructure, "by-position", name);
    const firstOptional = params.findIndex(({ required }) => !required);
    assert.ok(firstOptional < 0 || params.slice(firstOptional).every(({ required }) => !required), `${name}: required ones come first`);
    assert.ok(method.examples.length > 0, `${name} has examples`);
    for (const example of method.examples) {
        const what = `${name}, ${example.name}`;
        const values = example.params.map(({ value }) => value);
        assert.ok(values.length <= params.length && params.slice(values.length).every(({ required }) => !required), what);
        example.params.forEach((given, position) => {
            assert.equal(given.name, params[position].name, what);
            keeps(given.value, `/methods/${index}/params/${position}/schema`, what);
        });
        keeps(example.result.value, `/methods/${index}/result/schema`, `${what}, its own result`);
        const answer = await socket.call(name, values);
        if (name === "sluice_speedUpTransaction" && "error" in answer) {
            // A node that mines at once leaves nothing that waits: the transaction of the example is cancelled by now.
            named(answer.error, method, what);
            continue;
        }
        assert.ok("result" in answer, `${what}: ${JSON.stringify(answer)}`);
        keeps(answer.result, `/methods/${index}/result/schema`, what);
        if (["eth_chainId", "net_version", "eth_sign", "personal_sign"].includes(name) || name.startsWith("eth_signT")) {
            assert.deepEqual(answer.result, example.result.value, `${what}: the same key and the same words give the same answer`);
        }
        if (name.endsWith("_subscribe")) {
            streams.set(answer.result, `/methods/${index}/x-notifications/${values[0]}`);
        }
        if (name.endsWith("_subscribe") && !example.name.includes("by hash")) {
            // Something has to happen on the chain.
            for (const send of document.methods.find(({ name }) => name === "eth_sendTransaction").examples) {
                const { error } = await socket.call("eth_sendTransaction", send.params.map(({ value }) => value));
                assert.equal(error, undefined);
            }
            const note = await socket.note(answer.result);
            assert.equal(note.method, name.replace(/be$/, "ption"));
        }
    }
    called.push(name);

    // What is missing, cannot be read, or is of a stranger.
    const wrong = [[], params.map(() => ({})), params.map(() => "0xzz")];
    const stranger = (schema) =>
        schema?.$ref?.endsWith("/Address") ? STRANGER : schema?.$ref?.endsWith("/TransactionArguments") ? { from: STRANGER, to: STRANGER } : null;
    if (params.some(({ schema }) => stranger(schema))) {
        wrong.push(params.map(({ schema }, position) => stranger(schema) ?? method.examples[0].params[position]?.value));
    }
    const needs = params.some(({ required }) => required);
    for (const values of wrong) {
        const { error } = await socket.call(name, values);
        if (error !== undefined) {
            named(error, method, `${name}(${JSON.stringify(values)})`);
        } else {
            assert.ok(!needs || values.length > 0 || name.endsWith("unsubscribe"), `${name} goes without what is required`);
        }
    }
}

assert.deepEqual(streams.size, new Set(streams.values()).size + 2, "every kind, two of them twice");
for (const { params } of socket.notes) {
    keeps(params.result, streams.get(params.subscription), "a notification");
}

// Over HTTP, and in a batch, there is nothing to notify by.
for (const method of document.methods.filter(({ name }) => name.endsWith("subscribe"))) {
    named((await post(method.name, ["newHeads"])).error, method, `${method.name} over HTTP`);
}
assert.equal((await post("wallet_none")).error.data.reason, "method_not_found");
for (const namespace of document["x-pass-through"].namespaces) {
    assert.notEqual((await post(`${namespace}_notOfThisWorld`)).error.data?.reason, "method_not_found", `${namespace} passes through`);
}

console.log(called.join(" "));
socket.socket.terminate();
