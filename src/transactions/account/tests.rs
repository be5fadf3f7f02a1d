//! The task without its loop: what the journal has is loaded, events are handed in, and what it makes of them is looked at.

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

#[tokio::test]
async fn what_a_refused_replacement_was_to_replace_is_sent_if_it_never_was() {
    let (old, new, mut fixture) = replaced_by_another().await;
    assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Sent));
    refuses(&mut fixture, &new);
    fixture.written().await;
    assert_eq!((fixture.state(&new), fixture.task.current.get(&3)), (Some(AttemptState::Refused), Some(&old.hash)));
    fixture.task.act();
    assert!(fixture.task.attempts.get(&old.hash).is_some_and(|live| live.sent_at.is_some()), "no clock would bring it back");
}

#[tokio::test]
async fn a_foreign_payload_that_a_reorg_took_back_leaves_the_slot_to_ours() {
    let ours = attempt(3, 1);
    let mut fixture = Fixture::new(vec![begun(&ours, AttemptState::Committed, None)]).await;
    fixture.task.sighting(Sighting::Absent { hash: ours.hash });
    fixture.task.act();
    fixture.task.sighting(Sighting::Absent { hash: ours.hash });
    fixture.probed(100, 4);
    assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Foreign));
    fixture.probed(101, 3);
    fixture.task.act();
    assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Sent), "the same bytes go out again");
    assert_eq!(fixture.task.balance.owed(Owed::Slot(3)), ours.cost);
    fixture.probed(130, 3);
    assert!(fixture.state(&ours).is_some(), "and are not given up");
}

#[tokio::test]
async fn bytes_whose_cancel_is_on_record_are_not_taken_back_from_their_client() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let cancel = Attempt { hash: B256::repeat_byte(2), purpose: Purpose::Cancel, ..held.clone() };
    let mut fixture =
        Fixture::new(vec![begun(&held, AttemptState::Held, None), begun(&cancel, AttemptState::Committed, Some(&held))]).await;
    let (submission, mut told) = raw(&held);
    fixture.probed(100, 3);
    fixture.task.submit(submission);
    fixture.task.act();
    assert!(matches!(told.try_recv(), Ok(Err(TransactionError::NonceHeld { nonce: 3 }))));
    assert_eq!((fixture.state(&held), fixture.task.nonces.slot(3)), (Some(AttemptState::Held), Some(SlotState::Sent)));
}

#[tokio::test]
async fn refused_bytes_whose_slot_another_transaction_has_are_not_told_as_known() {
    let (old, new) = (attempt(3, 1), attempt(3, 2));
    let records = vec![begun(&old, AttemptState::Committed, None), refused(&old), begun(&new, AttemptState::Committed, Some(&old))];
    let mut fixture = Fixture::new(records).await;
    let (submission, mut told) = raw(&old);
    fixture.probed(100, 3);
    fixture.task.submit(submission);
    fixture.task.act();
    assert!(matches!(told.try_recv(), Ok(Err(TransactionError::NonceHeld { nonce: 3 }))));
}

#[tokio::test]
async fn a_cancel_whose_bytes_their_client_sends_meanwhile_says_so() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    let task = &mut fixture.task;
    let (cancel, mut told) = raw(&attempt(3, 2));
    assert!(task.nonces.replace(100, 3));
    task.tickets.insert(100, Pending { replaces: true, replacement: Some(Replacement::Cancel), nonce: 3, ..Pending::new(cancel) });
    let (submission, _answer) = raw(&held);
    task.submit(submission);
    task.act();
    let error = told.try_recv().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "its client sent its bytes meanwhile: try again");
    fixture.written().await;
    fixture.task.act();
    assert_eq!((fixture.state(&held), fixture.task.nonces.slot(3)), (Some(AttemptState::Committed), Some(SlotState::Sent)));
}

