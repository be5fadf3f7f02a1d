// The plan with web3.js 4, over HTTP or WebSocket. usage: node web3.mjs URL
import { failure, main, plan, require, typedData, within } from "./common.mjs";

const { Web3 } = require("web3");

const url = process.argv[2];
const streams = url.startsWith("ws");
const web3 = new Web3(url);
web3.eth.transactionPollingInterval = 100;

const quantity = (number) => `0x${number.toString(16)}`;

async function run() {
    const chainId = await web3.eth.getChainId();
    const accounts = await web3.eth.getAccounts();
    const [account] = accounts;
    const heads = [];
    // Subscriptions are for WebSockets; over HTTP web3.js has none and its users ask.
    const subscribed = async (name, options, on) => {
        const subscription = await within(name, web3.eth.subscribe(name, options));
        const seen = new Promise((resolve, reject) => {
            subscription.on("data", (one) => { on?.(one); resolve(one); });
            subscription.on("error", reject);
        });
        return { seen };
    };
    const head = streams && await subscribed("newHeads", undefined, ({ number }) => heads.push(number));

    const sent = await within("a receipt", web3.eth.sendTransaction({ from: account, to: plan.recipient, value: plan.value }));
    const { transactionHash: hash, from, to, status, blockNumber: block } = sent;

    const signature = await web3.eth.signTypedData(account, typedData(chainId));

    const batch = new web3.BatchRequest();
    const requests = Array.from({ length: plan.batch }, (_, i) => batch.add({
        jsonrpc: "2.0", id: i + 1, method: "eth_sendTransaction",
        params: [{ from: account, to: plan.recipient, value: quantity(i), gas: quantity(21_000) }],
    }));
    await within("a batch", batch.execute());
    const hashes = await Promise.all(requests);
    const mined = async (one) => (await web3.eth.getTransactionReceipt(one).catch(() => null)) ?? mined(one);
    await within("the batch's receipts", Promise.all(hashes.map(mined)));

    const { contractAddress: contract } = await within("a receipt", web3.eth.sendTransaction({ from: account, data: plan.emitter }));
    const data = web3.eth.abi.encodeParameters(["uint256"], [plan.amount]);
    const filter = { address: contract, topics: [plan.topic] };
    const logged = streams && await subscribed("logs", filter);
    const call = await within("a receipt", web3.eth.sendTransaction({ from: account, to: contract, data }));
    let log;
    if (streams) {
        log = await within("a log", logged.seen);
        await within("a head", head.seen);
    } else {
        [log] = await web3.eth.getPastLogs({ ...filter, fromBlock: block });
        heads.push(await web3.eth.getBlockNumber());
    }

    // web3.js tries every send as a call first, and has one name for whatever is wrong with that. Without, the gateway's error comes through.
    const options = { checkRevertBeforeSending: false };
    const name = (error) => [error.name, error.cause?.name].filter(Boolean).join(" of ");
    const send = (transaction) => web3.eth.sendTransaction({ from: account, to: plan.recipient, ...transaction }, undefined, options);
    return {
        chainId, accounts,
        sent: { hash, from, to, status, block },
        typed: signature,
        batch: { hashes, ordered: true },
        heads,
        log: { hash: log.transactionHash, called: [call.transactionHash], address: log.address, topics: log.topics, data: log.data, contract },
        errors: {
            unknownAccount: await failure(name, send({ from: plan.stranger, gas: 21_000 })),
            insufficientFunds: await failure(name, send({ value: web3.utils.toWei("1000000", "ether") })),
            revertedEstimate: await failure(name, web3.eth.estimateGas({ from: account, to: contract })),
            unsupportedMethod: await failure(name, web3.requestManager.send({ method: plan.unsupported, params: [] })),
            badParams: await failure(name, web3.requestManager.send(plan.malformed)),
        },
    };
}

main(run, () => streams && web3.provider.disconnect());
