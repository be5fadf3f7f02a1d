"""Recovers signers by eth-account, which shares no code with Sluice.

Reads JSON lines: {"kind": "raw", "raw": "0x…"}, {"kind": "message", "message": "0x…", "signature": "0x…"} or
{"kind": "typed", "typed": {…}, "signature": "0x…"}, each with "address" (and "type", the transaction type, for raw).
Ends with 0 if every signature is that of its address. With --authorisation ADDRESS CHAIN_ID it signs an EIP-7702
authorisation by a new key instead, and prints it as eth_sendTransaction takes it.
"""

import json
import sys

from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

SECP256K1_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def recover(item):
    if item["kind"] == "raw":
        raw = HexBytes(item["raw"])
        kind = raw[0] if raw[0] < 0x80 else 0
        assert kind == item["type"], f"type {kind} instead of {item['type']}"
        if kind:
            assert TypedTransaction.from_bytes(raw).transaction_type == kind
        return Account.recover_transaction(raw)
    signature = bytes.fromhex(item["signature"][2:])
    assert len(signature) == 65 and signature[64] in (27, 28), "r, s and v of 27 or 28"
    assert int.from_bytes(signature[32:64], "big") <= SECP256K1_HALF_ORDER, "s is high"
    if item["kind"] == "message":
        signable = encode_defunct(hexstr=item["message"])
    else:
        signable = encode_typed_data(full_message=item["typed"])
    return Account.recover_message(signable, signature=signature)


def verify():
    checked = 0
    for line in sys.stdin:
        item = json.loads(line)
        signer = recover(item)
        assert signer.lower() == item["address"].lower(), f"{item['kind']}: signed by {signer}, not by {item['address']}"
        checked += 1
    assert checked, "nothing to verify"
    print(f"{checked} signatures verified")


def authorise(address, chain_id):
    signed = Account.create().sign_authorization({"chainId": chain_id, "address": address, "nonce": 0})
    print(json.dumps({
        "chainId": hex(signed.chain_id),
        "address": address,
        "nonce": hex(signed.nonce),
        "yParity": hex(signed.y_parity),
        "r": hex(signed.r),
        "s": hex(signed.s),
    }))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--authorisation"]:
        authorise(sys.argv[2], int(sys.argv[3]))
    else:
        verify()