#[tokio::test]
async fn of_bytes_that_are_handed_in_nothing_is_told_before_that_is_on_record() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    let answer_after = fixture.chain.environment().answer_after;
    fixture.probed(100, 3);
    let (submission, mut told) = raw(&held);
    let committed = submission.reply.as_ref().unwrap().committed.subscribe();
    fixture.task.submit(submission);
    assert_eq!((committed.borrow().clone(), fixture.task.nonces.slot(3)), (None, Some(SlotState::Reopened)));
    fixture.writing();
    let (again, mut told_again) = raw(&held);
    fixture.task.submit(again);
    // It is being written: nobody can say that it will not be on record.
    fixture.task.tick(clock::now());
    for told in [&mut told, &mut told_again] {
        assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    }
    fixture.task.tick(clock::now() + 2 * answer_after);
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    assert!(matches!(told_again.try_recv(), Ok(Err(TransactionError::QueueDeadline(_)))), "what waits beside it has its deadline");
    let (again, mut told_again) = raw(&held);
    fixture.task.submit(again);
    fixture.written().await;
    assert_eq!(committed.borrow().as_ref().map(|accepted| accepted.hash), Some(held.hash), "also if the task ends now");
    fixture.task.act();
    assert!(matches!(told_again.try_recv(), Ok(Err(TransactionError::AlreadyKnown { hash })) if hash == held.hash));
    fixture.task.tick(clock::now() + 2 * answer_after);
    assert!(matches!(told.try_recv(), Ok(Ok(accepted)) if accepted.hash == held.hash));
    assert!(fixture.task.attempts.get(&held.hash).is_some_and(|live| live.sent_at.is_some()));
}

#[tokio::test]
async fn bytes_whose_hand_over_cannot_be_written_are_their_clients_again() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    let mut told = Vec::new();
    for _ in 0..2 {
        let (submission, answer) = raw(&held);
        fixture.task.submit(submission);
        told.push(answer);
    }
    // What is beside it in the batch has to be on record all the same.
    fixture.task.pause(PauseBy::Filler, Some("why".into()));
    fixture.not_written().await;
    for told in &mut told {
        assert!(matches!(told.try_recv(), Ok(Err(TransactionError::Journal(JournalError::NotWritten(_))))));
    }
    assert_eq!((fixture.state(&held), fixture.task.nonces.slot(3)), (Some(AttemptState::Held), Some(SlotState::Held)));
    fixture.written().await;
    assert_eq!(fixture.chain.journal.attempt(31337, held.hash).await.unwrap().unwrap().state, AttemptState::Held);
    assert!(fixture.chain.journal.account(ACCOUNT).await.unwrap().unwrap().pauses.by(PauseBy::Filler).is_some());
    fixture.task.pause(PauseBy::Filler, None);
    let (submission, mut told) = raw(&held);
    fixture.task.submit(submission);
    fixture.written().await;
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!((fixture.state(&held), fixture.task.nonces.slot(3)), (Some(AttemptState::Committed), Some(SlotState::Unsent)));
}

#[tokio::test]
async fn of_a_hand_over_that_may_have_been_written_nothing_is_told() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    let closed = tempfile::tempdir().unwrap();
    let closed = SqliteJournal::open(&closed.path().join("journal.db"), Arc::new(Metrics::new().unwrap())).unwrap();
    closed.close().await;
    let (submission, mut told) = raw(&held);
    let committed = submission.reply.as_ref().unwrap().committed.subscribe();
    fixture.task.submit(submission);
    let journal: Arc<dyn Journal> = closed;
    let tenure = fixture.task.tenure();
    fixture.task.outbox.write(&journal, tenure, Fixture::again());
    for _ in 0..100 {
        assert!(futures_util::poll!(fixture.task.outbox.writing().unwrap()).is_pending());
        tokio::task::yield_now().await;
    }
    fixture.task.tick(clock::now() + 2 * fixture.chain.environment().account.queue_deadline);
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    drop(fixture.task);
    assert!(committed.has_changed().is_ok(), "the commit has it: nothing is told when the task ends, either");
}

#[tokio::test]
async fn a_hand_over_that_is_not_being_written_ends_with_its_deadline_or_its_requester() {
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    let (submission, mut told) = raw(&held);
    fixture.task.submit(submission);
    fixture.task.tick(clock::now() + fixture.chain.environment().account.queue_deadline);
    assert!(matches!(told.try_recv(), Ok(Err(TransactionError::QueueDeadline(_)))));
    let (submission, told) = raw(&held);
    fixture.task.submit(submission);
    assert_eq!((fixture.state(&held), fixture.task.queued()), (Some(AttemptState::Committed), 1));
    drop(told);
    fixture.task.tick(clock::now());
    assert_eq!((fixture.task.queued(), fixture.task.outbox.is_empty()), (0, true));
    assert_eq!((fixture.state(&held), fixture.task.nonces.slot(3)), (Some(AttemptState::Held), Some(SlotState::Held)));
}

