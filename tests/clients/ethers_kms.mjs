// An unmodified ethers 6 against a service of Sluice: accounts, sends, receipts, messages, typed data, batches.
// usage: node ethers_kms.mjs URL. Says what it has done, line by line; ends with 0 if all of it worked.
import assert from "node:assert/strict";
import { require, within } from "./common.mjs";

const { JsonRpcProvider, WebSocketProvider, getAddress, parseEther, verifyMessage, verifyTypedData } = require("ethers");

const url = process.argv[2];
const streams = url.startsWith("ws");
// ethers answers the same question from its cache for 250 ms, and polls for receipts over HTTP every 4 s.
const options = { cacheTimeout: -1, pollingInterval: 50 };
const provider = streams ? new WebSocketProvider(url, undefined, options) : new JsonRpcProvider(url, undefined, options);

async function run() {
    assert.equal((await provider.getNetwork()).chainId, 31337n);
    // In the case of a checksum, which ethers uses everywhere.
    const addresses = (await provider.send("eth_accounts", [])).map((address) => getAddress(address));
    assert.ok(addresses.length >= 2);
    const signers = await Promise.all(addresses.map((address) => provider.getSigner(address)));
    const [signer, other] = signers;
    assert.equal(await signer.getAddress(), addresses[0]);
    console.log("accounts");

    const before = await provider.getBalance("0x00000000000000000000000000000000000000aa");
    const sent = await within("a send", signer.sendTransaction({ to: "0x00000000000000000000000000000000000000aa", value: parseEther("1") }));
    const receipt = await within("a receipt", sent.wait());
    assert.equal(receipt.status, 1);
    assert.equal(receipt.hash, sent.hash);
    assert.equal(receipt.from, addresses[0]);
    assert.equal((await provider.getBalance("0x00000000000000000000000000000000000000aa")) - before, parseEther("1"));
    console.log("sendTransaction and wait");

    // Legacy, access list and dynamic fees, as a client may name them.
    const { gasPrice, maxFeePerGas, maxPriorityFeePerGas } = await provider.getFeeData();
    const kinds = [
        { type: 0, gasPrice: gasPrice * 2n },
        { type: 1, gasPrice: gasPrice * 2n, accessList: [{ address: other.address, storageKeys: [] }] },
        { type: 2, maxFeePerGas, maxPriorityFeePerGas },
    ];
    for (const kind of kinds) {
        const transaction = await within("a send", signer.sendTransaction({ to: other.address, value: 1n, ...kind }));
        const mined = await within("a receipt", transaction.wait());
        assert.equal(mined.type, kind.type);
    }
    console.log("types 0, 1 and 2");

    // A contract: init code that returns one byte of code.
    const created = await within("a send", signer.sendTransaction({ data: "0x6000600155600160005360016000f3" }));
    const contract = await within("a receipt", created.wait());
    assert.equal(await provider.getCode(contract.contractAddress), "0x01");
    console.log("contract creation");

    const message = "Grüße, Sluice";
    const signature = await signer.signMessage(message);
    assert.equal(verifyMessage(message, signature), addresses[0]);
    assert.equal(verifyMessage(message, await signer._legacySignMessage(message)), addresses[0]);
    console.log("signMessage");

    const domain = { name: "Ether Mail", version: "1", chainId: 31337, verifyingContract: "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC" };
    const types = {
        Person: [{ name: "name", type: "string" }, { name: "wallets", type: "address[]" }],
        Mail: [{ name: "from", type: "Person" }, { name: "to", type: "Person[]" }, { name: "contents", type: "string" }],
    };
    const mail = {
        from: { name: "Cow", wallets: [addresses[0]] },
        to: [{ name: "Bob", wallets: [addresses[1], addresses[0]] }],
        contents: "Hello, Bob!",
    };
    assert.equal(verifyTypedData(domain, types, mail, await signer.signTypedData(domain, types, mail)), addresses[0]);
    console.log("signTypedData");

    // All at once: JsonRpcProvider makes JSON-RPC batches of them, WebSocketProvider a pipeline.
    const many = await within("many sends", Promise.all(
        Array.from({ length: 40 }, (_, i) => signers[i % 2].sendTransaction({ to: other.address, value: BigInt(i + 1), gasLimit: 21000n })),
    ));
    const receipts = await within("many receipts", Promise.all(many.map((transaction) => transaction.wait())));
    assert.ok(receipts.every((one) => one.status === 1));
    assert.equal(new Set(many.map((one) => `${one.from} ${one.nonce}`)).size, 40);
    console.log("40 sends at once");

    await assert.rejects(signer.sendTransaction({ to: other.address, value: parseEther("1000000") }), { code: "INSUFFICIENT_FUNDS" });
    console.log("insufficient funds as ethers knows it");

    if (streams) {
        const head = new Promise((resolve) => provider.once("block", resolve));
        await within("a send", other.sendTransaction({ to: other.address }));
        assert.ok(Number.isInteger(await within("a block", head)));
        console.log("block events");
    }
}

run().then(
    async () => {
        await provider.destroy();
        console.log("done");
        process.exit(0);
    },
    (error) => {
        console.error(error);
        process.exit(1);
    },
);
