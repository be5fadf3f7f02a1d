"""The plan with web3.py: over HTTP with Web3, over WebSocket with AsyncWeb3. usage: python web3_py.py URL"""

import asyncio
import json
import sys
from pathlib import Path

from web3 import AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3.exceptions import Web3Exception
from web3.utils.subscriptions import LogsSubscription, NewHeadsSubscription

PLAN = json.loads((Path(__file__).parent / "plan.json").read_text())
PATIENCE = 60


def typed_data(chain_id):
    return {**PLAN["typed"], "domain": {**PLAN["typed"]["domain"], "chainId": chain_id}}


def told(error):
    """What web3.py makes of a call that must fail."""
    rpc = (getattr(error, "rpc_response", None) or {}).get("error", {})
    data = rpc.get("data")
    return {
        "name": type(error).__name__,
        "code": rpc.get("code"),
        "reason": data.get("reason") if isinstance(data, dict) else None,
        "message": str(error),
    }


def failure(call):
    try:
        call()
    except Web3Exception as error:
        return told(error)
    raise AssertionError("it went well")


async def async_failure(call):
    try:
        await call
    except Web3Exception as error:
        return told(error)
    raise AssertionError("it went well")


def sent(receipt):
    return {
        "hash": receipt["transactionHash"], "from": receipt["from"], "to": receipt["to"], "status": receipt["status"],
        "block": receipt["blockNumber"],
    }


def seen(log, call, contract):
    return {
        "hash": log["transactionHash"], "called": [call], "address": log["address"], "topics": log["topics"], "data": log["data"],
        "contract": contract,
    }


def small(account, value):
    return {"from": account, "to": PLAN["recipient"], "value": value, "gas": 21_000}


def sends(account):
    """web3.py's batch_requests() refuses what sends; its providers do not."""
    return [("eth_sendTransaction", [{**small(account, hex(i)), "gas": hex(21_000)}]) for i in range(PLAN["batch"])]


def answers(batch):
    return [answer["result"] for answer in batch]


def over_http(url):
    w3 = Web3(HTTPProvider(url))
    chain_id, accounts = w3.eth.chain_id, w3.eth.accounts
    account = accounts[0]
    heads = w3.eth.filter("latest")

    def mined(transaction):
        return w3.eth.wait_for_transaction_receipt(transaction, timeout=PATIENCE)

    first = mined(w3.eth.send_transaction({"from": account, "to": PLAN["recipient"], "value": PLAN["value"]}))
    signature = w3.eth.sign_typed_data(account, typed_data(chain_id))
    hashes = answers(w3.provider.make_batch_request(sends(account)))
    for one in hashes:
        mined(one)
    contract = mined(w3.eth.send_transaction({"from": account, "data": PLAN["emitter"]}))["contractAddress"]
    logs = w3.eth.filter({"address": contract, "topics": [PLAN["topic"]]})
    call = w3.eth.send_transaction({"from": account, "to": contract, "data": w3.codec.encode(["uint256"], [PLAN["amount"]])})
    mined(call)
    [log] = logs.get_new_entries()
    return {
        "chainId": chain_id,
        "accounts": accounts,
        "sent": sent(first),
        "typed": signature,
        "batch": {"hashes": hashes, "ordered": True},
        "heads": [w3.eth.get_block(head)["number"] for head in heads.get_new_entries()],
        "log": seen(log, call, contract),
        "errors": {
            "unknownAccount": failure(lambda: w3.eth.send_transaction(small(PLAN["stranger"], 0))),
            "insufficientFunds": failure(lambda: w3.eth.send_transaction(small(account, Web3.to_wei(1_000_000, "ether")))),
            "revertedEstimate": failure(lambda: w3.eth.estimate_gas({"from": account, "to": contract})),
            "unsupportedMethod": failure(lambda: w3.manager.request_blocking(PLAN["unsupported"], [])),
            "badParams": failure(lambda: w3.manager.request_blocking(*PLAN["malformed"].values())),
        },
    }


async def over_websocket(url):
    async with AsyncWeb3(WebSocketProvider(url)) as w3:
        chain_id, accounts = await w3.eth.chain_id, await w3.eth.accounts
        account = accounts[0]
        heads, logs, both = [], [], asyncio.Event()

        async def on_head(context):
            heads.append(context.result["number"])
            if logs:
                both.set()

        async def on_log(context):
            logs.append(context.result)
            if heads:
                both.set()

        await w3.subscription_manager.subscribe(NewHeadsSubscription(handler=on_head))
        handling = asyncio.create_task(w3.subscription_manager.handle_subscriptions(run_forever=True))

        async def mined(transaction):
            return await w3.eth.wait_for_transaction_receipt(transaction, timeout=PATIENCE)

        first = await mined(await w3.eth.send_transaction({"from": account, "to": PLAN["recipient"], "value": PLAN["value"]}))
        # As text: AsyncWeb3 of web3.py 8.0 stumbles over a dictionary inside.
        signature = await w3.eth.sign_typed_data(account, json.dumps(typed_data(chain_id)))
        hashes = answers(await w3.provider.make_batch_request(sends(account)))
        for one in hashes:
            await mined(one)
        creation = await mined(await w3.eth.send_transaction({"from": account, "data": PLAN["emitter"]}))
        contract = creation["contractAddress"]
        await w3.subscription_manager.subscribe(LogsSubscription(address=contract, topics=[PLAN["topic"]], handler=on_log))
        data = w3.codec.encode(["uint256"], [PLAN["amount"]])
        call = await w3.eth.send_transaction({"from": account, "to": contract, "data": data})
        await mined(call)
        await asyncio.wait_for(both.wait(), PATIENCE)
        report = {
            "chainId": chain_id,
            "accounts": accounts,
            "sent": sent(first),
            "typed": signature,
            "batch": {"hashes": hashes, "ordered": True},
            "heads": heads,
            "log": seen(logs[0], call, contract),
            "errors": {
                "unknownAccount": await async_failure(w3.eth.send_transaction(small(PLAN["stranger"], 0))),
                "insufficientFunds": await async_failure(w3.eth.send_transaction(small(account, Web3.to_wei(1_000_000, "ether")))),
                "revertedEstimate": await async_failure(w3.eth.estimate_gas({"from": account, "to": contract})),
                "unsupportedMethod": await async_failure(w3.manager.socket_request(PLAN["unsupported"], [])),
                "badParams": await async_failure(w3.manager.socket_request(*PLAN["malformed"].values())),
            },
        }
        handling.cancel()
        return report


if __name__ == "__main__":
    url = sys.argv[1]
    report = asyncio.run(over_websocket(url)) if url.startswith("ws") else over_http(url)
    print(json.dumps(report, default=lambda value: value.to_0x_hex()))
