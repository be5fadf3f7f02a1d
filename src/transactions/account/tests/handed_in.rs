//! Bytes that clients hand in: those that they held, and those of which something is being written.

use super::*;

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

/// Of bytes that are handed in nothing is told before what is written about them is durable; then they take their slot again.
async fn are_put_on_record_again(fixture: &mut Fixture, bytes: &Attempt) {
    let (submission, mut told) = raw(bytes);
    fixture.task.submit(submission);
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    fixture.written().await;
    fixture.task.act();
    assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
    assert!(fixture.task.commit.is_some() && fixture.task.handed_in.len() == 0);
}

#[tokio::test]
async fn who_hands_in_bytes_goes_on_like_any_other_once_their_refusal_is_on_record() {
    let (mut fixture, ours) = refusing().await;
    are_put_on_record_again(&mut fixture, &ours).await;
}

#[tokio::test]
async fn who_hands_in_bytes_whose_hold_ends_at_that_moment_takes_the_slot_once_that_is_on_record() {
    let held = Attempt { kind: Kind::SignOnly, hold_until: Some(std::time::UNIX_EPOCH), ..attempt(3, 1) };
    let mut fixture = Fixture::new(vec![begun(&held, AttemptState::Held, None)]).await;
    fixture.probed(100, 3);
    fixture.task.tick(clock::now());
    are_put_on_record_again(&mut fixture, &held).await;
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
