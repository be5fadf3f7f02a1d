//! I8: what one connection asks of the journal, or does not read, costs the others nothing and a bounded amount of memory.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt;
use jsonrpsee::RpcModule;
use jsonrpsee::core::server::Subscription;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::journal::history::{AccountRecord, Answer, Bounds, History, Life, ListPage, ListQuery, Name};
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Journal, JournalError};
use crate::subscriptions::connection::{ConnectionHandle, QUESTIONS};
use crate::subscriptions::lifecycle::filter::Filter;
use crate::subscriptions::lifecycle::{After, Lifecycle, ReadError, Sizes};
use crate::telemetry::metrics::Metrics;

/// No test asserts a duration; this only ends one that would hang.
const HANG: Duration = Duration::from_secs(60);
const TRANSACTIONS: u64 = 20;

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANG, future).await.expect("hangs")
}

/// Lets everything run that can, without a clock.
async fn settled() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

fn connection() -> ConnectionHandle {
    ConnectionHandle::new(CancellationToken::new(), 1 << 20)
}

/// A journal that counts the pages that are read of it.
#[derive(Debug)]
struct Counted {
    journal: Arc<SqliteJournal>,
    pages: AtomicUsize,
}

impl History for Counted {
    fn commits(&self) -> watch::Receiver<u64> {
        self.journal.commits()
    }

    fn events(&self, scope: Scope, position: i64, bounds: Bounds) -> Answer<Vec<StoredEvent>> {
        // The feed reads behind all events that there are.
        if position == 0 {
            self.pages.fetch_add(1, SeqCst);
        }
        self.journal.events(scope, position, bounds)
    }

    fn event(&self, scope: Scope, address: Address, sequence: u64) -> Answer<Option<StoredEvent>> {
        self.journal.event(scope, address, sequence)
    }

    fn last_event(&self, scope: Scope) -> Answer<Option<StoredEvent>> {
        self.journal.last_event(scope)
    }

    fn begin_of(&self, scope: Scope, ids: Vec<TransactionId>) -> Answer<Result<i64, TransactionId>> {
        self.journal.begin_of(scope, ids)
    }

    fn life(&self, scope: Scope, name: Name) -> Answer<Option<Life>> {
        self.journal.life(scope, name)
    }

    fn mined_instead(&self, chain_id: u64, hash: B256) -> Answer<Option<B256>> {
        self.journal.mined_instead(chain_id, hash)
    }

    fn list(&self, scope: Scope, query: ListQuery) -> Answer<ListPage> {
        self.journal.list(scope, query)
    }

    fn account_record(&self, scope: Scope, address: Address) -> Answer<Option<AccountRecord>> {
        self.journal.account_record(scope, address)
    }
}

/// A journal with some transactions, and streams over it.
struct World {
    history: Arc<Counted>,
    lifecycle: Arc<Lifecycle>,
    _directory: TempDir,
}

impl World {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let journal = SqliteJournal::open(&directory.path().join("sluice.db"), Arc::new(Metrics::new().unwrap())).unwrap();
        for number in 0..TRANSACTIONS {
            journal.commit(life(number, account(1), "payments")).await.unwrap();
        }
        let history = Arc::new(Counted { journal, pages: AtomicUsize::new(0) });
        let bounds = Bounds { items: 1000, bytes: 1 << 20 };
        let lifecycle = Lifecycle::with_sizes(history.clone(), Sizes { page: bounds, kept: bounds });
        Self { history, lifecycle, _directory: directory }
    }

    /// Streams of one connection, each from the first event on.
    async fn streams(&self, connection: &ConnectionHandle, count: usize) -> Vec<Subscription> {
        let mut module = RpcModule::new((Arc::clone(&self.lifecycle), connection.clone()));
        module
            .register_subscription("subscribe", "event", "unsubscribe", |_, pending, context, _| async move {
                let (lifecycle, connection) = &*context;
                let stream = lifecycle.open(scope(), Filter::default(), After::Start, Some(connection)).await.unwrap();
                let Ok(sink) = pending.accept().await else { return };
                lifecycle.serve(stream, sink, Some(connection.clone())).await;
            })
            .unwrap();
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(soon(module.subscribe("subscribe", [(); 0], 1000)).await.unwrap());
        }
        streams
    }

    fn pages(&self) -> usize {
        self.history.pages.load(SeqCst)
    }
}

