//! From the wish for a signature to the commit: deadlines, windows, what is counted, and what shares a commit.

use super::*;

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
async fn no_more_wait_for_a_nonce_than_begin_within_their_deadline() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let (hour, now) = (Duration::from_secs(3_600), clock::now());
    task.room = Room::new(hour);
    task.room.note(true, now);
    (0..2).for_each(|_| task.room.turned(now + hour / 2));
    assert_eq!(task.room.size(now + hour), Some(2));
    let mut submit = |submission: Submission| {
        let (sender, mut told) = oneshot::channel();
        let reply = raw(&attempt(3, 1)).0.reply.map(|reply| Reply { sender, ..reply });
        task.submit(Submission { reply, ..submission });
        told.try_recv().ok().and_then(Result::err)
    };
    assert!(submit(unsigned()).is_none() && submit(unsigned()).is_none());
    assert!(matches!(submit(unsigned()), Some(TransactionError::Crowded(_))));
    assert!(submit(raw(&attempt(9, 9)).0).is_none(), "its turn is that of its nonce");
    assert!(submit(Submission { acknowledged: true, ..unsigned() }).is_none(), "it has no deadline");
    assert!(matches!(submit(unsigned()), Some(TransactionError::Crowded(_))));
}

#[tokio::test]
async fn a_request_that_waits_for_its_own_nonce_makes_no_crowd() {
    let mut fixture = Fixture::new(Vec::new()).await;
    let task = &mut fixture.task;
    let (hour, now) = (Duration::from_secs(3_600), clock::now());
    task.nonces.enqueue(77, Wish::Given(9), 1, now + hour).unwrap();
    task.room = Room::new(hour);
    task.room.note(true, now);
    task.room.turned(now + hour / 2);
    assert_eq!(task.room.size(now + hour), Some(1));
    task.act();
    assert_eq!((task.nonces.queued(), task.room.size(now + hour)), (1, None), "nobody waits for a turn");
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
