//! Relays between a scripted node and clients of a small module.

mod ids;
mod places;
mod races;

use std::sync::Mutex;
use std::time::Duration;

use jsonrpsee::RpcModule;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::node::testing::backend::{Asked, Backend, hash};
use crate::node::testing::{Running, ready, soon, until};
use crate::rpc::errors::RpcError;
use crate::subscriptions::connection::{ConnectionHandle, FILTERS};

/// Messages that may wait for a client of these tests.
const QUEUE: usize = 4096;
const LONG: Duration = Duration::from_secs(3600);

/// A hub over one scripted node, and a way to subscribe at it.
struct World {
    node: Backend,
    _pool: Running,
    hub: Hub,
    module: RpcModule<Shared>,
    connection: ConnectionHandle,
    /// By what the next client comes.
    next: Arc<Mutex<ConnectionHandle>>,
    /// One permit for each subscription that got a seat.
    seated: Arc<Semaphore>,
    /// One permit for each that may get its id.
    go: Arc<Semaphore>,
}

struct Shared {
    hub: Hub,
    seated: Arc<Semaphore>,
    go: Arc<Semaphore>,
    next: Arc<Mutex<ConnectionHandle>>,
}

/// Places of a service that are not taken.
fn free(hub: &Hub, service: &str) -> usize {
    hub.0.free.get(service).map_or(hub.0.places, |free| free.available_permits())
}

/// A client's subscription.
struct Client {
    id: Value,
    notifications: mpsc::Receiver<Box<RawValue>>,
    connection: ConnectionHandle,
}

impl World {
    async fn start() -> Self {
        Self::with(8, LONG).await
    }

    async fn with(places: usize, linger: Duration) -> Self {
        Self::with_times(places, Times { deadline: Duration::from_secs(20), linger }).await
    }

    async fn with_times(places: usize, times: Times) -> Self {
        let node = Backend::start().await;
        let pool = ready(&[&node]).await;
        Self::over(node, pool, places, times)
    }

    fn over(node: Backend, pool: Running, places: usize, times: Times) -> Self {
        let hub = Hub::with(pool.pool.clone(), times, StepMeter::new(&pool.metrics, "dev"), pool.stop.child_token(), places);
        let connection = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
        let go = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let seated = Arc::new(Semaphore::new(0));
        let next = Arc::new(Mutex::new(connection.clone()));
        let shared = Shared { hub: hub.clone(), seated: seated.clone(), go: go.clone(), next: next.clone() };
        let mut module = RpcModule::new(shared);
        module
            .register_subscription("eth_subscribe", "eth_subscription", "eth_unsubscribe", |params, pending, shared, _| async move {
                let params = params.as_str().unwrap();
                let subject = match SHARED.into_iter().find(|shared| *shared == params) {
                    Some(shared) => Subject::shared(shared),
                    None if params == CHAIN => Subject::logs(&Arc::from("payments"), params, OfLogs::default()),
                    None if params == HEADS => Subject::heads(),
                    None => Subject::filter(&Arc::from(if params.contains("0xother") { "other" } else { "payments" }), params),
                };
                let connection = shared.next.lock().unwrap().clone();
                let seat = match shared.hub.join(subject, &connection).await {
                    Ok(seat) => seat,
                    Err(error) => {
                        pending.reject(RpcError::invalid_params(format!("{error:?}"))).await;
                        return Ok(());
                    }
                };
                shared.seated.add_permits(1);
                shared.go.acquire().await.unwrap().forget();
                let Ok(sink) = pending.accept().await else { return Ok(()) };
                seat.serve(sink, Some(connection)).await.map_err(jsonrpsee::core::SubscriptionError::from)
            })
            .unwrap();
        Self { node, _pool: pool, hub, module, connection, next, seated, go }
    }

    async fn call(&self, method: &str, params: &str, queue: usize) -> (Value, mpsc::Receiver<Box<RawValue>>) {
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let (answer, notifications) = soon(self.module.raw_json_request(&request, queue)).await.unwrap();
        (serde_json::from_str(answer.get()).unwrap(), notifications)
    }

