//! The engine through the trait, and the file as another reader sees it.

mod authorisations;
mod contract;
mod copies;
mod damage;
mod discoveries;
mod files;
mod full;
mod group;
mod history;
mod once;
mod ownership;
mod probe;
mod pruning;
mod random;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use alloy_primitives::{Address, B256, Bytes, U256};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::queue::{TestWork, Work};
use super::*;
use crate::journal::{Attempt, AttemptState, BlockRef, Kind, PauseBy, Pauses, Purpose, TransactionId};

const CHAIN: u64 = 31337;

fn account(byte: u8) -> Account {
    Account { chain_id: CHAIN, address: Address::repeat_byte(byte) }
}

fn block(number: u64, byte: u8) -> BlockRef {
    BlockRef { number, hash: B256::repeat_byte(byte) }
}

/// An attempt whose hash is `hash` repeated, of a transaction of its own.
fn attempt(account: Account, nonce: u64, hash: u8) -> Attempt {
    Attempt {
        account,
        nonce,
        transaction: TransactionId::new(),
        kind: Kind::Send,
        service: Arc::from("payments"),
        principal: Arc::from("default"),
        request: Arc::from(r#"{"value":"0x1"}"#),
        purpose: Purpose::Request,
        hash: B256::repeat_byte(hash),
        raw: Bytes::from(vec![2, hash]),
        cost: U256::from(u64::from(hash)),
        hold_until: None,
        authorisations: Vec::new(),
    }
}

fn committed(attempt: &Attempt) -> Record {
    Record::Attempt { attempt: Box::new(attempt.clone()), state: AttemptState::Committed, replaces: None, takes_over: Vec::new() }
}

fn replacing(attempt: &Attempt, hash: u8) -> Record {
    Record::Attempt {
        attempt: Box::new(attempt.clone()),
        state: AttemptState::Committed,
        replaces: Some(B256::repeat_byte(hash)),
        takes_over: Vec::new(),
    }
}

fn reached(attempt: &Attempt, state: AttemptState, block: Option<BlockRef>) -> Record {
    Record::State { account: attempt.account, hash: attempt.hash, state, block, detail: None, receipt: None }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn unusable(path: &Path) -> String {
    match SqliteJournal::open(path, metrics()) {
        Err(JournalError::Unusable(text) | JournalError::Damaged(text)) => text,
        other => panic!("{other:?}"),
    }
}

struct Fixture {
    journal: Arc<SqliteJournal>,
    path: PathBuf,
    metrics: Arc<Metrics>,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("sluice.db");
        let metrics = metrics();
        Self { journal: SqliteJournal::open(&path, Arc::clone(&metrics)).unwrap(), path, metrics, _directory: directory }
    }

    async fn commit(&self, records: Vec<Record>) -> Vec<i64> {
        self.journal.commit(records).await.unwrap()
    }

    async fn hashes(&self, account: Account) -> Vec<(B256, AttemptState, bool)> {
        let unfinished = self.journal.unfinished(account).await.unwrap();
        unfinished.iter().map(|stored| (stored.attempt.hash, stored.state, stored.current)).collect()
    }

    async fn stored(&self, attempt: &Attempt) -> StoredAttempt {
        self.journal.attempt(CHAIN, attempt.hash).await.unwrap().unwrap()
    }

    async fn next_nonce(&self, account: Account) -> u64 {
        self.journal.account(account).await.unwrap().map_or(0, |stored| stored.next_nonce)
    }

    /// Ends the journal in order; the folder stays.
    fn closed(self) -> (PathBuf, TempDir) {
        let Self { journal, path, _directory, .. } = self;
        drop(journal);
        (path, _directory)
    }

    /// Runs the step on the writer's connection, in the order of the calls.
    fn on_writer(
        &self,
        step: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), JournalError>> {
        let done = self.journal.submit(Work::Test(Box::new(step)));
        Box::pin(async move { done.await.map(drop) })
    }

    /// Keeps the writer busy until the answer is used or dropped, so that what is committed meanwhile is one group.
    async fn hold_writer(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel();
        let (started, start) = oneshot::channel();
        let step: TestWork = Box::new(move |_| {
            let _ = started.send(());
            let _ = released.recv();
            Ok(())
        });
        drop(self.journal.submit(Work::Test(step)));
        start.await.unwrap();
        release
    }
}

/// Account byte, sequence, hash byte, state.
type EventRow = (u8, i64, u8, String);

/// Every event in the order of positions, as another process would read it.
fn events(path: &Path) -> Vec<EventRow> {
    let connection = file::open_reader(path).unwrap();
    let mut statement = connection.prepare("SELECT address, sequence, hash, state FROM events ORDER BY position").unwrap();
    statement
        .query_map([], |row| Ok((row.get::<_, [u8; 20]>(0)?[0], row.get(1)?, row.get::<_, [u8; 32]>(2)?[0], row.get(3)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap()
}

fn event(account: u8, sequence: i64, hash: u8, state: &str) -> EventRow {
    (account, sequence, hash, state.to_owned())
}