async fn all(mut stream: Subscription, connection: &ConnectionHandle) {
    for number in 0..TRANSACTIONS * 2 {
        let (event, _) = soon(stream.next::<Value>()).await.unwrap().unwrap();
        assert_eq!(event["slot"]["nonce"], format!("{:#x}", number / 2));
        connection.pay(usize::MAX);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_one_page_however_many_streams_it_has() {
    let world = World::start().await;
    let (stalled, reading) = (connection(), connection());
    // More is owed than any client may be sent beside.
    stalled.owe(1 << 20);
    let mut streams = world.streams(&stalled, 50).await;
    settled().await;
    assert_eq!(world.pages(), 0, "nothing is read before there is room");
    for stream in world.streams(&reading, 3).await {
        all(stream, &reading).await;
    }
    assert_eq!(world.pages(), 3, "another connection has its events meanwhile");
    // Room for one event: whichever stream has the turn, takes it, and the others wait for it.
    stalled.pay(usize::MAX);
    stalled.owe(256 << 10);
    let told = streams.iter_mut().map(|stream| Box::pin(stream.next::<Value>()));
    let (event, holder, _) = soon(futures_util::future::select_all(told)).await;
    assert!(event.unwrap().is_ok());
    settled().await;
    assert_eq!(world.pages(), 4, "one page is in hand");
    streams.remove(holder);
    settled().await;
    assert_eq!(world.pages(), 4, "the next one waits for room");
    stalled.pay(usize::MAX);
    for stream in streams {
        all(stream, &stalled).await;
    }
    assert_eq!(world.pages(), 4 + 49);
}

/// A question that waits until it is let go.
fn question(go: &Arc<Semaphore>, log: &Arc<Mutex<Vec<u32>>>, number: u32) -> impl FnOnce(&dyn History) -> Answer<u32> + use<> {
    let (go, log) = (Arc::clone(go), Arc::clone(log));
    move |_| {
        async move {
            log.lock().unwrap().push(number);
            go.acquire().await.map_err(|_| JournalError::Closed)?.forget();
            Ok(number)
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_client_that_asks_for_much_waits_behind_itself_alone() {
    let world = World::start().await;
    let (greedy, modest) = (connection(), connection());
    let (go, log) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let ask = |connection: &ConnectionHandle, number| {
        let (lifecycle, connection, question) = (Arc::clone(&world.lifecycle), connection.clone(), question(&go, &log, number));
        tokio::spawn(async move { lifecycle.read(Some(&connection), question).await })
    };
    let many: Vec<_> = (1..=10).map(|number| ask(&greedy, number)).collect();
    settled().await;
    assert_eq!(*log.lock().unwrap(), [1], "one of a connection at a time");
    let one = ask(&modest, 100);
    settled().await;
    assert_eq!(*log.lock().unwrap(), [1, 100], "and another connection's is not behind the rest");
    // Nor is a page of a stream, with every turn for questions taken.
    let page = world.lifecycle.reads.page(|history| history.events(scope(), 0, world.lifecycle.page));
    assert_eq!(soon(page).await.unwrap().len() as u64, TRANSACTIONS * 2);
    go.add_permits(11);
    assert_eq!(soon(one).await.unwrap().unwrap(), 100);
    for (asked, number) in many.into_iter().zip(1..) {
        assert_eq!(soon(asked).await.unwrap().unwrap(), number);
    }
}

#[tokio::test]
async fn questions_that_wait_are_bounded() {
    let world = World::start().await;
    let (greedy, modest) = (connection(), connection());
    let (go, log) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let mut waiting: Vec<_> = (0..QUESTIONS).map(|_| Box::pin(world.lifecycle.read(Some(&greedy), question(&go, &log, 1)))).collect();
    for waiting in &mut waiting {
        assert!(waiting.now_or_never().is_none());
    }
    let busy = world.lifecycle.read(Some(&greedy), question(&go, &log, 2)).now_or_never();
    assert!(matches!(busy, Some(Err(ReadError::Busy))), "{busy:?}");
    assert!(world.lifecycle.read(Some(&modest), question(&go, &log, 3)).now_or_never().is_none());
    // Whoever gives up leaves its place.
    waiting.pop();
    assert!(world.lifecycle.read(Some(&greedy), question(&go, &log, 4)).now_or_never().is_none());
    assert_eq!(*log.lock().unwrap(), [1, 3]);
}
