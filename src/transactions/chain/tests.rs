use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_primitives::{B256, Bytes, U256};

use super::*;
use crate::config::{AccountBounds, Broadcast, Bump, Confirmations, FeeMode, LogSource, Node, NodeClocks, Roles, Superseded};
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Account, Record};

pub(in crate::transactions) const ADDRESS: Address = Address::repeat_byte(7);

/// A chain whose node is not there, over a journal that knows one account.
pub(in crate::transactions) async fn chain(folder: &std::path::Path, key_of: KeyOf) -> Arc<Chain> {
    chain_of(folder, key_of, FeeMode::Eip1559).await
}

pub(in crate::transactions) async fn chain_of(folder: &std::path::Path, key_of: KeyOf, fees: FeeMode) -> Arc<Chain> {
    let metrics = Arc::new(Metrics::new().unwrap());
    let journal = SqliteJournal::open(&folder.join("journal.db"), Arc::clone(&metrics)).unwrap();
    let account = Account { chain_id: 31337, address: ADDRESS };
    journal.commit(vec![Record::Floor { account, nonce: 3 }]).await.unwrap();
    let environment = Environment {
        name: "dev".into(),
        chain_id: 31337,
        nodes: vec![Node { url: "ws://127.0.0.1:9".parse().unwrap(), roles: Roles::default() }],
        clocks: NodeClocks::default(),
        account: AccountBounds { queue_deadline: Duration::from_millis(300), ..AccountBounds::default() },
        answer_after: Duration::from_secs(2),
        broadcast: Broadcast::Pipelined,
        confirmations: Confirmations::Blocks(12),
        finalized_fallback: 64,
        node_deadline: Duration::from_secs(1),
        sync_timeout: Duration::from_secs(20),
        sync_timeout_max: Duration::from_secs(300),
        gas_percent: 100,
        rebroadcast: Duration::from_secs(30),
        hold: Duration::from_secs(600),
        reconcile_blocks: 12,
        fees,
        bump: Bump::default(),
        superseded: Superseded::Mined,
        logs: LogSource::Chain,
    };
    let stop = CancellationToken::new();
    Chain::start(Parts {
        ceilings: HashMap::new(),
        pool: Pool::start(&environment, None, Arc::clone(&metrics), stop.clone()),
        environment,
        journal,
        scheduler: Scheduler::start(HashMap::new(), Arc::clone(&metrics)),
        key_of,
        receipts: mpsc::unbounded_channel().0,
        metrics,
        stop,
    })
}

fn request() -> NewRequest {
    NewRequest {
        from: ADDRESS,
        kind: Kind::Raw,
        service: Arc::from("payments"),
        principal: Arc::from("default"),
        request: Arc::from("{}"),
        payload: Payload::Signed { bytes: SignedBytes { raw: Bytes::new(), hash: B256::ZERO }, nonce: 3, span: 1, cost: U256::ZERO },
        borrowed: Borrowed::default(),
        claim: None,
        acknowledged: None,
        arrived: Instant::now(),
    }
}

#[tokio::test]
async fn an_order_that_the_journal_does_not_write_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain(folder.path(), Arc::new(|_| None)).await;
    chain.operate(ADDRESS, Duration::from_secs(30), Command::State).await.unwrap();
    let mut other = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    tokio::time::pause();
    let paused = chain.pause(ADDRESS, "maintenance".into()).await;
    assert!(matches!(paused, Err(TransactionError::Journal(_))), "{paused:?}");
    let state = chain.operate(ADDRESS, Duration::from_secs(30), Command::State).await.unwrap();
    assert!(state.pauses.words().is_some(), "it is carried out");
    drop(lock);
}

#[tokio::test]
async fn a_panic_in_an_accounts_task_ends_its_requests_and_the_task_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let key_of: KeyOf = Arc::new(move |_| {
        assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "the fault that the test wants");
        None
    });
    let chain = chain(folder.path(), key_of).await;
    let first = chain.submit(request()).unwrap().answer().await;
    assert!(matches!(first, Err(TransactionError::Internal)), "{first:?}");
    while calls.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    // The new task takes requests: this one waits for a balance until its deadline.
    let second = chain.submit(request()).unwrap().answer().await;
    assert!(matches!(second, Err(TransactionError::QueueDeadline(_))), "{second:?}");
    assert_eq!(chain.metrics.alarms.with_label_values(&["dev", "account_restarted"]).get(), 1);
    chain.stop.cancel();
}

#[tokio::test]
async fn a_request_whose_task_died_after_the_commit_is_told_the_hash() {
    let accepted = Accepted { id: TransactionId::new(), hash: B256::repeat_byte(1), raw: Bytes::new() };
    let (sender, answer) = oneshot::channel();
    let committed = watch::channel(Some(accepted.clone())).1;
    drop(sender);
    assert_eq!(Submitted { answer, committed, waited: Waited::new(Instant::now()) }.answer().await.unwrap(), accepted);
}

#[tokio::test]
async fn a_request_whose_task_died_in_the_middle_of_the_commit_is_told_what_comes_of_it() {
    let accepted = Accepted { id: TransactionId::new(), hash: B256::repeat_byte(1), raw: Bytes::new() };
    for durable in [true, false] {
        let (sender, answer) = oneshot::channel();
        let (committing, committed) = watch::channel(None);
        drop(sender);
        let answered = Submitted { answer, committed, waited: Waited::new(Instant::now()) }.answer();
        tokio::pin!(answered);
        assert!(futures_util::poll!(&mut answered).is_pending(), "nobody knows yet");
        if durable {
            committing.send_replace(Some(accepted.clone()));
        }
        drop(committing);
        let answered = answered.await;
        assert_eq!(answered.as_ref().ok(), durable.then_some(&accepted), "{answered:?}");
    }
}

#[tokio::test]
async fn a_chain_that_drains_takes_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain(folder.path(), Arc::new(|_| None)).await;
    let waiting = chain.submit(request()).unwrap();
    let (drained, answered) = tokio::join!(chain.drain(Duration::from_secs(30)), waiting.answer());
    assert!(drained && matches!(answered, Err(TransactionError::QueueDeadline(_))));
    assert!(matches!(chain.submit(request()), Err(TransactionError::ShuttingDown)));
    chain.stop.cancel();
}
