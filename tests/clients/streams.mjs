// What an unmodified ethers or viem is told of heads, and of the logs of one contract, over a WebSocket: one line each, until it is ended.
// usage: node streams.mjs ethers|viem URL ADDRESS
import { require } from "./common.mjs";

const [library, url, address] = process.argv.slice(2);
const tell = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);
const head = (number) => tell({ head: Number(number) });
const log = (block, index, transaction, removed) => tell({ block, index, transaction, removed });

const libraries = {
    // It tells nobody which logs a reorg took back.
    async ethers() {
        const { WebSocketProvider } = require("ethers");
        const provider = new WebSocketProvider(url);
        // Before it knows the chain a log is an error that nothing catches.
        await provider.getNetwork();
        provider.on("block", head);
        provider.on({ address }, (one) => log(one.blockHash, one.index, one.transactionHash, one.removed));
    },
    viem() {
        const { createPublicClient, webSocket } = require("viem");
        const client = createPublicClient({ transport: webSocket(url) });
        const onError = (error) => tell({ error: error.message });
        client.watchBlockNumber({ onBlockNumber: head, onError });
        const onLogs = (logs) => logs.forEach((one) => log(one.blockHash, one.logIndex, one.transactionHash, one.removed));
        client.watchEvent({ address, onLogs, onError });
    },
};

await libraries[library]();
