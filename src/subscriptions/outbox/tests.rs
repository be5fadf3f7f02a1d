use jsonrpsee::RpcModule;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::node::testing::soon;

/// Messages that jsonrpsee's own queue has room for.
const QUEUE: usize = 4;
/// What a connection lets wait in this queue, in bytes.
const ROOM: usize = 256 << 10;

/// A client that reads what it is told when the test wants it to.
struct Client {
    connection: ConnectionHandle,
    ways: mpsc::UnboundedReceiver<Way>,
    module: RpcModule<()>,
}

impl Client {
    fn new(backlog: usize) -> Self {
        let connection = ConnectionHandle::new(CancellationToken::new(), backlog);
        let (give, ways) = mpsc::unbounded_channel();
        let mut module = RpcModule::new(());
        let of = connection.clone();
        let subscribed = move |_, pending: jsonrpsee::PendingSubscriptionSink, _, _| {
            let (give, of) = (give.clone(), of.clone());
            async move {
                let sink = pending.accept().await?;
                give.send(Way::new(sink.clone(), Some(of)))?;
                sink.closed().await;
                Ok(())
            }
        };
        module
            .register_subscription::<Result<(), jsonrpsee::core::SubscriptionError>, _, _>("sub", "notification", "unsub", subscribed)
            .unwrap();
        Self { connection, ways, module }
    }

    async fn subscribe(&mut self) -> (Way, Messages) {
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"sub","params":[]}"#;
        let (answer, messages) = self.module.raw_json_request(request, QUEUE).await.unwrap();
        let id = serde_json::from_str::<Value>(answer.get()).unwrap()["result"].take();
        (soon(self.ways.recv()).await.unwrap(), Messages { id, messages, connection: self.connection.clone() })
    }
}

struct Messages {
    id: Value,
    messages: mpsc::Receiver<Box<RawValue>>,
    connection: ConnectionHandle,
}

impl Messages {
    /// The next result, and its message is written.
    async fn next(&mut self) -> Value {
        let message = soon(self.messages.recv()).await.unwrap();
        self.connection.pay(message.get().len());
        serde_json::from_str::<Value>(message.get()).unwrap()["params"]["result"].take()
    }
}

fn is_empty(connection: &ConnectionHandle) -> bool {
    !connection.outbox_used().load(Ordering::Acquire)
}

fn result(value: &Value) -> Arc<RawValue> {
    Arc::from(serde_json::value::to_raw_value(value).unwrap())
}

fn text(bytes: usize) -> Value {
    json!("x".repeat(bytes))
}

#[tokio::test]
async fn what_has_no_room_waits_and_nothing_overtakes_it() {
    let mut client = Client::new(1 << 20);
    let (mut way, mut messages) = client.subscribe().await;
    for number in 0..100 {
        assert_eq!(way.tell(&result(&json!(number))), Told::Yes);
    }
    for number in 0..100 {
        assert_eq!(messages.next().await, number);
    }
    for number in 100..110 {
        assert_eq!(way.tell(&result(&json!(number))), Told::Yes);
        assert_eq!(messages.next().await, number, "what waited is gone: it goes by itself again");
    }
    assert_eq!(client.connection.owed(), 0, "what was counted in is what was written");
}

#[tokio::test]
async fn few_large_ones_wait_as_many_small_ones_do() {
    let mut client = Client::new(1 << 20);
    let (mut way, mut messages) = client.subscribe().await;
    let large = result(&text(ROOM));
    assert_eq!((way.tell(&large), way.tell(&large)), (Told::Yes, Told::Yes));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(messages.messages.len(), 1, "jsonrpsee's queue counts messages, and has room for more");
    assert_eq!(messages.next().await, text(ROOM));
    assert_eq!(messages.next().await, text(ROOM));
}

/// I8: a client that does not read costs what it may, whatever the size of what it is told.
#[tokio::test]
async fn what_waits_is_bounded_in_bytes() {
    for bytes in [0, 1000, 100_000] {
        let limit = 1 << 20;
        let mut client = Client::new(limit);
        let (mut way, mut messages) = client.subscribe().await;
        let told = (0..).take_while(|_| way.tell(&result(&text(bytes))) == Told::Yes).count();
        assert_eq!(way.tell(&result(&text(bytes))), Told::TooMuch);
        let held = told * (bytes + 2 + way.envelope);
        assert!(held <= ROOM + bytes + 200 + limit, "{held} of {bytes}");
        assert!(bytes == 0 || held > limit / 2, "{held} of {bytes}: it is used");
        for _ in 0..told {
            assert_eq!(messages.next().await, text(bytes), "what it was told before reaches it");
        }
        assert_eq!(way.tell(&result(&text(bytes))), Told::Yes, "a way that has room again");
    }
    let mut client = Client::new(1000);
    let (mut way, mut messages) = client.subscribe().await;
    for _ in 0..=QUEUE {
        assert_eq!(way.tell(&result(&text(100_000))), Told::Yes, "one may wait, however large it is");
        let _ = messages.next().await;
    }
}

#[tokio::test]
async fn a_subscription_that_ends_leaves_room_to_the_others() {
    let mut client = Client::new(1 << 20);
    let (mut ended, mut unread) = client.subscribe().await;
    let (mut other, mut messages) = client.subscribe().await;
    while is_empty(&client.connection) {
        assert_eq!(ended.tell(&result(&text(10_000))), Told::Yes);
    }
    assert_eq!(other.tell(&result(&json!(1))), Told::Yes, "it waits behind them: the connection has one queue");
    let request = json!({ "jsonrpc": "2.0", "id": 2, "method": "unsub", "params": [unread.id] }).to_string();
    drop(client.module.raw_json_request(&request, 1).await.unwrap());
    unread.messages.close();
    while let Some(message) = unread.messages.recv().await {
        client.connection.pay(message.get().len());
    }
    assert_eq!(messages.next().await, 1);
    assert_eq!(ended.tell(&result(&json!(1))), Told::Gone);
    while !is_empty(&client.connection) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_waits_for_a_client_that_is_ended() {
    let mut client = Client::new(1 << 20);
    let (mut way, messages) = client.subscribe().await;
    let tell = result(&text(10_000));
    while way.tell(&tell) == Told::Yes {}
    client.connection.outbox().close(client.connection.outbox_used());
    assert_eq!(way.tell(&tell), Told::TooMuch, "what was thrown away leaves no hole that others are told behind");
    assert!(Arc::strong_count(&tell) <= 3, "the one in the sender's hand is all that is left");
    drop(messages);
    while Arc::strong_count(&tell) > 1 {
        tokio::task::yield_now().await;
    }
}
