//! The node over a stream in one thread with virtual time, and over TCP.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;
use crate::client::Client as WebSocket;
use crate::faults::Faults;
use crate::http;
use crate::random::Delays;
use crate::sim_node::{Fault, SimNode};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn duplex(node: &SimNode) -> WebSocketStream<tokio::io::DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let node = node.clone();
    tokio::spawn(async move { node.serve_connection(theirs).await });
    client_async("ws://node/", ours).await.unwrap().0
}

async fn next(socket: &mut WebSocketStream<tokio::io::DuplexStream>) -> Option<Value> {
    match socket.next().await? {
        Ok(Message::Text(text)) => Some(serde_json::from_str(text.as_str()).unwrap()),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_duplex_stream_time_is_virtual_and_answers_keep_their_times() {
    let node = SimNode::new(Settings { delays: Delays::fixed(40), ..settings(Client::Geth) });
    node.with(|node, _| node.set_faults(Faults::default().then("eth_sendRawTransaction", 1, Fault::Late { milliseconds: 3_600_000 })));
    let mut socket = duplex(&node).await;
    let begin = Instant::now();
    let (raw, hash) = signed(&wallet(0), transfer(0));
    socket.send(Message::Text(frame(1, &raw).into())).await.unwrap();
    socket.send(Message::Text(r#"{"jsonrpc":"2.0","id":2,"method":"eth_chainId"}"#.into())).await.unwrap();
    let chain_id = next(&mut socket).await.unwrap();
    assert_eq!((&chain_id["id"], &chain_id["result"], begin.elapsed()), (&json!(2), &json!("0x7a69"), Duration::from_millis(40)));
    let late = next(&mut socket).await.unwrap();
    assert_eq!((&late["result"], begin.elapsed()), (&json!(hash), Duration::from_millis(3_600_040)));
}

#[tokio::test(start_paused = true)]
async fn the_block_timer_announces_heads_and_stops_when_it_is_dropped() {
    let node = SimNode::new(settings(Client::Geth));
    let mut socket = duplex(&node).await;
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#;
    socket.send(Message::Text(subscribe.into())).await.unwrap();
    next(&mut socket).await.unwrap();
    let begin = Instant::now();
    let timer = node.clone();
    let timer = tokio::spawn(async move { timer.run_blocks(Duration::from_secs(12)).await });
    for n in 1..=3 {
        let head = next(&mut socket).await.unwrap();
        assert_eq!(quantity(&head["params"]["result"]["number"]), n);
        assert_eq!(begin.elapsed(), Duration::from_secs(12 * n));
    }
    timer.abort();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(node.with(|node, _| node.chain().head().number()), 3);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_the_stream_and_a_node_that_is_down_takes_no_other() {
    let node = SimNode::new(settings(Client::Geth));
    let mut socket = duplex(&node).await;
    node.with(|node, now| node.go_down(now, Duration::from_secs(5)));
    assert_eq!(next(&mut socket).await, None);
    assert_eq!(node.with(|node, _| node.connections().len()), 0);
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    node.serve_connection(theirs).await;
    assert!(client_async("ws://node/", ours).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    duplex(&node).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_stays_open_and_answers_nothing() {
    let node = SimNode::new(settings(Client::Geth));
    let mut socket = duplex(&node).await;
    node.with(|node, now| node.hang(now));
    // Written while it hangs already or just before: nobody looks at it.
    socket.send(Message::Ping(Bytes::from_static(b"there?").0)).await.unwrap();
    socket.send(Message::Text(r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#.into())).await.unwrap();
    node.mine();
    let silence = tokio::time::timeout(Duration::from_secs(3_600), socket.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(node.with(|node, _| node.connections().len()), 0, "the node has forgotten it");
    assert!(next(&mut duplex(&node).await).now_or_never().is_none(), "another one is served");
}

#[tokio::test]
async fn over_tcp_it_speaks_websocket_and_http_and_another_process_can_steer_it() {
    let node = SimNode::new(settings(Client::Geth));
    let listener = node.listen(ANYWHERE).await.unwrap();
    let client = WebSocket::connect(&listener.url(), &[]).await.unwrap();
    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    let (raw, hash) = signed(&wallet(0), transfer(0));
    assert_eq!(client.request("eth_sendRawTransaction", json!([raw])).await.unwrap(), json!(hash));
    let mined = client.request("sim_mine", json!([])).await.unwrap();
    assert_eq!(heads.next().await.unwrap()["hash"], mined[0]);

    let http_url = format!("http://{}", listener.address());
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let post = async |request: Value| serde_json::from_slice::<Value>(&http::post_json(&http_url, &request).await.unwrap().1).unwrap();
    let receipt = post(request("eth_getTransactionReceipt", json!([hash]))).await;
    assert_eq!(receipt["result"]["blockHash"], mined[0]);
    let batch = post(json!([request("eth_blockNumber", json!([])), request("sim_mined", json!([]))])).await;
    assert_eq!((&batch[0]["result"], &batch[1]["result"][0]["hash"]), (&json!("0x1"), &json!(hash)));

    let faults =
        json!({ "script": [{ "of": "eth_chainId", "count": 1, "fault": { "kind": "refuse", "code": -32005, "message": "slow down" } }] });
    client.request("sim_setFaults", json!([faults])).await.unwrap();
    assert_eq!(client.request("eth_chainId", json!([])).await.unwrap_err().code(), Some(-32005));
    let reorg = json!([{ "depth": 1, "blocks": 1, "transactions": "pooled" }]);
    let head = client.request("sim_reorg", reorg).await.unwrap();
    assert_eq!(heads.next().await.unwrap()["hash"], head);
    let arrivals = client.request("sim_arrivals", json!([])).await.unwrap();
    assert_eq!((&arrivals[0]["told"]["hash"], arrivals.as_array().unwrap().len()), (&json!(hash), 1));
    assert_eq!(client.request("sim_pool", json!([])).await.unwrap()[0]["hash"], json!(hash));

    drop(listener);
    assert!(heads.next().await.is_none(), "its connections end with the listener");
}

/// What a client gets in a while of sends, reads, late and lost answers, and blocks; each message with its time.
async fn a_while(seed: u64) -> Vec<(Duration, Option<Value>)> {
    let node = SimNode::new(Settings { seed, delays: Delays { p50: 10, p99: 60, max: 1_000 }, ..settings(Client::Geth) });
    let faults = Faults::default()
        .sometimes("eth_sendRawTransaction", 1_000, Fault::DropAnswer)
        .sometimes("eth_sendRawTransaction", 1_000, Fault::Overtaken)
        .then("eth_chainId", 1, Fault::CutAfter);
    node.with(|node, _| node.set_faults(faults));
    let timer = node.clone();
    let timer = tokio::spawn(async move { timer.run_blocks(Duration::from_secs(2)).await });
    let (begin, mut socket, mut got) = (Instant::now(), duplex(&node).await, Vec::new());
    let subscribe = r#"{"jsonrpc":"2.0","id":100,"method":"eth_subscribe","params":["newHeads"]}"#;
    socket.send(Message::Text(subscribe.into())).await.unwrap();
    for nonce in 0..20 {
        socket.send(Message::Text(frame(nonce, &signed(&wallet(0), transfer(nonce)).0).into())).await.unwrap();
        let pause = tokio::time::sleep(Duration::from_millis(500));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                message = next(&mut socket) => got.push((begin.elapsed(), message)),
                () = &mut pause => break,
            }
        }
    }
    socket.send(Message::Text(r#"{"jsonrpc":"2.0","id":101,"method":"eth_chainId"}"#.into())).await.unwrap();
    while got.last().is_none_or(|(_, message)| message.is_some()) {
        let message = next(&mut socket).await;
        got.push((begin.elapsed(), message));
    }
    timer.abort();
    got
}

#[tokio::test(start_paused = true)]
async fn a_while_of_one_seed_is_the_same_again() {
    let first = a_while(1).await;
    assert!(first.len() > 20, "{first:?}");
    assert_eq!(first, a_while(1).await);
    assert_ne!(first, a_while(2).await);
}
