//! What goes to an endpoint of which role, and what never does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError};
use sluice_load_tests::node_proxy::{NodeProxy, RawAnswer, RawFault};
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, SimNode};
use tokio_tungstenite::tungstenite::Message;

use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::transfer;
use crate::support::{ANYWHERE, eventually, soon};

/// Whoever takes transactions in private: it writes down everything that it is asked.
struct Builder {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Builder {
    /// `node` answers for it.
    async fn start(node: SimNode) -> Self {
        let listener = tokio::net::TcpListener::bind(ANYWHERE).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let record = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, node.clone(), Arc::clone(&record)));
            }
        });
        Self { address, asked }
    }

    async fn serve(stream: tokio::net::TcpStream, node: SimNode, record: Arc<Mutex<Vec<(String, Value)>>>) {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            let request: Value = serde_json::from_str(&text).unwrap();
            let (method, params) = (request["method"].as_str().unwrap().to_owned(), request["params"].clone());
            let answer = match node.with(|node, now| node.call(now, &method, &params)) {
                Ok(result) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
                Err(error) => {
                    json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": error.code, "message": error.message } })
                }
            };
            record.lock().unwrap().push((method, params));
            if socket.send(Message::Text(answer.to_string().into())).await.is_err() {
                return;
            }
        }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

struct Stage {
    node: SimNode,
    account: Address,
    builder: Builder,
    /// The ways to the node that reads and to the builder.
    public: NodeProxy,
    private: NodeProxy,
    gateway: Gateway,
    client: Client,
    _held: (tempfile::TempDir, [sluice_load_tests::listener::Listener; 2]),
}

impl Stage {
    async fn start() -> Self {
        let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
        let account = kms.with(|kms, _| kms.keys()[0].address());
        let ether = U256::from(1_000_000_000_000_000_000_u64);
        let settings = sim_node::Settings::new(sim_node::Client::Geth, 31337, 3).with_balance(ether, [account]);
        let node = SimNode::new(settings.clone());
        let builder = Builder::start(SimNode::new(settings)).await;
        let listeners = [kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap()];
        let public = NodeProxy::start(listeners[1].address()).await.unwrap();
        let private = NodeProxy::start(builder.address).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lines = "rebroadcast = \"1s\"\nanswer_after = \"100ms\"\nclocks = { reconnect_max = \"100ms\" }";
        let (keys, extra) = (listeners[0].url(), Extra::environment(lines));
        let configuration =
            Configuration { chain_id: 31337, node: &public.url(), keys: Keys::Kms(&keys), service: "payments", extra: &extra };
        let file = configuration.write(folder.path());
        let mut command = sluice(&["serve", file.to_str().unwrap()]);
        let (reads, takes) = (public.url(), private.url());
        let nodes = format!("[{{ url = \"{takes}\", roles = [\"private\"] }}, {{ url = \"{reads}\", roles = [\"read\"] }}]");
        command.env("SLUICE__ENVIRONMENT__DEV__NODES", nodes);
        let gateway = Gateway::start(command, "payments", &folder.path().join("gateway.log")).await.ready().await;
        let client = gateway.connect().await;
        Self { node, account, builder, public, private, gateway, client, _held: (folder, listeners) }
    }

    async fn send(&self, value: u64) -> Result<B256, ClientError> {
        let answer = soon("an answer", self.client.request("eth_sendTransaction", transfer(self.account, value))).await;
        answer.map(|hash| parse(&hash))
    }

    /// Puts what the builder got into a block of the chain, and waits until the gateway has the receipt of this one.
    async fn mined(&self, hash: B256) {
        for sent in self.private.sent() {
            // What is mined already is refused.
            let _known = self.node.with(|node, now| node.call(now, "eth_sendRawTransaction", &json!([sent.raw])));
        }
        self.node.mine();
        eventually("the receipt", || async {
            let receipt = self.gateway.call("eth_getTransactionReceipt", json!([hash])).await.unwrap();
            receipt.is_object().then_some(())
        })
        .await;
    }

    /// How the endpoints are: the one that is private first.
    async fn up(&self) -> [bool; 2] {
        let status = self.gateway.status().await;
        [0, 1].map(|index| status["environments"][0]["endpoints"][index]["up"] == true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_in_private_reaches_no_other_endpoint_not_even_while_the_private_one_is_away() {
    let stage = Stage::start().await;
    let first = stage.send(1).await.unwrap();
    stage.mined(first).await;
    // Taken from the way: the gateway must hold it, and send it again.
    stage.private.set_faults([RawFault { count: u64::MAX, answer: RawAnswer::Lose }]);
    let second = stage.send(2).await.unwrap();
    stage.private.refuse(true);
    stage.private.cut();
    eventually("the private endpoint to be missed", || async { (stage.up().await == [false, true]).then_some(()) }).await;
    let refused = stage.send(3).await.unwrap_err();
    assert_eq!(refused.reason(), Some("node_unavailable"), "{refused:?}");
    for (method, params) in [("eth_sendBundle", json!([{ "txs": [] }])), ("eth_sendRawTransaction", json!(["0x01"]))] {
        let refused = soon("an answer", stage.client.request(method, params)).await.unwrap_err();
        assert_eq!(refused.reason(), Some("node_unavailable"), "{method}: {refused:?}");
    }
    let (status, _) = stage.gateway.admin("readyz").await;
    assert_eq!(status, 503, "nothing can be sent");
    // It is tried again and again, to nobody.
    let tried = "sluice_submissions_total{environment=\"dev\",outcome=\"not_sent\"}";
    eventually("tries", || async {
        stage.node.mine();
        (stage.gateway.metric(tried).await >= 3.0).then_some(())
    })
    .await;
    assert_eq!(stage.public.sent(), Vec::new());
    let before = stage.private.sent_count();

    stage.private.set_faults([]);
    stage.private.refuse(false);
    eventually("it to be sent again", || async { (stage.private.sent_count() > before).then_some(()) }).await;
    stage.mined(second).await;
    let third = stage.send(3).await.unwrap();
    stage.mined(third).await;
    assert_eq!(stage.public.sent(), Vec::new(), "nothing of all this went anywhere else");
    let asked = stage.builder.asked();
    let methods: BTreeSet<&str> = asked.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, BTreeSet::from(["eth_chainId", "eth_getBlockByNumber", "eth_sendRawTransaction"]), "it is never read from");
    assert!(asked.iter().filter(|(method, _)| method == "eth_getBlockByNumber").all(|(_, params)| params[0] == "0x0"), "but for its chain");
    let status = stage.gateway.status().await;
    let endpoints = &status["environments"][0]["endpoints"];
    assert_eq!((&endpoints[0]["roles"], &endpoints[1]["roles"]), (&json!(["private"]), &json!(["read"])));
}
