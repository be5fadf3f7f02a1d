"""A small backend that pays out: it sends every payout of a file over one WebSocket, and follows each on that same WebSocket until it
is confirmed. usage: python backend.py URL FILE. ../README.md has the file's form and the reasons."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

URL, FILE = sys.argv[1:3]
# {"from", "cursor", "payouts": [{"reference", "to", "value", "nonce", "hash", "history", "reverted", "error"}]}
with open(FILE) as text:
    STATE = json.load(text)


class RpcError(Exception):
    """The gateway's error: nothing of the request will be mined, unless `reason` says otherwise."""

    def __init__(self, error):
        super().__init__(error["message"])
        data = error.get("data") or {}
        self.reason, self.again = data.get("reason"), "retryAfterMs" in data


def save():
    """Cursor and payouts are one file, replaced as a whole: whenever this process ends, an event has been worked on once or will be."""
    with open(f"{FILE}.new", "w") as copy:
        json.dump(STATE, copy, indent=2)
        copy.flush()
        os.fsync(copy.fileno())
    os.replace(f"{FILE}.new", FILE)


def settled(payout):
    return "error" in payout or payout.get("history", [None])[-1] == "confirmed"


def on_event(event):
    nonce = int(event["slot"]["nonce"], 16)
    for payout in STATE["payouts"]:
        if payout.get("nonce") == nonce:
            payout["hash"] = event["hash"]
            payout["reverted"] = event.get("reverted", payout.get("reverted", False))
            payout.setdefault("history", []).append(event["state"])
            if event["state"] in ("refused", "replaced"):
                payout["error"] = event["detail"] or event["state"]
            print(payout["reference"], event["state"], *(["(its execution failed)"] if payout["reverted"] else []), flush=True)
    STATE["cursor"] = event["cursor"]
    save()


class Connection:
    """One WebSocket: calls with their answers, and the events of its one subscription."""

    def __init__(self, socket):
        self.socket, self.answers = socket, {}
        self.reading = asyncio.create_task(self.read())

    async def call(self, method, *params):
        number, answer = len(self.answers) + 1, asyncio.get_running_loop().create_future()
        self.answers[number] = answer
        await self.socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        await asyncio.wait({answer, self.reading}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionError("no answer")
        message = answer.result()
        if "error" in message:
            raise RpcError(message["error"])
        return message["result"]

    async def read(self):
        """Until the connection or the stream ends. The library pings, so that a dead connection is noticed."""
        with contextlib.suppress(WebSocketException):
            async for text in self.socket:
                message = json.loads(text)
                if message.get("method") != "sluice_subscription":
                    self.answers[message["id"]].set_result(message)
                elif "error" in message["params"]:
                    return  # The stream has ended: come back by cursor.
                else:
                    on_event(message["params"]["result"])


async def ask(connection, payout):
    """Asks for one payout. The nonce is ours and on disk, so to ask again is never a second payment."""
    request = {"from": STATE["from"], "to": payout["to"], "value": payout["value"], "nonce": hex(payout["nonce"])}
    try:
        payout["hash"] = await connection.call("eth_sendTransaction", request)
    except RpcError as error:
        # Held or used: an earlier request of ours got through, and its event says which.
        if not error.again and error.reason not in ("nonce_held", "nonce_too_low", "internal"):
            payout["error"] = str(error)
    except (OSError, WebSocketException):
        pass  # No answer says nothing.
    save()


async def work(connection):
    """Follows and sends over this connection until all is settled."""
    own, payouts = {"from": STATE["from"]}, STATE["payouts"]
    # A cursor from before the first send: nothing of it is missed, however early the connection is lost.
    if "cursor" not in STATE:
        STATE["cursor"] = await connection.call("sluice_getCursor", own)
        save()
    await connection.call("sluice_subscribe", "transactions", {**own, "after": STATE["cursor"]})
    taken = {payout["nonce"] for payout in payouts if "nonce" in payout}
    following = int(await connection.call("eth_getTransactionCount", STATE["from"], "pending"), 16)
    for payout in payouts:
        if "nonce" not in payout:
            while following in taken:
                following += 1
            payout["nonce"] = following
            taken.add(following)
    save()
    asked = set()
    for step in itertools.count():
        if step % 100 == 0:  # All at once, and again every 10 s what is neither answered nor in the stream.
            open_ones = [payout for payout in payouts if "hash" not in payout and not settled(payout)]
            asked |= {asyncio.create_task(ask(connection, payout)) for payout in open_ones}
        for failed in payouts:
            if "error" in failed:  # Higher nonces wait behind it: somebody has to look.
                sys.exit(f"{failed['reference']}: {failed['error']}")
        if all(map(settled, payouts)):
            return
        await asyncio.wait({connection.reading}, timeout=0.1)
        if connection.reading.done():
            raise ConnectionError("the connection ended")


async def main():
    wait = 0.1
    while True:
        try:
            async with connect(URL) as socket:
                wait = 0.1
                await work(Connection(socket))
                return any(payout.get("reverted") for payout in STATE["payouts"])
        except RpcError as error:
            if not error.again:
                sys.exit(str(error))
            print(error, file=sys.stderr)
        except (OSError, WebSocketException) as error:
            print(error, file=sys.stderr)
        await asyncio.sleep(wait * random.uniform(0.5, 1))
        wait = min(wait * 2, 10)


sys.exit(asyncio.run(main()))
