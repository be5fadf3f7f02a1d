//! Whose a slot is, whatever was refused, replaced, mined, lost or used by somebody else.

use super::*;

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
