// The plan with viem 2, over HTTP or WebSocket. usage: node viem.mjs URL
import { failure, main, plan, require, typedData, until, within } from "./common.mjs";

const { createClient, defineChain, encodeAbiParameters, http, parseAbiItem, parseEther, publicActions, toHex, walletActions, webSocket } =
    require("viem");

const url = process.argv[2];
const streams = url.startsWith("ws");
// Over HTTP what is asked in one turn becomes a JSON-RPC batch; over a WebSocket, single requests one behind another.
const transport = streams ? webSocket(url) : http(url, { batch: true });
const client = createClient({ transport, pollingInterval: 100 }).extend(publicActions).extend(walletActions);

async function run() {
    const id = await client.getChainId();
    const chain = defineChain({ id, name: "dev", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [] } } });
    const accounts = await client.request({ method: "eth_accounts" });
    const [account] = accounts;
    const receipt = (hash) => within("a receipt", client.waitForTransactionReceipt({ hash }));
    const heads = [];
    const head = new Promise((resolve, reject) => client.watchBlockNumber({
        onBlockNumber: (number) => resolve(heads.push(number)), onError: reject,
    }));

    const first = await within("a send", client.sendTransaction({ account, chain, to: plan.recipient, value: BigInt(plan.value) }));
    const { transactionHash: hash, from, to, status, blockNumber: block } = await receipt(first);

    const signature = await client.signTypedData({ account, ...typedData(id) });

    // What sends is not to be repeated by the library.
    const send = (transaction) => client.request({ method: "eth_sendTransaction", params: [transaction] }, { retryCount: 0 });
    const hashes = await within("a batch", Promise.all(Array.from({ length: plan.batch }, (_, i) =>
        send({ from: account, to: plan.recipient, value: toHex(i), gas: toHex(21_000) }))));
    await Promise.all(hashes.map(receipt));

    const { contractAddress: contract } = await receipt(await client.sendTransaction({ account, chain, data: plan.emitter }));
    const logged = new Promise((resolve, reject) => client.watchEvent({
        address: contract, event: parseAbiItem(plan.event), onLogs: ([one]) => resolve(one), onError: reject,
    }));
    const data = encodeAbiParameters([{ type: "uint256" }], [BigInt(plan.amount)]);
    const called = [];
    const log = await until("a log", logged, async () => {
        called.push(await client.sendTransaction({ account, chain, to: contract, data }));
        await receipt(called.at(-1));
    });
    await within("a head", head);

    const name = (error) => [error.name, error.cause?.name].join(" of ");
    const refused = (transaction) => client.sendTransaction({ account, chain, to: plan.recipient, ...transaction });
    return {
        chainId: id, accounts,
        sent: { hash, from, to, status: status === "success" ? 1 : 0, block },
        typed: signature,
        batch: { hashes, ordered: !streams },
        heads,
        log: { hash: log.transactionHash, called, address: log.address, topics: log.topics, data: log.data, contract },
        errors: {
            unknownAccount: await failure(name, refused({ account: plan.stranger, gas: 21_000n })),
            insufficientFunds: await failure(name, refused({ value: parseEther("1000000"), gas: 21_000n })),
            revertedEstimate: await failure(name, client.estimateGas({ account, to: contract })),
            unsupportedMethod: await failure(name, client.request({ method: plan.unsupported })),
            badParams: await failure(name, client.request(plan.malformed)),
        },
    };
}

main(run, () => {});
