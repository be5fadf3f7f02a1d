// The plan with ethers 6, over HTTP or WebSocket. usage: node ethers.mjs URL
import { failure, main, plan, require, typedData, until, within } from "./common.mjs";

const { Interface, JsonRpcProvider, JsonRpcSigner, WebSocketProvider, parseEther, toQuantity } = require("ethers");

const url = process.argv[2];
// ethers answers the same question from its cache for 250 ms, and polls over HTTP every 4 s.
const options = { cacheTimeout: -1, pollingInterval: 100 };
const provider = url.startsWith("ws") ? new WebSocketProvider(url, undefined, options) : new JsonRpcProvider(url, undefined, options);

async function run() {
    const { chainId } = await provider.getNetwork();
    const accounts = await provider.send("eth_accounts", []);
    const signer = await provider.getSigner(accounts[0]);
    const heads = [];
    const head = new Promise((resolve) => provider.on("block", (number) => resolve(heads.push(number))));

    const sent = await within("a send", signer.sendTransaction({ to: plan.recipient, value: plan.value }));
    const { hash, from, to, status, blockNumber: block } = await within("a receipt", sent.wait());

    const { domain, types: { EIP712Domain: _, ...types }, message } = typedData(chainId);
    const signature = await signer.signTypedData(domain, types, message);

    // Over HTTP what is asked in one turn becomes a JSON-RPC batch; over a WebSocket, single requests one behind another.
    const hashes = await within("a batch", Promise.all(Array.from({ length: plan.batch }, (_, i) =>
        provider.send("eth_sendTransaction", [{ from: signer.address, to: plan.recipient, value: toQuantity(i), gas: toQuantity(21_000) }]))));
    await within("the batch's receipts", Promise.all(hashes.map((one) => provider.waitForTransaction(one))));

    const created = await within("a creation", signer.sendTransaction({ data: plan.emitter }));
    const { contractAddress: contract } = await within("a receipt", created.wait());
    const logged = new Promise((resolve) => provider.on({ address: contract, topics: [plan.topic] }, resolve));
    const data = new Interface([plan.event]).getAbiCoder().encode(["uint256"], [plan.amount]);
    const called = [];
    const log = await until("a log", logged, async () => {
        const call = await within("a call", signer.sendTransaction({ to: contract, data }));
        await within("a receipt", call.wait());
        called.push(call.hash);
    });
    await within("a head", head);

    const name = (error) => error.code;
    const stranger = new JsonRpcSigner(provider, plan.stranger);
    return {
        chainId, accounts,
        sent: { hash, from, to, status, block },
        typed: signature,
        batch: { hashes, ordered: !(provider instanceof WebSocketProvider) },
        heads,
        log: { hash: log.transactionHash, called, address: log.address, topics: log.topics, data: log.data, contract },
        errors: {
            unknownAccount: await failure(name, stranger.sendTransaction({ to: plan.recipient, gasLimit: 21_000 })),
            insufficientFunds: await failure(name, signer.sendTransaction({ to: plan.recipient, value: parseEther("1000000"), gasLimit: 21_000 })),
            revertedEstimate: await failure(name, signer.sendTransaction({ to: contract })),
            unsupportedMethod: await failure(name, provider.send(plan.unsupported, [])),
            badParams: await failure(name, provider.send(plan.malformed.method, plan.malformed.params)),
        },
    };
}

main(run, () => provider.destroy());