/// A client may have given the bytes that it held to a node, which nobody here knows.
#[tokio::test]
async fn bytes_that_their_client_held_are_in_doubt() {
    let refusal = || CallError::Node(NodeError { code: -32000, message: "insufficient funds for gas * price + value".into(), data: None });
    let held = Attempt { kind: Kind::SignOnly, ..attempt(3, 1) };
    let ended = Attempt { kind: Kind::SignOnly, ..attempt(4, 2) };
    let records = vec![begun(&held, AttemptState::Held, None), begun(&ended, AttemptState::Held, None), refused(&ended)];
    let mut fixture = Fixture::new(records).await;
    fixture.probed(100, 3);
    fixture.task.nonces.set_delegated(false);
    let mut told = Vec::new();
    for bytes in [&held, &ended] {
        let (submission, answer) = raw(bytes);
        fixture.task.submit(submission);
        told.push(answer);
    }
    fixture.written().await;
    fixture.task.act();
    let written = fixture.task.commit.take().unwrap().await;
    fixture.task.commit_finished(written);
    fixture.task.act();
    for (bytes, told) in [&held, &ended].into_iter().zip(&mut told) {
        assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
        assert_eq!(fixture.task.nonces.slot(bytes.nonce), Some(SlotState::Sent));
        fixture.task.answered((bytes.hash, 0, Err(refusal())), clock::now());
        assert!(matches!(told.try_recv(), Ok(Ok(accepted)) if accepted.hash == bytes.hash));
        assert_eq!(fixture.task.nonces.slot(bytes.nonce), Some(SlotState::Sent), "the slot is held");
    }
}

/// An attempt whose refusal is to be written.
async fn refusing() -> (Fixture, Attempt) {
    let ours = attempt(3, 1);
    let mut fixture = Fixture::new(vec![begun(&ours, AttemptState::Committed, None)]).await;
    fixture.probed(100, 3);
    let task = &mut fixture.task;
    task.sighting(Sighting::Absent { hash: ours.hash });
    task.nonces.set_slot(3, SlotState::Unsent);
    while task.nonces.poll(clock::now()).is_some() {}
    task.send(3, clock::now());
    let error = NodeError { code: -32000, message: "intrinsic gas too low: gas 20000, minimum needed 21000".into(), data: None };
    task.answered((ours.hash, 0, Err(CallError::Node(error))), clock::now());
    assert_eq!(task.nonces.slot(3), Some(SlotState::Reopened));
    (fixture, ours)
}

#[tokio::test]
async fn who_hands_in_bytes_whose_refusal_is_being_written_waits_and_is_bounded_by_the_queue() {
    let (mut fixture, ours) = refusing().await;
    let bound = fixture.chain.environment().account.queue;
    let mut told = Vec::new();
    for _ in 0..=bound {
        let (submission, answer) = raw(&ours);
        fixture.task.submit(submission);
        told.push(answer);
    }
    assert!(matches!(told[bound].try_recv(), Ok(Err(TransactionError::QueueFull))));
    assert_eq!((fixture.task.queued(), fixture.task.figures().queued), (bound, bound));
    assert!(matches!(told[0].try_recv(), Err(TryRecvError::Empty)));
    told.truncate(2);
    fixture.task.tick(clock::now());
    assert_eq!(fixture.task.queued(), 2, "who is gone waits no longer");
    fixture.task.tick(clock::now() + fixture.chain.environment().account.queue_deadline);
    assert!(told.iter_mut().all(|told| matches!(told.try_recv(), Ok(Err(TransactionError::QueueDeadline(_))))));
    assert_eq!(fixture.task.queued(), 0);
}

#[tokio::test]
async fn who_hands_in_bytes_goes_on_like_any_other_once_their_refusal_is_on_record() {
    let (mut fixture, ours) = refusing().await;
    let (submission, mut told) = raw(&ours);
    fixture.task.submit(submission);
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    fixture.written().await;
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)), "they are put on record again");
    assert!(fixture.task.commit.is_some() && fixture.task.handed_in.len() == 0);
}

#[tokio::test]
async fn who_hands_in_bytes_whose_hold_ends_at_that_moment_takes_the_slot_once_that_is_on_record() {
    let held = Attempt { kind: Kind::SignOnly, hold_until: Some(std::time::UNIX_EPOCH), ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    fixture.task.tick(clock::now());
    let (submission, mut told) = raw(&held);
    fixture.task.submit(submission);
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    fixture.written().await;
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)), "they are put on record again");
    assert!(fixture.task.commit.is_some());
}

