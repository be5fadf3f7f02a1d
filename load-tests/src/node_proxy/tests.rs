//! What breaks streams, before a simulated node.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::announcements::HEADS;
use crate::client::{Client, Subscription};
use crate::sim_node::{self, SimNode};

struct Stage {
    node: SimNode,
    _listener: Listener,
    proxy: NodeProxy,
}

impl Stage {
    async fn start() -> Self {
        let node = SimNode::new(sim_node::Settings::new(sim_node::Client::Geth, 31_337, 7));
        let listener = node.listen((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let proxy = NodeProxy::start(listener.address()).await.unwrap();
        Self { node, _listener: listener, proxy }
    }

    async fn heads(&self) -> (Client, Subscription) {
        let client = Client::connect(&self.proxy.url(), &[]).await.unwrap();
        let heads = client.subscribe(json!(["newHeads"])).await.unwrap();
        (client, heads)
    }

    fn mine(&self) -> Value {
        json!(self.node.mine())
    }
}

/// Long enough for anything that passes over loopback; nothing is expected to take this long.
async fn nothing(heads: &mut Subscription) {
    assert!(timeout(Duration::from_millis(300), heads.next()).await.is_err());
}

async fn hash(heads: &mut Subscription) -> Value {
    timeout(Duration::from_secs(60), heads.next()).await.unwrap().unwrap()["hash"].clone()
}

#[tokio::test]
async fn a_half_open_connection_stays_and_says_nothing_until_it_is_cut() {
    let stage = Stage::start().await;
    let (old, mut heads) = stage.heads().await;
    stage.proxy.hang();
    let (_new, mut others) = stage.heads().await;
    let mined = stage.mine();
    assert_eq!(hash(&mut others).await, mined, "new connections are as usual");
    nothing(&mut heads).await;
    assert!(timeout(Duration::from_millis(300), old.request("eth_chainId", json!([]))).await.is_err());
    assert!(!old.is_closed());
    stage.proxy.cut();
    assert!(heads.next().await.is_none());
}

#[tokio::test]
async fn a_stall_ends_with_everything_in_order() {
    let stage = Stage::start().await;
    let (client, mut heads) = stage.heads().await;
    stage.proxy.stall(true);
    let mined = [stage.mine(), stage.mine()];
    let asked = client.start("eth_blockNumber", json!([]));
    nothing(&mut heads).await;
    stage.proxy.stall(false);
    assert_eq!([hash(&mut heads).await, hash(&mut heads).await], mined);
    assert_eq!(asked.await.unwrap(), "0x2");
}

#[tokio::test]
async fn heads_go_wrong_by_plan_on_this_way_alone() {
    let stage = Stage::start().await;
    let direct = NodeProxy::start(stage.proxy.shared.upstream).await.unwrap();
    let (_client, mut heads) = stage.heads().await;
    let client = Client::connect(&direct.url(), &[]).await.unwrap();
    let mut others = client.subscribe(json!(["newHeads"])).await.unwrap();
    let faults = Faults::default().then(HEADS, 1, HeadFault::Twice).then(HEADS, 1, HeadFault::LeftOut);
    stage.proxy.set_head_faults(faults.then(HEADS, 1, HeadFault::OtherHistory).then(HEADS, 1, HeadFault::BehindNext));
    let mined: Vec<Value> = (0..5).map(|_| stage.mine()).collect();
    for head in &mined {
        assert_eq!(hash(&mut others).await, *head);
    }
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(hash(&mut heads).await);
    }
    assert!(!mined.contains(&told[2]), "a block that there is not");
    assert_eq!([&told[..2], &told[3..]].concat(), [&mined[0], &mined[0], &mined[4], &mined[3]].map(Value::clone));
}
