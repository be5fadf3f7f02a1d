//! anvil 1.7.1 has a race of its own: a transaction that arrives while the block with the nonce before it is being mined can be
//! queued behind a nonce that is used already, for ever. A node judges its queue again at each block; anvil does not, and answers
//! "already imported" to the same bytes. So what hangs like that is taken out of anvil's pool and put back, byte for byte, by the
//! test: the gateway has no part in it, and what is recorded of it is not touched.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};

use super::anvil::quantity;

/// How often the pool is looked at. What hangs twice in a row hangs for ever.
const INTERVAL: Duration = Duration::from_millis(250);

/// Watches the pool until its future is dropped or the node is gone.
pub(crate) async fn watch(client: Client) {
    let mut before = HashSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match hanging(&client).await {
            Ok(now) => {
                for (account, hash) in now.intersection(&before) {
                    if let Err(error) = put_back(&client, account).await {
                        eprintln!("anvil keeps {hash} from being mined: {error}");
                    }
                }
                before = now;
            }
            Err(_) => return,
        }
    }
}

/// Accounts that have a transaction queued whose nonce is their next one, with its hash.
async fn hanging(client: &Client) -> Result<HashSet<(String, String)>, ClientError> {
    let mut found = HashSet::new();
    let status = client.request("txpool_status", json!([])).await?;
    if quantity(&status["queued"]) == 0 {
        return Ok(found);
    }
    let content = client.request("txpool_content", json!([])).await?;
    for (account, queued) in content["queued"].as_object().into_iter().flatten() {
        let next = quantity(&client.request("eth_getTransactionCount", json!([account, "latest"])).await?).to_string();
        found.extend(queued[&next]["hash"].as_str().map(|hash| (account.clone(), hash.to_owned())));
    }
    Ok(found)
}

/// Takes the account's transactions out of the pool and sends the same bytes again, in order of nonce. What arrives in between
/// is gone as well; the gateway sends it again when it finds it missing.
async fn put_back(client: &Client, account: &str) -> Result<(), ClientError> {
    let content = client.request("txpool_content", json!([])).await?;
    let mut queued: Vec<(u64, &Value)> = Vec::new();
    for (nonce, transaction) in content["queued"][account].as_object().into_iter().flatten() {
        queued.push((nonce.parse().unwrap_or(u64::MAX), &transaction["hash"]));
    }
    queued.sort_by_key(|(nonce, _)| *nonce);
    let mut bytes = Vec::new();
    for (_, hash) in queued {
        bytes.push(client.request("eth_getRawTransactionByHash", json!([hash])).await?);
    }
    client.request("anvil_removePoolTransactions", json!([account])).await?;
    for raw in bytes {
        client.request("eth_sendRawTransaction", json!([raw])).await?;
    }
    Ok(())
}