#[tokio::test]
async fn who_waits_for_a_record_is_taken_along_when_the_account_is_opened_again() {
    let (mut fixture, ours) = refusing().await;
    let (submission, mut told) = raw(&ours);
    let id = submission.id;
    fixture.task.submit(submission);
    let (commands, _) = fixture.task.leave();
    assert!(matches!(commands.as_slice(), [Command::Resubmit(submission)] if submission.id == id), "{commands:?}");
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn a_request_whose_task_dies_while_its_commit_is_under_way_is_told_the_hash() {
    let Fixture { mut task, chain: _chain, _folder } = Fixture::new(Vec::new()).await;
    let now = clock::now();
    let ours = attempt(3, 1);
    let (submission, told) = raw(&ours);
    let mut committed = submission.reply.as_ref().unwrap().committed.subscribe();
    let signed = Some(SignedBytes { raw: ours.raw.clone(), hash: ours.hash });
    task.tickets.insert(1, Pending { signed, nonce: 3, ..Pending::new(submission) });
    task.start_commit(vec![1], now);
    drop(task);
    assert!(told.await.is_err() && committed.borrow().is_none(), "nobody knows yet");
    let accepted = committed.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(accepted.map(|accepted| accepted.hash), Some(ours.hash));
}

#[tokio::test]
async fn a_replacement_that_is_on_record_after_its_slot_is_final_is_not_watched() {
    let (old, new) = (attempt(3, 1), attempt(3, 2));
    let mut fixture = Fixture::new(vec![begun(&old, AttemptState::Committed, None)]).await;
    let task = &mut fixture.task;
    task.sighting(Sighting::Absent { hash: old.hash });
    assert!(task.nonces.replace(1, 3));
    let (submission, mut told) = raw(&new);
    let signed = Some(SignedBytes { raw: new.raw.clone(), hash: new.hash });
    let pending = Pending { signed, replacement: Some(Replacement::SpeedUp), nonce: 3, ..Pending::new(submission) };
    task.tickets.insert(1, pending);
    let now = clock::now();
    assert_eq!(task.nonces.poll(now), Some(Action::Sign { ticket: 1, nonce: 3, replaces: true }));
    task.nonces.signed(1);
    assert_eq!(task.nonces.poll(now), Some(Action::Commit(vec![1])));
    fixture.chain.journal.commit(vec![begun(&new, AttemptState::Committed, Some(&old))]).await.unwrap();
    let block = BlockRef { number: 10, hash: B256::repeat_byte(9) };
    fixture.task.sighting(included(&old));
    fixture.task.sighting(Sighting::Confirmed { hash: old.hash, block });
    fixture.task.commit_finished((vec![1], Ok(Vec::new())));
    assert!(fixture.chain.tracker.watched().await.contains(&new.hash), "until it is known to be over");
    fixture.written().await;
    assert!(matches!(told.try_recv(), Ok(Err(TransactionError::NonceTooLow { nonce: 3, .. }))));
    assert!(fixture.state(&new).is_none() && !fixture.chain.tracker.watched().await.contains(&new.hash));
}

#[tokio::test]
async fn where_gas_is_free_the_same_payload_is_not_signed_again() {
    let paying = |price: u128| {
        let payload = TxEip1559 {
            chain_id: 31337,
            nonce: 3,
            gas_limit: 21_000,
            max_fee_per_gas: price,
            max_priority_fee_per_gas: price,
            to: TxKind::Call(ADDRESS),
            ..TxEip1559::default()
        };
        let SignedBytes { raw, hash } = assemble(TypedTransaction::Eip1559(payload), Signature::test_signature());
        Attempt { raw, hash, kind: Kind::Send, ..attempt(3, 1) }
    };
    let first = paying(0);
    let second = Attempt { transaction: first.transaction, ..paying(5) };
    let records = vec![begun(&first, AttemptState::Committed, None), begun(&second, AttemptState::Committed, Some(&first))];
    let mut fixture = Fixture::paying(FeeMode::Free, records).await;
    fixture.chain.set_ceilings(&first.service, FeeCeilings::default());
    let task = &mut fixture.task;
    task.sighting(Sighting::Absent { hash: second.hash });
    let given = |price| Fees::Dynamic { cap: Some(price), tip: Some(price) };
    for same in [Fees::AnyPrice, given(5)] {
        let Err(TransactionError::NotReplaceable(words)) = task.offer(&second, Replacement::SpeedUp, same).map(drop) else {
            panic!("{same:?}")
        };
        assert!(words.contains("give a price") && !task.nonces.is_replacing(3), "{words}");
    }
    assert!(task.offer(&second, Replacement::SpeedUp, given(6)).is_ok());
}

#[tokio::test]
async fn a_slot_that_a_refused_authorisation_left_open_can_be_taken_after_the_one_below_is_final() {
    let refused_one = Attempt { authorisations: vec![(ACCOUNT, 4)], ..attempt(3, 1) };
    let next = attempt(3, 2);
    let records = vec![
        begun(&refused_one, AttemptState::Committed, None),
        refused(&refused_one),
        begun(&next, AttemptState::Committed, Some(&refused_one)),
    ];
    let mut fixture = Fixture::new(records).await;
    assert_eq!(fixture.task.nonces.slot(4), Some(SlotState::Open));
    let block = BlockRef { number: 10, hash: B256::repeat_byte(9) };
    fixture.task.sighting(included(&next));
    fixture.task.sighting(Sighting::Confirmed { hash: next.hash, block });
    fixture.written().await;
    // What takes it next has to name what it replaces, or the journal refuses it.
    assert_eq!(fixture.task.current.get(&4), Some(&refused_one.hash));
    let taker = attempt(4, 3);
    let replaces = fixture.task.current.get(&4).copied();
    let record = Record::Attempt { attempt: Box::new(taker), state: AttemptState::Committed, replaces, takes_over: Vec::new() };
    fixture.chain.journal.commit(vec![record]).await.unwrap();
}

#[tokio::test]
async fn an_account_that_cannot_pay_what_it_sent_can_cancel_it() {
    let (cap, value) = (10, U256::from(ETHER));
    let payload = TxEip1559 {
        chain_id: 31337,
        nonce: 3,
        gas_limit: 21_000,
        max_fee_per_gas: cap,
        max_priority_fee_per_gas: cap,
        to: TxKind::Call(ADDRESS),
        value,
        ..TxEip1559::default()
    };
    let SignedBytes { raw, hash } = assemble(TypedTransaction::Eip1559(payload), Signature::test_signature());
    let dear = Attempt { raw, hash, cost: value + U256::from(210_000), ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&dear, AttemptState::Committed, None)]).await;
    fixture.chain.set_ceilings(&dear.service, FeeCeilings::default());
    fixture.task.balance.read(100, U256::from(ETHER / 2));
    assert!(fixture.task.offer(&dear, Replacement::SpeedUp, Fees::AnyPrice).is_err(), "it costs more, and there is not enough");
    assert!(fixture.task.offer(&dear, Replacement::Cancel, Fees::AnyPrice).is_ok());
}

