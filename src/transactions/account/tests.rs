//! The task without its loop: what the journal has is loaded, events are handed in, and what it makes of them is looked at.

mod handed_in;
mod reconcile;
mod signs;
mod slots;

use std::collections::HashMap;

use alloy_consensus::{TxEip1559, TypedTransaction};
use alloy_primitives::{Bytes, Signature, TxKind, U256};
use futures_util::future::AbortHandle;
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::watch;

use super::admit::Probe;
use super::fill::nothing_to;
use super::open::try_load;
use super::replace::Replacement;
use super::submission::{Payload, assemble};
use super::*;
use crate::config::{FeeCeilings, FeeMode};
use crate::journal::keys_only::KeysOnly;
use crate::journal::sqlite::SqliteJournal;
use crate::journal::{Engine as _, Journal, Kind, Purpose, StoredAccount, TransactionId};
use crate::node::{Head, NodeError};
use crate::signing::testing::{Act, ScriptedStore};
use crate::signing::{Progress, SignClass};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::waited::Waited;
use crate::transactions::account::loans::{Borrowed, Loan};
use crate::transactions::chain::tests::{ADDRESS, chain_of};
use crate::transactions::fees::Price;
use crate::transactions::nonces::SlotState;
use crate::transactions::prepare::Prepared;
use crate::transactions::reconcile::Counts;
use crate::transactions::request::Fees;

const ACCOUNT: Account = Account { chain_id: 31337, address: ADDRESS };
const ETHER: u64 = 1_000_000_000_000_000_000;

struct Fixture {
    chain: Arc<Chain>,
    task: Task,
    _folder: TempDir,
}

fn attempt(nonce: u64, hash: u8) -> Attempt {
    Attempt {
        account: ACCOUNT,
        nonce,
        transaction: TransactionId::new(),
        kind: Kind::Raw,
        service: Arc::from("payments"),
        principal: Arc::from("default"),
        request: Arc::from("{}"),
        purpose: Purpose::Request,
        hash: B256::repeat_byte(hash),
        raw: Bytes::from(vec![2, hash]),
        cost: U256::from(1),
        hold_until: None,
        authorisations: Vec::new(),
    }
}

fn begun(attempt: &Attempt, state: AttemptState, replaces: Option<&Attempt>) -> Record {
    Record::Attempt { attempt: Box::new(attempt.clone()), state, replaces: replaces.map(|other| other.hash), takes_over: Vec::new() }
}

fn refused(attempt: &Attempt) -> Record {
    let state = AttemptState::Refused;
    Record::State { account: ACCOUNT, hash: attempt.hash, state, block: None, detail: None, receipt: None }
}

type Told = oneshot::Receiver<Result<Accepted, TransactionError>>;

/// The bytes of an attempt as a client hands them in.
fn raw(attempt: &Attempt) -> (Submission, Told) {
    let (sender, told) = oneshot::channel();
    let now = clock::now();
    let reply = Reply { sender, committed: watch::Sender::new(None), waited: Waited::new(now), token: None, claim: None };
    let bytes = SignedBytes { raw: attempt.raw.clone(), hash: attempt.hash };
    let submission = Submission {
        id: TransactionId::new(),
        kind: Kind::Raw,
        purpose: Purpose::Request,
        service: Arc::from("payments"),
        principal: Arc::from("default"),
        request: Arc::from("{}"),
        payload: Payload::Signed { bytes, nonce: attempt.nonce, span: 1, cost: U256::ZERO },
        arrived: now,
        queued: now,
        reply: Some(reply),
        borrowed: Borrowed::default(),
        key: None,
        acknowledged: false,
    };
    (submission, told)
}

impl Fixture {
    /// The next nonce without records is 3.
    async fn new(records: Vec<Record>) -> Self {
        Self::paying(FeeMode::Eip1559, records).await
    }

    async fn paying(fees: FeeMode, records: Vec<Record>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let chain = chain_of(folder.path(), Arc::new(|_| None), fees).await;
        chain.journal.commit(records).await.unwrap();
        let task = try_load(&chain, ADDRESS).await.unwrap();
        Self { chain, task, _folder: folder }
    }

    /// Everything that waits for the journal is durable.
    async fn written(&mut self) {
        loop {
            let tenure = self.task.tenure();
            self.task.outbox.write(&self.chain.journal, tenure, Self::again());
            let Some(writing) = self.task.outbox.writing() else { return };
            let written = writing.await;
            self.task.outbox_finished(written);
        }
    }

    /// What waits for the journal is being written.
    fn writing(&mut self) {
        let tenure = self.task.tenure();
        self.task.outbox.write(&self.chain.journal, tenure, Self::again());
    }

    /// The journal refuses to write what waits for it.
    async fn not_written(&mut self) {
        let journal: Arc<dyn Journal> = Arc::new(KeysOnly::default());
        let tenure = self.task.tenure();
        self.task.outbox.write(&journal, tenure, Self::again());
        let written = self.task.outbox.writing().unwrap().await;
        self.task.outbox_finished(written);
    }

    /// When what was not written may be tried again.
    fn again() -> Instant {
        clock::now() + Duration::from_secs(1)
    }

    /// What the nodes say at a head.
    fn probed(&mut self, head: u64, latest: u64) {
        self.probed_beside(head, latest, None);
    }

    /// The same, with the lowest slot that the journal has from there up.
    fn probed_beside(&mut self, head: u64, latest: u64, next_slot: Option<u64>) {
        let head = Head { number: head, hash: B256::ZERO, parent_hash: B256::ZERO, timestamp: 0, base_fee: None };
        let probe = Probe {
            head: Arc::new(head),
            balance: U256::from(ETHER),
            latest,
            pending: latest,
            settled: true,
            counts: Some(vec![Some(Counts { latest, pending: latest })]),
            next_slot: self.task.suspects_gap().then_some(next_slot),
            is_delegated: None,
            holders: HashMap::new(),
        };
        self.task.probe_finished(Ok(probe));
    }

    /// Alarms of refused bytes that were about to be sent.
    fn refused_payloads(&self) -> u64 {
        let environment = &self.chain.environment.name;
        self.chain.metrics.alarms.with_label_values(&[environment.as_str(), "refused_payload"]).get()
    }

    fn state(&self, attempt: &Attempt) -> Option<AttemptState> {
        self.task.attempts.get(&attempt.hash).map(|live| live.state)
    }
}

/// An older payload and the one in its place.
async fn replaced_by_another() -> (Attempt, Attempt, Fixture) {
    let old = attempt(3, 1);
    let new = Attempt { hash: B256::repeat_byte(2), ..old.clone() };
    let records = vec![begun(&old, AttemptState::Committed, None), begun(&new, AttemptState::Committed, Some(&old))];
    let mut fixture = Fixture::new(records).await;
    fixture.task.sighting(Sighting::Absent { hash: new.hash });
    fixture.task.act();
    (old, new, fixture)
}

fn refuses(fixture: &mut Fixture, attempt: &Attempt) {
    let error = NodeError { code: -32000, message: "intrinsic gas too low: gas 20000, minimum needed 21000".into(), data: None };
    fixture.task.answered((attempt.hash, 0, Err(CallError::Node(error))), clock::now());
}

fn included(attempt: &Attempt) -> Sighting {
    let block = BlockRef { number: 10, hash: B256::repeat_byte(9) };
    let receipt: Arc<RawValue> = Arc::from(RawValue::from_string("{}".to_owned()).unwrap());
    Sighting::Included { hash: attempt.hash, block, success: true, reason: None, receipt }
}