    /// The answer, an error's message if it is one.
    async fn subscribe_with(&self, params: &str, queue: usize) -> Result<Client, String> {
        let (mut answer, notifications) = self.call("eth_subscribe", params, queue).await;
        match answer["error"]["message"].as_str() {
            Some(message) => Err(message.to_owned()),
            None => Ok(Client { id: answer["result"].take(), notifications, connection: self.next.lock().unwrap().clone() }),
        }
    }

    async fn subscribe(&self, params: &str) -> Result<Client, String> {
        self.subscribe_with(params, QUEUE).await
    }

    /// Subscribes; the node is asked and answers this id.
    async fn opened(&mut self, params: &str, id: &str) -> (Client, Asked) {
        let World { node, .. } = self;
        let asked = async {
            let asked = node.asked().await;
            assert_eq!((asked.method.as_str(), asked.params.to_string().as_str()), ("eth_subscribe", params));
            asked.answer(json!(id));
            asked
        };
        // Both borrow from the world: the node by itself, the rest as a whole.
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":{params}}}"#);
        let (answered, asked) = tokio::join!(soon(self.module.raw_json_request(&request, QUEUE)), asked);
        let (answer, notifications) = answered.unwrap();
        let mut answer: Value = serde_json::from_str(answer.get()).unwrap();
        (Client { id: answer["result"].take(), notifications, connection: self.next.lock().unwrap().clone() }, asked)
    }

    async fn unsubscribe(&self, client: &Client) -> Value {
        self.call("eth_unsubscribe", &json!([client.id]).to_string(), 1).await.0["result"].take()
    }
}

impl Client {
    async fn next(&mut self) -> String {
        let message = soon(self.notifications.recv()).await.unwrap();
        // As the server does that writes it.
        self.connection.pay(message.get().len());
        message.get().to_owned()
    }

    /// `params` of the next notification without the id of the subscription.
    async fn params(&mut self) -> Value {
        let mut notification: Value = serde_json::from_str(&self.next().await).unwrap();
        let params = notification["params"].as_object_mut().unwrap();
        assert_eq!(params.remove("subscription").unwrap(), self.id);
        params.clone().into()
    }

    async fn number(&mut self) -> u64 {
        self.params().await["result"].as_u64().unwrap()
    }
}

/// Every log of the chain as it is followed here.
const CHAIN: &str = r#"["chain"]"#;
const LOGS: &str = r#"["logs",{}]"#;
const PENDING: &str = r#"["newPendingTransactions"]"#;
/// The chain's own heads; those of `SHARED` are a node's.
const HEADS: &str = r#"["heads"]"#;
const SHARED: [&str; 4] = [r#"["newHeads"]"#, r#"["syncing"]"#, PENDING, r#"["newPendingTransactions",true]"#];

/// The filter of one address, and that of the other service where the name begins with `other`.
fn filter(address: &str) -> String {
    format!(r#"["logs",{{"address":"0x{address}"}}]"#)
}

#[tokio::test]
async fn equal_subscriptions_share_one_upstream_subscription_byte_for_byte() {
    let mut world = World::start().await;
    let (first, asked) = world.opened(LOGS, "0x5").await;
    let mut clients = vec![first];
    for _ in 0..50 {
        clients.push(world.subscribe(LOGS).await.unwrap());
    }
    let odd = r#"{ "b" : 1.50e+2 ,"a":	18446744073709551616000,  "\u0061": [ 0.10 , -0 , 1E400 ] }"#;
    asked.peer.text(format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"0x5","result":{odd}}}}}"#));
    for client in &mut clients {
        let id = &client.id;
        let expected = format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":{id},"result":{odd}}}}}"#);
        assert_eq!(client.next().await, expected);
    }
    assert!(world.node.nothing_asked());
    // Another filter is another subscription.
    world.opened(PENDING, "0x6").await;
    assert_eq!(world.hub.0.relays.len(), 2);
}