#[tokio::test]
async fn what_borrowed_nonces_is_not_signed_again_without_them() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let (culprit, _) = raw(&attempt(3, 1));
    let (mut borrower, mut told) = raw(&attempt(4, 2));
    borrower.borrowed.nonces.push((Address::repeat_byte(8), 0..1));
    let transaction = culprit.id;
    fixture.task.tickets.insert(1, Pending::new(culprit));
    fixture.task.tickets.insert(2, Pending::new(borrower));
    fixture.task.commit_finished((vec![1, 2], Err(JournalError::NotQueued { transaction })));
    assert!(matches!(told.try_recv(), Ok(Err(TransactionError::Internal))));
    assert_eq!(fixture.task.nonces.queued(), 0);
}

#[tokio::test]
async fn a_request_that_waited_for_the_key_store_is_told_so_at_its_deadline() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let mut told = BTreeMap::new();
    let mut put = |task: &mut Task, ticket: u64| {
        let (submission, answer) = raw(&attempt(2 + ticket, ticket as u8));
        told.insert(ticket, answer);
        task.tickets.insert(ticket, Pending::new(submission));
    };
    (1..=5).for_each(|ticket| put(task, ticket));
    let deny = |task: &mut Task, ticket| task.deny(ticket, Denial::Deadline);
    // A Sign is under way, and there is room for more.
    let progress = Progress::default();
    task.tickets.get_mut(&5).unwrap().sign = Some(Asked { abort: AbortHandle::new_pair().0, progress: progress.clone(), at: clock::now() });
    deny(task, 1);
    let now = clock::now();
    for ticket in 101..=task.chain.environment.account.sign_window as u64 + 100 {
        task.nonces.enqueue(ticket, Wish::Any, 1, now + Duration::from_secs(30)).unwrap();
    }
    while task.nonces.poll(now).is_some() {}
    // There is none, and the Sign that it waits for waits for the quota itself.
    put(task, 7);
    deny(task, 7);
    // It is the key store's to answer: for long, if there are others.
    let waiting = Some(Asked { abort: AbortHandle::new_pair().0, progress: Progress::default(), at: clock::now() });
    put(task, 9);
    task.tickets.get_mut(&9).unwrap().sign = waiting;
    progress.issue(clock::now() + Duration::from_secs(1));
    put(task, 8);
    deny(task, 8);
    task.tickets.get_mut(&9).unwrap().sign = None;
    deny(task, 2);
    task.sign_finished((5, Ok(Err(KeyStoreError { class: SignClass::Throttled, detail: "slow down".into() }))));
    deny(task, 3);
    // One that worked: it waited for its turn.
    put(task, 6);
    task.sign_finished((6, Ok(Ok(Signature::test_signature()))));
    deny(task, 4);
    let mut class = |ticket| match told.get_mut(&ticket).unwrap().try_recv().unwrap().unwrap_err() {
        TransactionError::Sign(class) => Some(class),
        TransactionError::QueueDeadline(_) => None,
        other => panic!("{other:?}"),
    };
    let (deadline, throttled) = (Some(SignClass::Deadline), Some(SignClass::Throttled));
    assert_eq!([1, 7, 8, 2, 3, 4].map(&mut class), [None, throttled, throttled, deadline, throttled, None]);
}

