//! The OpenRPC document against what the server answers, judged by the meta-schema and a validator that others wrote.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::anvil::Anvil;
use crate::support::gateway::{Gateway, sluice, words};
use crate::support::parts::{self, Part, have};
use crate::support::soon;

/// The development addresses that the examples use beside the first: two that are managed, and one that is not.
const FUNDED: [&str; 3] = [
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
    "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
    "0xBcd4042DE499D14e55001CcbB24a551F3b954096",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_openrpc_document_is_what_the_server_answers() {
    if !have("the_openrpc_document_is_what_the_server_answers", &[Part::Node, Part::Documents]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let anvil = Anvil::start(folder.path(), &[]).await;
    for address in FUNDED {
        anvil.fund(address.parse().unwrap(), 10).await;
    }
    let node = format!("ws://{}", anvil.address);
    let dev = sluice(&["dev", "--node", &node, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let gateway = Gateway::start(dev, "dev", &folder.path().join("dev.log")).await.ready().await;

    let mut command = Command::new("node");
    command.arg(parts::client("openrpc.mjs")).arg(gateway.url("http")).arg(gateway.url("ws")).stdin(Stdio::null());
    let output = soon("the checks", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    let said = words(&output);
    let called: BTreeSet<&str> = said.split_whitespace().collect();

    // The document has what is registered, and the script has seen to it that each is described. Nothing more is described.
    assert_eq!(called, described().iter().map(String::as_str).collect());
    let document = gateway.call("rpc_discover", json!([])).await.unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// The methods that the files beside the code describe.
fn described() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rpc/openrpc/methods");
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let methods: Vec<Value> = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        names.extend(methods.iter().map(|method| method["name"].as_str().unwrap().to_owned()));
    }
    names
}