#[tokio::test]
async fn who_waits_while_it_is_opened_gets_the_nodes_answer() {
    let mut world = World::start().await;
    for refused in [true, false] {
        let World { node, module, .. } = &mut world;
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":{LOGS}}}"#);
        let clients = futures_util::future::join_all((0..20).map(|_| module.raw_json_request(&request, QUEUE)));
        let script = async {
            let asked = node.asked().await;
            if refused {
                asked.error(-32601, "no logs here");
            } else {
                asked.answer(json!("0x5"));
            }
        };
        let (answers, ()) = soon(async { tokio::join!(clients, script) }).await;
        for answer in answers {
            let (answer, _) = answer.unwrap();
            assert_eq!(answer.get().contains("no logs here"), refused, "{answer}");
        }
        assert!(world.node.nothing_asked(), "the node is asked once");
    }
}

#[tokio::test]
async fn what_arrives_before_the_id_is_answered_comes_right_after_it() {
    let mut world = World::start().await;
    let (mut other, asked) = world.opened(LOGS, "0x5").await;
    world.go.forget_permits(Semaphore::MAX_PERMITS);
    world.seated.forget_permits(Semaphore::MAX_PERMITS);
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":{LOGS}}}"#);
    let late = soon(world.module.raw_json_request(&request, QUEUE));
    let script = async {
        // It has a seat and no id yet.
        soon(world.seated.acquire()).await.unwrap().forget();
        for n in 0..100 {
            asked.peer.notify("0x5", json!(n));
            assert_eq!(other.number().await, n);
        }
        world.go.add_permits(1);
    };
    let (answered, ()) = tokio::join!(late, script);
    let (answer, notifications) = answered.unwrap();
    let mut answer: Value = serde_json::from_str(answer.get()).unwrap();
    let mut late = Client { id: answer["result"].take(), notifications, connection: world.connection.clone() };
    asked.peer.notify("0x5", json!(100));
    for n in 0..=100 {
        assert_eq!(late.number().await, n);
    }
}

#[tokio::test]
async fn the_last_to_leave_ends_the_upstream_subscription_and_its_entry() {
    let mut world = World::with(8, Duration::from_millis(1)).await;
    let (one, _) = world.opened(LOGS, "0x5").await;
    let two = world.subscribe(LOGS).await.unwrap();
    assert_eq!(world.unsubscribe(&one).await, true);
    assert_eq!(world.unsubscribe(&one).await, false, "once");
    assert!(world.node.nothing_asked());
    // A connection that closes is as good.
    drop(two);
    let asked = world.node.asked().await;
    assert_eq!((asked.method.as_str(), asked.params), ("eth_unsubscribe", json!(["0x5"])));
    assert!(world.hub.0.relays.is_empty());
    assert_eq!(free(&world.hub, "payments"), 8);
    let (mut again, asked) = world.opened(LOGS, "0x6").await;
    asked.peer.notify("0x6", json!(1));
    assert_eq!(again.number().await, 1);
}

#[tokio::test]
async fn who_comes_back_in_time_finds_it() {
    let mut world = World::start().await;
    let (one, asked) = world.opened(LOGS, "0x5").await;
    assert_eq!(world.unsubscribe(&one).await, true);
    let mut again = world.subscribe(LOGS).await.unwrap();
    asked.peer.notify("0x5", json!(1));
    assert_eq!(again.number().await, 1);
    assert!(world.node.nothing_asked());
}

#[tokio::test]
async fn a_gap_is_told_to_everybody_and_who_comes_meanwhile_is_answered_after_it() {
    let mut world = World::start().await;
    let (mut one, asked) = world.opened(LOGS, "0x5").await;
    asked.peer.notify("0x5", json!(1));
    assert_eq!(one.number().await, 1);
    asked.peer.disconnect();
    let again = world.node.asked().await;
    assert_eq!(again.params, json!(["logs", {}]), "it is made again");
    // Not live yet: nobody gets an id. By a connection of its own: those who are told end with theirs.
    *world.next.lock().unwrap() = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
    let late = world.subscribe(LOGS);
    let script = async {
        tokio::task::yield_now().await;
        again.answer(json!("0x9"));
        assert_eq!(one.params().await, json!({ "error": super::super::relay::GAP }));
    };
    let (late, ()) = tokio::join!(late, script);
    let mut late = late.unwrap();
    again.peer.notify("0x9", json!(2));
    assert_eq!(late.number().await, 2);
    // Its last words are told, then its connection ends.
    soon(world.connection.ended()).await;
}