/// A request that is to be signed here.
fn unsigned() -> Submission {
    let transaction = nothing_to(ADDRESS, 31337, Price::Dynamic { cap: 1, tip: 1 });
    let prepared = Box::new(Prepared { from: ADDRESS, transaction, nonce: None, cost: U256::ZERO, span: 1 });
    let key = ScriptedStore::new(&[("a", 1)], |_| Act::Hang).key("a");
    Submission { payload: Payload::Unsigned { prepared, key }, reply: None, ..raw(&attempt(3, 1)).0 }
}

#[tokio::test]
async fn a_signature_that_is_not_used_is_counted_whatever_became_of_its_request() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let unused = |task: &Task| task.chain.metrics.unused.get();
    (1..=3).for_each(|ticket| drop(task.tickets.insert(ticket, Pending::new(unsigned()))));
    task.tickets.insert(4, Pending::new(raw(&attempt(6, 6)).0));
    let signed = |task: &mut Task, ticket| task.sign_finished((ticket, Ok(Ok(Signature::test_signature()))));
    signed(task, 1);
    task.void(&[1]);
    assert_eq!(unused(task), 1, "a lower nonce failed");
    signed(task, 1);
    task.fail(1, TransactionError::Internal);
    assert_eq!(unused(task), 2, "it failed itself");
    task.tickets.get_mut(&2).unwrap().submission.borrowed.loans.push(Loan { over: oneshot::channel().0, replaces: Vec::new() });
    signed(task, 2);
    assert_eq!((unused(task), task.tickets.contains_key(&2)), (3, false), "what it borrowed was taken back");
    // Neither of these was signed: one not yet, one by its client.
    task.tickets.get_mut(&4).unwrap().signed = Some(SignedBytes { raw: Bytes::new(), hash: B256::ZERO });
    task.void(&[3, 4]);
    assert_eq!(unused(task), 3);
}

#[tokio::test]
async fn the_signs_of_a_request_have_one_deadline_together() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    task.tickets.insert(1, Pending::new(unsigned()));
    let second = Duration::from_secs(1);
    for nonce in 3..6 {
        let now = clock::now();
        task.start_sign(1, nonce, false, now);
        task.tickets.get_mut(&1).unwrap().sign.as_mut().unwrap().at -= 3 * second;
        task.void(&[1]);
    }
    assert!(task.tickets[&1].signing >= 9 * second);
    // The scheduler's deadline is 10 s.
    task.start_sign(1, 6, false, clock::now());
    let late = async {
        loop {
            let signed = task.signs.next().await.unwrap();
            if let Ok(result) = signed.1 {
                break result.unwrap_err();
            }
        }
    };
    assert_eq!(tokio::time::timeout(8 * second, late).await.unwrap().class, SignClass::Deadline);
}

#[tokio::test]
async fn a_sign_that_had_no_turn_makes_the_window_smaller_however_soon_that_was_told() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let size = task.sign_window.size();
    let ends = |task: &mut Task, ticket: u64, issued: bool, result| {
        let (submission, _) = raw(&attempt(2 + ticket, ticket as u8));
        let progress = Progress::default();
        if issued {
            progress.issue(clock::now());
        }
        let sign = Some(Asked { abort: AbortHandle::new_pair().0, progress, at: clock::now() });
        task.tickets.insert(ticket, Pending { sign, ..Pending::new(submission) });
        task.sign_finished((ticket, Ok(result)));
    };
    let failed = |class| Err(KeyStoreError { class, detail: "no".into() });
    ends(task, 1, true, Ok(Signature::test_signature()));
    ends(task, 2, false, failed(SignClass::KeyDown));
    assert_eq!(task.sign_window.size(), size, "it was not full, and a key that is down says nothing of the quota");
    (3..=6).for_each(|ticket| ends(task, ticket, false, failed(SignClass::Throttled)));
    assert_eq!(task.sign_window.size(), size - 1);
}

