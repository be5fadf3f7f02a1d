//! eth-account, which shares no code with Sluice, as the judge of every kind of signature.

use std::io::Write;
use std::process::{Command, Stdio};

use alloy_primitives::hex;
use serde_json::{Value, json};

use crate::support::gateway::words;
use crate::support::world::World;
use crate::support::{parts, soon};

/// Runs tests/clients/verify.py with this input.
fn verify(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(parts::python());
    command.arg(parts::client("verify.py")).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_signature_is_recovered_by_eth_account() {
    let Some(world) = World::start("every_kind_of_signature_is_recovered_by_eth_account").await else { return };
    let address = world.accounts(1).await[0];
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    let delegate = "0x00000000000000000000000000000000000000dd";
    let authorisation: Value = serde_json::from_str(&verify(&["--authorisation", delegate, "31337"], "")).unwrap();
    let legacy = json!({ "gasPrice": "0x77359400" });
    let access =
        json!({ "gasPrice": "0x77359400", "accessList": [{ "address": delegate, "storageKeys": [format!("0x{}", "07".repeat(32))] }] });
    let dynamic = json!({ "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1" });
    let delegating = json!({ "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1", "authorizationList": [authorisation] });
    let mut items = Vec::new();
    for (kind, fields) in [legacy, access, dynamic.clone(), dynamic, delegating].into_iter().enumerate() {
        // Five transactions, types 0, 1, 2, 2 and 4: both parities of types that sign a y-parity turn up over the runs.
        let kind = [0, 1, 2, 2, 4][kind];
        let mut transaction = json!({
            "from": address, "to": delegate, "value": "0x1", "gas": "0x186a0", "input": "0xc0ffee",
            "nonce": format!("{:#x}", items.len()),
        });
        transaction.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let signed = soon("eth_signTransaction", client.request("eth_signTransaction", json!([transaction]))).await.unwrap();
        items.push(json!({ "kind": "raw", "address": address, "type": kind, "raw": signed["raw"] }));
    }
    for message in ["", "Grüße", "\u{19}Ethereum Signed Message:\n32", &"x".repeat(5_000)] {
        let message = hex::encode_prefixed(message);
        for (method, params) in [("personal_sign", json!([message, address])), ("eth_sign", json!([address, message]))] {
            let signature = soon(method, client.request(method, params)).await.unwrap();
            items.push(json!({ "kind": "message", "address": address, "message": message, "signature": signature }));
        }
    }
    let typed = json!({
        "types": {
            "EIP712Domain": [
                { "name": "name", "type": "string" }, { "name": "version", "type": "string" },
                { "name": "chainId", "type": "uint256" }, { "name": "verifyingContract", "type": "address" },
            ],
            "Person": [{ "name": "name", "type": "string" }, { "name": "wallet", "type": "address" }],
            "Mail": [
                { "name": "from", "type": "Person" }, { "name": "to", "type": "Person[]" }, { "name": "contents", "type": "string" },
                { "name": "amount", "type": "uint256" }, { "name": "delta", "type": "int64" }, { "name": "tag", "type": "bytes4" },
                { "name": "data", "type": "bytes" }, { "name": "urgent", "type": "bool" },
            ],
        },
        "primaryType": "Mail",
        "domain": { "name": "Mail", "version": "1", "chainId": 31337, "verifyingContract": delegate },
        "message": {
            "from": { "name": "Cow", "wallet": address }, "to": [{ "name": "Bob", "wallet": delegate }], "contents": "Hello",
            "amount": 1_000_000, "delta": -5, "tag": "0x01020304", "data": "0xc0ffee", "urgent": true,
        },
    });
    for (method, data) in [("eth_signTypedData", typed.clone()), ("eth_signTypedData_v4", Value::String(typed.to_string()))] {
        let signature = soon(method, client.request(method, json!([address, data]))).await.unwrap();
        items.push(json!({ "kind": "typed", "address": address, "typed": typed, "signature": signature }));
    }
    let input: String = items.iter().map(|item| format!("{item}\n")).collect();
    let said = tokio::task::spawn_blocking(move || verify(&[], &input)).await.unwrap();
    assert_eq!(said, format!("{} signatures verified\n", items.len()));
    assert!(world.node.sent().is_empty(), "what is only signed is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_recovered_by_eth_account() {
    let Some(world) = World::start("what_was_sent_is_recovered_by_eth_account").await else { return };
    let accounts = world.accounts(2).await;
    let gateway = world.gateway().await;
    let client = gateway.connect().await;
    for i in 0..20 {
        let mut params = crate::support::world::transfer(accounts[i % 2], i as u64);
        if i % 4 < 2 {
            params[0]["gasPrice"] = json!("0x77359400");
        }
        soon("an answer", client.request("eth_sendTransaction", params)).await.unwrap();
    }
    let input: String = world
        .node
        .sent()
        .iter()
        .map(|sent| {
            let from = sent.decode().unwrap().from;
            assert!(accounts.contains(&from));
            let kind = if sent.raw.starts_with("0x02") { 2 } else { 0 };
            format!("{}\n", json!({ "kind": "raw", "address": from, "type": kind, "raw": sent.raw }))
        })
        .collect();
    assert_eq!(verify(&[], &input), "20 signatures verified\n");
}
