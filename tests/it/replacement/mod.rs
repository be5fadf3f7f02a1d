//! Payloads in the place of others: bumps of what is stuck, speed-ups, cancels, ceilings, free chains, look-ups of what was superseded.

mod anvil;
mod geth;
mod kill;

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::node_proxy::RawFault;

use crate::support::anvil::parse;
use crate::support::world::World;
use crate::support::{eventually, soon};

/// Bumps that a test can wait for.
const SOON: &str = "bump = { after = \"1s\", blocks = 2, times = 3 }";

async fn call(client: &Client, method: &str, params: Value) -> Result<Value, ClientError> {
    soon(method, client.request(method, params)).await
}

async fn send(client: &Client, request: Value) -> B256 {
    parse(&call(client, "eth_sendTransaction", json!([request])).await.unwrap())
}

fn payment(from: Address) -> Value {
    json!({ "from": from, "to": Address::repeat_byte(0x77), "value": "0x5" })
}

fn told(error: &ClientError) -> (i64, &str) {
    (error.code().unwrap_or_default(), error.reason().unwrap_or_default())
}

/// The next raw send does not reach the node, which is made to seem to have it.
fn lose_the_next(world: &World) {
    world.node.set_faults([RawFault::refuses(1, "already known")]);
}

/// The transaction, once it is shown in this state.
async fn shown(client: &Client, name: &str, state: &str) -> Value {
    eventually(state, || async {
        let life = call(client, "sluice_getTransaction", json!([name])).await.ok()?;
        (life["state"] == state).then_some(life)
    })
    .await
}