#[tokio::test]
async fn what_shared_a_commit_with_a_request_that_ended_keeps_its_order_and_its_signature_if_it_is_below() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let now = clock::now();
    let mut ids = BTreeMap::new();
    for ticket in 1..=5 {
        let (submission, _) = raw(&attempt(2 + ticket, ticket as u8));
        ids.insert(ticket, submission.id);
        let signed = Some(SignedBytes { raw: Bytes::new(), hash: B256::repeat_byte(ticket as u8) });
        task.tickets.insert(ticket, Pending { signed, nonce: 2 + ticket, ..Pending::new(submission) });
        task.nonces.enqueue(ticket, Wish::Any, 1, now + Duration::from_secs(30)).unwrap();
    }
    let actions = |task: &mut Task| std::iter::from_fn(|| task.nonces.poll(now)).collect::<Vec<_>>();
    let sign = |ticket, nonce| Action::Sign { ticket, nonce, replaces: false };
    assert_eq!(actions(task), [sign(1, 3), sign(2, 4), sign(3, 5), sign(4, 6), sign(5, 7)]);
    (1..=3).for_each(|ticket| task.nonces.signed(ticket));
    assert_eq!(actions(task), [Action::Commit(vec![1, 2, 3])]);
    task.commit_finished((vec![1, 2, 3], Err(JournalError::NotQueued { transaction: ids[&2] })));
    assert_eq!(actions(task), [Action::Commit(vec![1]), sign(3, 4), sign(4, 5), sign(5, 6)]);
    assert_eq!([1, 3].map(|ticket| task.tickets[&ticket].signed.is_some()), [true, false]);
    assert!(!task.tickets.contains_key(&2));
}

#[tokio::test]
async fn the_account_of_a_restored_journal_begins_where_the_chain_settles_if_nothing_is_on_record() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let account = Account { address: Address::repeat_byte(8), ..ACCOUNT };
    let epoch = fixture.chain.journal.own(account).await.unwrap();
    let mut pauses = Pauses::default();
    pauses.set(PauseBy::Reconcile, Some("restored".into()));
    // The nodes had two payloads of it in their pools when it was opened.
    let stored = StoredAccount { account, next_nonce: 7, pauses };
    fixture.task = Task::new(Arc::clone(&fixture.chain), epoch, stored, Some(7), Vec::new());
    for head in [100, 112] {
        fixture.probed(head, 5);
    }
    assert_eq!((fixture.task.is_reconciling(), fixture.task.next_nonce()), (false, 5), "a gap below would never close");
    fixture.written().await;
    assert_eq!(fixture.chain.journal.account(account).await.unwrap().unwrap().next_nonce, 5);
}

#[tokio::test]
async fn while_an_account_reconciles_everybody_is_told_the_same_next_nonce() {
    let ours = attempt(3, 1);
    let reason = Some("restored".into());
    let records = vec![begun(&ours, AttemptState::Committed, None), Record::Pause { account: ACCOUNT, by: PauseBy::Reconcile, reason }];
    let mut fixture = Fixture::new(records).await;
    fixture.probed(100, 7);
    let task = &fixture.task;
    let told = [task.next_nonce(), task.figures().next_nonce, task.state().figures.next_nonce];
    assert_eq!((task.is_reconciling(), told), (true, [7; 3]), "the chain is ahead of what is on record");
}

/// The account began behind somebody else's payload, which was lost.
#[tokio::test]
async fn what_the_chain_waits_for_and_nothing_has_is_open_once_every_node_has_said_so() {
    let ours = attempt(5, 1);
    let mut fixture = Fixture::new(vec![Record::Floor { account: ACCOUNT, nonce: 5 }, begun(&ours, AttemptState::Committed, None)]).await;
    let blocks = fixture.chain.environment.reconcile_blocks;
    fixture.probed_beside(100, 3, Some(5));
    assert!(fixture.task.suspects_gap());
    for head in 101..100 + blocks - 1 {
        fixture.probed_beside(head, 3, Some(5));
        assert_eq!(fixture.task.nonces.slot(3), None, "not before it is sure");
    }
    fixture.probed_beside(100 + blocks - 1, 3, Some(5));
    assert_eq!([3, 4].map(|nonce| fixture.task.nonces.slot(nonce)), [Some(SlotState::Open); 2]);
    fixture.probed_beside(102 + blocks, 3, Some(5));
    assert!(!fixture.task.suspects_gap());
    // Somebody else's payload comes after all.
    fixture.probed(103 + blocks, 4);
    assert_eq!([3, 4].map(|nonce| fixture.task.nonces.slot(nonce)), [None, Some(SlotState::Open)]);
    assert_eq!(fixture.task.next_nonce(), 4);
}