/// What is told together is what is there: looking for more asks no node, or every block that comes at once would be asked for twice.
#[tokio::test]
async fn the_logs_of_blocks_that_come_at_once_are_asked_for_once() {
    let mut world = World::start().await;
    let mut client = world.subscribe(CHAIN).await.unwrap();
    let of = |byte: u8| json!([{ "address": format!("0x{}", "01".repeat(20)), "topics": [], "data": "0x", "blockHash": hash(byte), "logIndex": "0x0" }]);
    world.node.announce((11, 11));
    world.node.announce((12, 12));
    for byte in [11, 12] {
        let asked = world.node.asked().await;
        assert_eq!((asked.method.as_str(), &asked.params), ("eth_getLogs", &json!([{ "blockHash": hash(byte) }])));
        // Both are there by now.
        until(&world._pool, |pool| pool.endpoints()[0].head == Some(12)).await;
        asked.answer(of(byte));
        assert_eq!(client.params().await["result"]["blockHash"], hash(byte));
    }
    assert!(world.node.nothing_asked());
}

/// I7b: nobody waits for events that cannot come. The node is back later than anybody waits for.
#[tokio::test]
async fn while_the_node_stays_away_everybody_is_told() {
    let deadline = Duration::from_secs(3);
    let mut world = World::with_times(8, Times { deadline, linger: LONG }).await;
    let (mut one, asked) = world.opened(LOGS, "0x5").await;
    let mut two = world.subscribe(LOGS).await.unwrap();
    asked.peer.notify("0x5", json!(1));
    assert_eq!([one.number().await, two.number().await], [1, 1]);
    world.node.down().await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.params().await, json!({ "error": super::super::relay::GAP }));
    }
    soon(world.connection.ended()).await;
    assert!(world.subscribe(LOGS).await.is_err(), "who comes meanwhile is told that no node can be asked");
    world.node.up().await;
    let again = world.node.asked().await;
    assert_eq!(again.params, json!(["logs", {}]), "it is made again");
    again.answer(json!("0x9"));
    *world.next.lock().unwrap() = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
    let mut late = world.subscribe(LOGS).await.unwrap();
    again.peer.notify("0x9", json!(2));
    assert_eq!(late.number().await, 2);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended_alone() {
    let mut world = World::start().await;
    let (mut reader, asked) = world.opened(LOGS, "0x5").await;
    let another = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
    *world.next.lock().unwrap() = another.clone();
    let mut slow = world.subscribe_with(LOGS, 2).await.unwrap();
    let large = |n: u64| json!([n, "x".repeat(200_000)]);
    for n in 0..10 {
        asked.peer.notify("0x5", large(n));
        assert_eq!(reader.params().await["result"][0], n);
    }
    assert_eq!([&slow.params().await["result"][0], &slow.params().await["result"][0]], [0, 1]);
    let last_words = json!({ "error": "the client does not keep up" });
    let mut told = 2;
    loop {
        match slow.params().await {
            params if params == last_words => break,
            // What was in its sender's hand comes yet, in order.
            params => assert_eq!(params["result"][0], told),
        }
        told += 1;
    }
    assert!(told < 8, "a megabyte waits for it at most");
    asked.peer.notify("0x5", json!(10));
    assert_eq!(reader.number().await, 10);
    soon(another.ended()).await;
    assert!(!world.connection.token().is_cancelled());
}

#[tokio::test]
async fn a_subscription_that_cannot_be_made_again_ends_for_all_and_leaves_nothing() {
    let mut world = World::start().await;
    let (mut one, asked) = world.opened(LOGS, "0x5").await;
    asked.peer.disconnect();
    for _ in 0..8 {
        world.node.asked().await.error(-32000, "not now");
    }
    assert_eq!(one.params().await, json!({ "error": super::super::relay::GAP }));
    let hub = world.hub.clone();
    soon(async {
        while !hub.0.relays.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
