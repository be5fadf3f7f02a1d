//! I7a: every event once per cursor, in order of commit, whatever is committed, cut off and started again in between.

use std::path::Path;
use std::time::Duration;

use jsonrpsee::RpcModule;
use jsonrpsee::core::server::Subscription;
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::journal::history::Bounds;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Engine, Journal};
use crate::subscriptions::lifecycle::filter::Filter;
use crate::subscriptions::lifecycle::{After, Lifecycle, OpenError, Sizes};
use crate::telemetry::metrics::Metrics;

/// No test asserts a duration; this only ends one that would hang.
const HANG: Duration = Duration::from_secs(60);

/// A process of Sluice, as far as streams go.
struct Running {
    journal: Arc<SqliteJournal>,
    lifecycle: Arc<Lifecycle>,
    module: RpcModule<(Arc<Lifecycle>, Filter)>,
}

impl Running {
    fn start(path: &Path, filter: Filter, page: usize, kept: usize) -> Self {
        let journal = SqliteJournal::open(path, Arc::new(Metrics::new().unwrap())).unwrap();
        let bounds = |items| Bounds { items, bytes: 1 << 20 };
        let lifecycle = Lifecycle::with_sizes(journal.clone(), Sizes { page: bounds(page), kept: bounds(kept) });
        let mut module = RpcModule::new((Arc::clone(&lifecycle), filter));
        module
            .register_subscription("subscribe", "event", "unsubscribe", |params, pending, context, _| async move {
                let (lifecycle, filter) = &*context;
                let after = match params.one::<String>().unwrap().as_str() {
                    "now" => After::Now,
                    "start" => After::Start,
                    cursor => After::Cursor(cursor.to_owned()),
                };
                let stream = lifecycle.open(scope(), filter.clone(), after, None).await.unwrap();
                let Ok(sink) = pending.accept().await else { return };
                lifecycle.serve(stream, sink, None).await;
            })
            .unwrap();
        Self { journal, lifecycle, module }
    }

    async fn subscribe(&self, after: &str) -> Subscription {
        self.module.subscribe("subscribe", [after], 4).await.unwrap()
    }
}

async fn next(stream: &mut Subscription) -> Value {
    let next = tokio::time::timeout(HANG, stream.next::<Value>()).await.expect("hangs");
    next.expect("the stream goes on").unwrap().0
}

#[derive(Debug, Clone)]
enum Step {
    /// So many transactions, of the account, of this service or another.
    Commit {
        count: u8,
        account: u8,
        own: bool,
    },
    /// So many events are read, as far as there are as many.
    Read(usize),
    CutOff,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8, 1..4_u8, proptest::bool::weighted(0.7)).prop_map(|(count, account, own)| Step::Commit { count, account, own }),
        6 => (1..12_usize).prop_map(Step::Read),
        3 => Just(Step::CutOff),
        1 => Just(Step::Restart),
    ]
}