#[tokio::test]
async fn a_final_slot_that_the_chain_does_not_count_any_more_is_not_opened() {
    let ours = attempt(5, 1);
    let mut fixture = Fixture::new(vec![Record::Floor { account: ACCOUNT, nonce: 3 }, begun(&ours, AttemptState::Committed, None)]).await;
    // The record of what was final may have been pruned, from below.
    for lowest in [3, 4] {
        for head in 100..200 {
            fixture.probed_beside(lowest * 100 + head, 3, Some(lowest));
        }
        assert_eq!(fixture.task.nonces.slot(3), None, "its payload is on record, or was: another one would be a second");
    }
}

#[tokio::test]
async fn after_a_reorg_the_payload_that_was_mined_is_sent_and_not_the_one_that_was_refused() {
    for is_written_first in [true, false] {
        let (old, new, mut fixture) = replaced_by_another().await;
        refuses(&mut fixture, &new);
        fixture.task.sighting(included(&old));
        assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Mined));
        if is_written_first {
            fixture.written().await;
        }
        fixture.task.sighting(Sighting::Orphaned { hash: old.hash });
        fixture.task.act();
        let sent_at = fixture.task.attempts.get(&new.hash).unwrap().sent_at;
        fixture.written().await;
        fixture.task.act();
        assert_eq!((fixture.task.current.get(&3), fixture.task.nonces.slot(3)), (Some(&old.hash), Some(SlotState::Sent)));
        assert!(fixture.task.attempts.get(&old.hash).unwrap().sent_at.is_some());
        assert_eq!(fixture.task.attempts.get(&new.hash).unwrap().sent_at, sent_at, "it was told that it is refused");
        assert_eq!(fixture.refused_payloads(), 0, "nor was it about to be sent");
    }
}

#[tokio::test]
async fn a_nonce_that_is_free_again_after_foreign_use_is_the_older_payloads_if_the_newer_was_refused() {
    let (old, new, mut fixture) = replaced_by_another().await;
    refuses(&mut fixture, &new);
    for attempt in [&old, &new] {
        fixture.task.sighting(Sighting::Absent { hash: attempt.hash });
    }
    fixture.probed(100, 4);
    assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Foreign));
    fixture.written().await;
    fixture.probed(101, 3);
    fixture.task.act();
    assert_eq!((fixture.task.current.get(&3), fixture.task.nonces.slot(3)), (Some(&old.hash), Some(SlotState::Sent)));
    assert_eq!(fixture.task.balance.owed(Owed::Slot(3)), old.cost);
    assert_eq!(fixture.refused_payloads(), 0);
}

#[tokio::test]
async fn a_replacement_that_was_not_committed_leaves_the_slot_to_the_older_payload_if_the_newer_was_refused() {
    let (old, new, mut fixture) = replaced_by_another().await;
    let (submission, _told) = raw(&attempt(3, 3));
    let signed = Some(SignedBytes { raw: Bytes::new(), hash: B256::repeat_byte(3) });
    let pending = Pending { signed, replacement: Some(Replacement::SpeedUp), nonce: 3, ..Pending::new(submission) };
    let now = clock::now();
    fixture.task.tickets.insert(1, pending);
    assert!(fixture.task.nonces.replace(1, 3));
    assert_eq!(fixture.task.nonces.poll(now), Some(Action::Sign { ticket: 1, nonce: 3, replaces: true }));
    fixture.task.nonces.signed(1);
    assert_eq!(fixture.task.nonces.poll(now), Some(Action::Commit(vec![1])));
    refuses(&mut fixture, &new);
    fixture.written().await;
    assert_eq!(fixture.task.nonces.slot(3), Some(SlotState::Reopened));
    fixture.task.commit_finished((vec![1], Err(JournalError::NotWritten("full".into()))));
    assert_eq!(fixture.task.current.get(&3), Some(&old.hash));
    assert!(
        matches!(fixture.task.nonces.slot(3), Some(SlotState::Unsent | SlotState::Sent)),
        "it is not open: the journal would refuse it"
    );
}