/// What the filter lets through of a commit: two events each.
fn told(filter: &Filter, number: u64, of: Account, own: bool) -> Vec<(B256, &'static str)> {
    let hash = B256::from(U256::from(number + 1));
    let wanted = own && (filter.addresses().is_empty() || filter.addresses().contains(&of.address));
    if wanted { vec![(hash, "committed"), (hash, "broadcast")] } else { Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i7a_every_event_once_per_cursor_in_order_across_cuts_and_restarts(
        steps in proptest::collection::vec(step(), 1..40),
        page in 1..6_usize,
        kept in 1..12_usize,
        filtered in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("sluice.db");
            let filter = if filtered { Filter::new(vec![account(1).address, account(2).address], vec![]) } else { Filter::default() };
            let start = || Running::start(&path, filter.clone(), page, kept);
            let mut running = start();
            let mut stream = running.subscribe("now").await;
            let mut cursor = running.lifecycle.cursor(scope(), &filter, None).await.unwrap();
            let (mut expected, mut received, mut number) = (Vec::new(), Vec::new(), 0);
            for step in steps.into_iter().chain([Step::Read(usize::MAX)]) {
                match step {
                    Step::Commit { count, account: byte, own } => {
                        for _ in 0..count {
                            expected.extend(told(&filter, number, account(byte), own));
                            let service = if own { "payments" } else { "other" };
                            running.journal.commit(life(number, account(byte), service)).await.unwrap();
                            number += 1;
                        }
                    }
                    Step::Read(count) => {
                        for _ in 0..count.min(expected.len() - received.len()) {
                            let event = next(&mut stream).await;
                            cursor = event["cursor"].as_str().unwrap().to_owned();
                            received.push((event["hash"].as_str().unwrap().parse::<B256>().unwrap(), event["state"].as_str().unwrap().to_owned()));
                        }
                    }
                    Step::CutOff => {
                        drop(stream);
                        stream = running.subscribe(&cursor).await;
                    }
                    Step::Restart => {
                        drop(stream);
                        running.journal.close().await;
                        drop(running);
                        running = start();
                        stream = running.subscribe(&cursor).await;
                    }
                }
            }
            let received: Vec<(B256, &str)> = received.iter().map(|(hash, state)| (*hash, state.as_str())).collect();
            prop_assert_eq!(received, expected);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn without_a_cursor_a_stream_begins_now_or_at_the_start() {
    let directory = TempDir::new().unwrap();
    let running = Running::start(&directory.path().join("sluice.db"), Filter::default(), 256, 1024);
    running.journal.commit(life(0, account(1), "payments")).await.unwrap();
    let (mut now, mut start) = (running.subscribe("now").await, running.subscribe("start").await);
    running.journal.commit(life(1, account(1), "payments")).await.unwrap();
    let nonces = |events: &[Value]| events.iter().map(|event| event["slot"]["nonce"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(nonces(&[next(&mut now).await, next(&mut now).await]), ["0x1", "0x1"]);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(next(&mut start).await);
    }
    assert_eq!(nonces(&all), ["0x0", "0x0", "0x1", "0x1"]);
}

#[tokio::test]
async fn the_ids_of_a_filter_must_be_on_record() {
    let directory = TempDir::new().unwrap();
    let running = Running::start(&directory.path().join("sluice.db"), Filter::default(), 256, 1024);
    let records = life(0, account(1), "payments");
    let Record::Attempt { attempt, .. } = &records[0] else { panic!("the first record is the attempt") };
    let (id, unknown) = (attempt.transaction, TransactionId::new());
    running.journal.commit(records).await.unwrap();
    let open = |ids: Vec<TransactionId>| running.lifecycle.open(scope(), Filter::new(vec![], ids), After::Start, None);
    assert!(open(vec![id]).await.is_ok());
    assert!(matches!(open(vec![id, unknown]).await, Err(OpenError::Unknown(named)) if named == unknown));
}

#[tokio::test]
async fn a_cursor_of_another_stream_or_of_a_chain_that_was_forgotten_is_told() {
    let directory = TempDir::new().unwrap();
    let running = Running::start(&directory.path().join("sluice.db"), Filter::default(), 256, 1024);
    let empty = running.lifecycle.cursor(scope(), &Filter::default(), None).await.unwrap();
    running.journal.commit(life(0, account(1), "payments")).await.unwrap();
    running.journal.commit(life(1, account(2), "other")).await.unwrap();
    let cursor = running.lifecycle.cursor(scope(), &Filter::default(), None).await.unwrap();
    let open = |scope: Scope, filter: Filter, cursor: &str| running.lifecycle.open(scope, filter, After::Cursor(cursor.to_owned()), None);
    assert!(open(scope(), Filter::default(), &cursor).await.is_ok());
    let narrow = Filter::new(vec![account(1).address], vec![]);
    assert!(matches!(open(scope(), narrow.clone(), &cursor).await, Err(OpenError::Foreign)));
    assert!(matches!(open(scope(), narrow, &empty).await, Err(OpenError::Foreign)));
    let other = Scope { service: Arc::from("other"), ..scope() };
    assert!(matches!(open(other, Filter::default(), &cursor).await, Err(OpenError::Gone)), "it is no event of that service");
    assert!(matches!(open(scope(), Filter::default(), "AAAA").await, Err(OpenError::Garbled)));
    running.journal.forget_chain(CHAIN).await.unwrap();
    assert!(matches!(open(scope(), Filter::default(), &cursor).await, Err(OpenError::Gone)));
    assert!(open(scope(), Filter::default(), &empty).await.is_ok(), "before the first event is before the first event of the new life");
    // The same transaction again, in the new life: same account, same number, another time.
    running.journal.commit(life(0, account(1), "payments")).await.unwrap();
    let again = running.lifecycle.cursor(scope(), &Filter::default(), None).await.unwrap();
    assert!(again == cursor || matches!(open(scope(), Filter::default(), &cursor).await, Err(OpenError::Foreign)));
}

/// Nothing is read while nobody follows, and the reader of a scope ends with its last follower.
#[tokio::test]
async fn a_feed_lives_as_long_as_somebody_follows() {
    let directory = TempDir::new().unwrap();
    let running = Running::start(&directory.path().join("sluice.db"), Filter::default(), 256, 1024);
    let feeds = || format!("{:?}", running.lifecycle.feeds);
    assert!(feeds().contains("open: 0"), "{}", feeds());
    let (mut one, mut two) = (running.subscribe("now").await, running.subscribe("now").await);
    running.journal.commit(life(0, account(1), "payments")).await.unwrap();
    let (first, second) = (next(&mut one).await, next(&mut two).await);
    assert_eq!(first, second);
    assert!(feeds().contains("open: 1"), "{}", feeds());
    drop((one, two));
    tokio::time::timeout(HANG, async {
        while !feeds().contains("open: 0") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the feed ends");
}

/// I8: a client that does not read holds one page and delays nobody.
#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody() {
    let directory = TempDir::new().unwrap();
    let running = Running::start(&directory.path().join("sluice.db"), Filter::default(), 2, 4);
    let (mut stalled, mut reading) = (running.subscribe("now").await, running.subscribe("now").await);
    for number in 0..50 {
        running.journal.commit(life(number, account(1), "payments")).await.unwrap();
        for _ in 0..2 {
            assert_eq!(next(&mut reading).await["slot"]["nonce"], format!("{number:#x}"));
        }
    }
    for number in 0..50 {
        for _ in 0..2 {
            assert_eq!(next(&mut stalled).await["slot"]["nonce"], format!("{number:#x}"), "and misses nothing");
        }
    }
}
