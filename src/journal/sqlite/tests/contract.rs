//! Every sentence of the trait and its records.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use AttemptState::{Broadcast, Committed, Confirmed, Held, Included, Orphaned, Refused, Replaced};

#[tokio::test]
async fn a_floor_is_the_next_nonce_and_is_never_lowered() {
    let fixture = Fixture::new();
    let one = account(1);
    assert_eq!(fixture.journal.account(one).await.unwrap(), None);
    assert_eq!(fixture.commit(vec![Record::Floor { account: one, nonce: 7 }]).await, Vec::<i64>::new());
    assert_eq!(fixture.next_nonce(one).await, 7);
    fixture.commit(vec![Record::Floor { account: one, nonce: 3 }]).await;
    assert_eq!(fixture.next_nonce(one).await, 7);
    fixture.commit(vec![committed(&attempt(one, 7, 0xa7)), committed(&attempt(one, 8, 0xa8))]).await;
    assert_eq!(fixture.next_nonce(one).await, 9);
    fixture.commit(vec![Record::Floor { account: one, nonce: 8 }]).await;
    assert_eq!(fixture.next_nonce(one).await, 9);
    fixture.commit(vec![Record::Floor { account: one, nonce: 20 }]).await;
    assert_eq!(fixture.next_nonce(one).await, 20);
}

#[tokio::test]
async fn accounts_are_those_of_the_chain() {
    let fixture = Fixture::new();
    let elsewhere = Account { chain_id: 1, ..account(3) };
    fixture
        .commit(vec![
            Record::Floor { account: account(2), nonce: 4 },
            Record::Floor { account: elsewhere, nonce: 5 },
            Record::Pause { account: account(1), by: PauseBy::Operator, reason: Some("why".to_owned()) },
        ])
        .await;
    let stored = |account, next_nonce, paused: Option<&str>| {
        let mut pauses = Pauses::default();
        pauses.set(PauseBy::Operator, paused.map(str::to_owned));
        StoredAccount { account, next_nonce, pauses }
    };
    assert_eq!(fixture.journal.accounts(CHAIN).await.unwrap(), [stored(account(1), 0, Some("why")), stored(account(2), 4, None)]);
    assert_eq!(fixture.journal.accounts(1).await.unwrap(), [stored(elsewhere, 5, None)]);
    assert_eq!(fixture.journal.accounts(u64::MAX).await.unwrap(), []);
    fixture.commit(vec![Record::Pause { account: account(1), by: PauseBy::Operator, reason: None }]).await;
    assert_eq!(fixture.journal.account(account(1)).await.unwrap(), None, "nothing is on record of it any more");
}

#[tokio::test]
async fn an_attempt_comes_back_as_it_was() {
    let fixture = Fixture::new();
    let mut held = attempt(account(1), 5, 0xaa);
    held.kind = Kind::SignOnly;
    held.cost = U256::MAX - U256::from(1);
    held.hold_until = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
    held.authorisations = vec![(account(2), 9), (account(3), 0)];
    let record = Record::Attempt { attempt: Box::new(held.clone()), state: Held, replaces: None, takes_over: Vec::new() };
    fixture.commit(vec![record]).await;
    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    let stored = journal.attempt(CHAIN, held.hash).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.block, stored.current), (Held, None, true));
    let back = stored.attempt;
    assert_eq!((back.account, back.nonce, back.transaction, back.kind), (held.account, held.nonce, held.transaction, held.kind));
    assert_eq!((back.service, back.principal, back.request), (held.service, held.principal, held.request));
    assert_eq!((back.hash, back.raw, back.cost), (held.hash, held.raw, held.cost));
    assert_eq!((back.hold_until, back.authorisations), (held.hold_until, held.authorisations));
    assert!(journal.attempt(1, held.hash).await.unwrap().is_none());
    assert!(journal.attempt(CHAIN, B256::ZERO).await.unwrap().is_none());
}

#[tokio::test]
async fn positions_are_of_the_events_alone_and_rise() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 0xa0), attempt(account(2), 0, 0xb0));
    let first = fixture
        .commit(vec![
            Record::Floor { account: account(1), nonce: 0 },
            committed(&a),
            reached(&a, Broadcast, None),
            reached(&a, Broadcast, None),
            committed(&b),
        ])
        .await;
    assert_eq!(first.len(), 3);
    let second = fixture.commit(vec![reached(&b, Broadcast, None)]).await;
    let all: Vec<i64> = first.into_iter().chain(second).collect();
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    assert_eq!(
        events(&fixture.path),
        [event(1, 1, 0xa0, "committed"), event(1, 2, 0xa0, "broadcast"), event(2, 1, 0xb0, "committed"), event(2, 2, 0xb0, "broadcast")]
    );
}

#[tokio::test]
async fn a_state_is_an_event_once_unless_the_block_differs() {
    let fixture = Fixture::new();
    let a = attempt(account(1), 0, 0xa0);
    fixture.commit(vec![committed(&a)]).await;
    let here = block(10, 1);
    assert_eq!(fixture.commit(vec![reached(&a, Included, Some(here))]).await.len(), 1);
    assert_eq!(fixture.commit(vec![reached(&a, Included, Some(here)), reached(&a, Included, None)]).await.len(), 0);
    assert_eq!(fixture.stored(&a).await.block, Some(here));
    let there = block(10, 2);
    assert_eq!(fixture.commit(vec![reached(&a, Included, Some(there))]).await.len(), 1);
    assert_eq!(fixture.stored(&a).await.block, Some(there));
    assert_eq!(fixture.commit(vec![reached(&a, Orphaned, Some(there)), reached(&a, Orphaned, None)]).await.len(), 1);
    let stored = fixture.stored(&a).await;
    assert_eq!((stored.state, stored.block), (Orphaned, None));
    fixture.commit(vec![reached(&a, Included, Some(here)), reached(&a, Confirmed, None)]).await;
    let stored = fixture.stored(&a).await;
    assert_eq!((stored.state, stored.block), (Confirmed, Some(here)));
}

#[tokio::test]
async fn i1_a_slot_has_one_payload_unless_a_replacement_is_recorded() {
    let fixture = Fixture::new();
    let (a, b, c) = (attempt(account(1), 3, 0xa0), attempt(account(1), 3, 0xb0), attempt(account(1), 3, 0xc0));
    fixture.commit(vec![committed(&a)]).await;
    for record in [committed(&b), replacing(&b, 0xcc)] {
        let taken = fixture.journal.commit(vec![committed(&attempt(account(1), 4, 0xd0)), record]).await.unwrap_err();
        assert!(matches!(taken, JournalError::SlotTaken { address, nonce: 3 } if address == account(1).address), "{taken:?}");
    }
    assert_eq!(fixture.hashes(account(1)).await, [(a.hash, Committed, true)]);
    fixture.commit(vec![replacing(&b, 0xa0)]).await;
    let taken = fixture.journal.commit(vec![replacing(&c, 0xa0)]).await.unwrap_err();
    assert!(matches!(taken, JournalError::SlotTaken { nonce: 3, .. }), "{taken:?}");
    assert_eq!(fixture.hashes(account(1)).await, [(a.hash, Committed, false), (b.hash, Committed, true)]);
    assert!(!fixture.stored(&a).await.current);
    assert!(fixture.stored(&b).await.current);
    // Another chain is another slot.
    let mut elsewhere = attempt(account(1), 3, 0xa0);
    elsewhere.account.chain_id = 1;
    fixture.commit(vec![committed(&elsewhere)]).await;
}

#[tokio::test]
async fn a_refused_replacement_gives_its_slot_back() {
    let fixture = Fixture::new();
    let (a, b, c) = (attempt(account(1), 3, 0xa0), attempt(account(1), 3, 0xb0), attempt(account(1), 3, 0xc0));
    fixture.commit(vec![committed(&a), replacing(&b, 0xa0), replacing(&c, 0xb0)]).await;
    // One that is not the slot's payload changes nothing.
    fixture.commit(vec![reached(&b, Refused, None)]).await;
    assert!(fixture.stored(&c).await.current);
    fixture.commit(vec![reached(&c, Refused, None)]).await;
    assert_eq!(fixture.hashes(account(1)).await, [(a.hash, Committed, true), (b.hash, Refused, false), (c.hash, Refused, false)]);
    // Without another one the slot stays with what was refused: whoever takes it says so.
    fixture.commit(vec![reached(&a, Refused, None)]).await;
    assert!(fixture.stored(&a).await.current);
    fixture.commit(vec![replacing(&attempt(account(1), 3, 0xd0), 0xa0)]).await;
}

#[tokio::test]
async fn a_confirmed_attempt_ends_its_rivals_in_the_same_commit() {
    let fixture = Fixture::new();
    let (a, b, c) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xb0), attempt(account(1), 0, 0xc0));
    let above = attempt(account(1), 1, 0xd0);
    fixture.commit(vec![committed(&a), replacing(&b, 0xa0), replacing(&c, 0xb0), committed(&above)]).await;
    let here = block(10, 1);
    let positions = fixture.commit(vec![reached(&b, Confirmed, Some(here))]).await;
    assert_eq!(positions.len(), 1);
    assert_eq!(fixture.stored(&b).await.block, Some(here));
    for rival in [&a, &c] {
        let stored = fixture.stored(rival).await;
        assert_eq!((stored.state, stored.block), (Replaced, None));
    }
    let told = events(&fixture.path);
    assert_eq!(told[4..], [event(1, 5, 0xb0, "confirmed"), event(1, 6, 0xa0, "replaced"), event(1, 7, 0xc0, "replaced")]);
    assert_eq!(fixture.hashes(account(1)).await, [(above.hash, Committed, true)]);
    assert_eq!(fixture.next_nonce(account(1)).await, 2);
    // The slot is used up.
    let taken = fixture.journal.commit(vec![replacing(&attempt(account(1), 0, 0xee), 0xc0)]).await.unwrap_err();
    assert!(matches!(taken, JournalError::SlotTaken { nonce: 0, .. }), "{taken:?}");
}

#[tokio::test]
async fn what_was_refused_stays_refused_once_its_slot_is_used_up() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xb0));
    fixture.commit(vec![committed(&a), reached(&a, Refused, None), replacing(&b, 0xa0)]).await;
    fixture.commit(vec![reached(&b, Confirmed, Some(block(5, 5)))]).await;
    let before = events(&fixture.path);
    assert_eq!(before[3..], [event(1, 4, 0xb0, "confirmed")]);
    // That was the last word: what comes late of it says nothing.
    for state in [Broadcast, Included, Orphaned, Replaced] {
        assert_eq!(fixture.commit(vec![reached(&a, state, None)]).await, Vec::<i64>::new());
    }
    assert_eq!(fixture.stored(&a).await.state, Refused);
    assert_eq!(events(&fixture.path), before);
    // The chain used the nonce for something that is not on record.
    let c = attempt(account(1), 1, 0xc0);
    fixture.commit(vec![committed(&c), reached(&c, Refused, None)]).await;
    assert_eq!(fixture.hashes(account(1)).await, [(c.hash, Refused, true)]);
    assert_eq!(fixture.commit(vec![reached(&c, Replaced, None)]).await, Vec::<i64>::new());
    assert_eq!(fixture.hashes(account(1)).await, []);
    assert_eq!(fixture.stored(&c).await.state, Refused);
    // Before that a node may have had the bytes after all.
    let d = attempt(account(1), 2, 0xd0);
    fixture.commit(vec![committed(&d), reached(&d, Refused, None), reached(&d, Included, Some(block(6, 6)))]).await;
    assert_eq!(fixture.stored(&d).await.state, Included);
}

#[tokio::test]
async fn nothing_changes_a_final_state() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xb0));
    fixture.commit(vec![committed(&a), replacing(&b, 0xa0), reached(&b, Confirmed, Some(block(5, 5)))]).await;
    for state in AttemptState::ALL.into_iter().filter(|state| *state != AttemptState::Queued) {
        let late = vec![reached(&a, state, Some(block(6, 6))), reached(&b, state, Some(block(6, 6)))];
        assert_eq!(fixture.commit(late).await, Vec::<i64>::new());
    }
    assert_eq!(fixture.stored(&a).await.state, Replaced);
    assert_eq!((fixture.stored(&b).await.state, fixture.stored(&b).await.block), (Confirmed, Some(block(5, 5))));
}

#[tokio::test]
async fn a_slot_whose_attempts_are_all_replaced_is_done() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xb0));
    fixture.commit(vec![committed(&a), replacing(&b, 0xa0)]).await;
    fixture.commit(vec![reached(&b, Replaced, None)]).await;
    assert_eq!(fixture.hashes(account(1)).await, [(a.hash, Committed, false), (b.hash, Replaced, true)]);
    fixture.commit(vec![reached(&a, Replaced, None)]).await;
    assert_eq!(fixture.hashes(account(1)).await, []);
    assert_eq!(fixture.next_nonce(account(1)).await, 1);
}

#[tokio::test]
async fn refused_bytes_may_come_again_to_their_slot() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xb0));
    fixture.commit(vec![committed(&a)]).await;
    let again = Attempt { transaction: TransactionId::new(), kind: Kind::Raw, ..a.clone() };
    let early = fixture.journal.commit(vec![replacing(&again, 0xa0)]).await.unwrap_err();
    assert!(matches!(early, JournalError::NotWritten(_)), "{early:?}");
    fixture.commit(vec![reached(&a, Refused, None), replacing(&b, 0xa0)]).await;
    fixture.commit(vec![replacing(&again, 0xb0)]).await;
    assert_eq!(fixture.hashes(account(1)).await, [(b.hash, Committed, false), (a.hash, Committed, true)]);
    let stored = fixture.stored(&a).await;
    assert_eq!((stored.attempt.transaction, stored.attempt.kind), (again.transaction, Kind::Raw));
    // Never to another slot.
    let moved = Attempt { nonce: 1, transaction: TransactionId::new(), ..a.clone() };
    fixture.commit(vec![reached(&a, Refused, None)]).await;
    let refused = fixture.journal.commit(vec![committed(&moved)]).await.unwrap_err();
    assert!(matches!(refused, JournalError::NotWritten(_)), "{refused:?}");
}

#[tokio::test]
async fn a_transaction_has_one_owner_for_life() {
    let fixture = Fixture::new();
    let a = attempt(account(1), 0, 0xa0);
    fixture.commit(vec![committed(&a)]).await;
    let bump = Attempt { hash: B256::repeat_byte(0xb0), ..a.clone() };
    for stolen in [
        Attempt { principal: Arc::from("other"), ..bump.clone() },
        Attempt { service: Arc::from("other"), ..bump.clone() },
        Attempt { kind: Kind::Filler, ..bump.clone() },
        Attempt { account: account(2), ..bump.clone() },
    ] {
        let refused = fixture.journal.commit(vec![replacing(&stolen, 0xa0)]).await.unwrap_err();
        assert!(matches!(refused, JournalError::NotWritten(_)), "{refused:?}");
    }
    fixture.commit(vec![replacing(&bump, 0xa0)]).await;
    assert_eq!(fixture.stored(&bump).await.attempt.transaction, a.transaction);
}

#[tokio::test]
async fn what_cannot_be_applied_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let a = attempt(account(1), 0, 0xa0);
    fixture.commit(vec![committed(&a)]).await;
    let beyond = Account { chain_id: 1 << 63, ..account(1) };
    let stranger = attempt(account(1), 5, 0xee);
    let wrong_account = Record::State { account: account(2), hash: a.hash, state: Broadcast, block: None, detail: None, receipt: None };
    let begins_late = Record::Attempt { attempt: Box::new(stranger.clone()), state: Broadcast, replaces: None, takes_over: Vec::new() };
    for bad in [
        committed(&attempt(beyond, 0, 0xb0)),
        committed(&attempt(account(1), (1 << 63) - 1, 0xb0)),
        committed(&attempt(account(1), u64::MAX, 0xb0)),
        Record::Floor { account: account(1), nonce: 1 << 63 },
        reached(&a, Included, Some(block(u64::MAX, 1))),
        reached(&stranger, Broadcast, None),
        wrong_account,
        begins_late,
    ] {
        let good = committed(&attempt(account(1), 1, 0xc0));
        let error = fixture.journal.commit(vec![Record::Floor { account: account(9), nonce: 1 }, good, bad]).await.unwrap_err();
        assert!(matches!(error, JournalError::NotWritten(_)), "{error:?}");
    }
    assert_eq!(fixture.hashes(account(1)).await, [(a.hash, Committed, true)]);
    assert_eq!(fixture.journal.account(account(9)).await.unwrap(), None);
    assert_eq!(events(&fixture.path).len(), 1);
    fixture.commit(vec![committed(&attempt(account(2), (1 << 63) - 2, 0xd0))]).await;
    assert_eq!(fixture.next_nonce(account(2)).await, (1 << 63) - 1);
}

#[tokio::test]
async fn unfinished_is_in_order_of_nonce_and_commit() {
    let fixture = Fixture::new();
    let (low, high, newer) = (attempt(account(1), 3, 1), attempt(account(1), 4, 2), attempt(account(1), 3, 3));
    fixture.commit(vec![committed(&high), committed(&low), replacing(&newer, 1), committed(&attempt(account(2), 3, 4))]).await;
    let order: Vec<B256> = fixture.hashes(account(1)).await.into_iter().map(|(hash, ..)| hash).collect();
    assert_eq!(order, [low.hash, newer.hash, high.hash]);
}

#[tokio::test]
async fn unconfirmed_is_one_principals_oldest_first_without_fillers() {
    let fixture = Fixture::new();
    let a = attempt(account(1), 0, 1);
    let bumped = Attempt { hash: B256::repeat_byte(2), ..a.clone() };
    let earlier = attempt(account(2), 7, 3);
    let refused = attempt(account(2), 8, 4);
    let filler = Attempt { kind: Kind::Filler, ..attempt(account(2), 9, 5) };
    let done = attempt(account(3), 0, 6);
    let others = Attempt { principal: Arc::from("other"), ..attempt(account(3), 1, 7) };
    let elsewhere = Attempt { service: Arc::from("other"), ..attempt(account(3), 2, 8) };
    fixture.commit(vec![committed(&earlier), committed(&a), committed(&refused), committed(&filler), committed(&done)]).await;
    fixture
        .commit(vec![
            committed(&others),
            committed(&elsewhere),
            replacing(&bumped, 1),
            reached(&refused, Refused, None),
            reached(&done, Confirmed, Some(block(1, 1))),
            reached(&earlier, Included, Some(block(1, 1))),
        ])
        .await;
    let mine = fixture.journal.unconfirmed(CHAIN, Arc::from("payments"), Arc::from("default")).await.unwrap();
    let mine: Vec<_> = mine.iter().map(|stored| (stored.attempt.hash, stored.state, stored.current)).collect();
    assert_eq!(mine, [(earlier.hash, Included, true), (refused.hash, Refused, true), (bumped.hash, Committed, true)]);
    assert!(fixture.journal.unconfirmed(1, Arc::from("payments"), Arc::from("default")).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_chain_is_pinned_once_and_forgotten_whole() {
    let fixture = Fixture::new();
    let pin = ChainPin { chain_id: CHAIN, genesis: B256::repeat_byte(1) };
    assert_eq!(fixture.journal.chain(CHAIN).await.unwrap(), None);
    fixture.journal.pin_chain(pin.clone()).await.unwrap();
    fixture.journal.pin_chain(pin.clone()).await.unwrap();
    assert_eq!(fixture.journal.chain(CHAIN).await.unwrap(), Some(pin.clone()));
    let restarted = ChainPin { chain_id: CHAIN, genesis: B256::repeat_byte(2) };
    let error = fixture.journal.pin_chain(restarted.clone()).await.unwrap_err();
    assert!(matches!(&error, JournalError::Unusable(text) if text.contains("31337")), "{error:?}");

    let kept = Account { chain_id: 1, ..account(1) };
    let mut sponsored = attempt(account(1), 1, 2);
    sponsored.authorisations = vec![(account(2), 0)];
    let before = fixture.commit(vec![committed(&attempt(account(1), 0, 1)), committed(&sponsored), committed(&attempt(kept, 0, 3))]).await;
    let key = StoredKey { arn: "arn:one".to_owned(), spki: vec![1, 2], address: account(1).address };
    fixture.journal.put_key(key.clone()).await.unwrap();
    assert_eq!(fixture.journal.forget_chain(CHAIN).await.unwrap(), 2);
    assert_eq!(fixture.journal.chain(CHAIN).await.unwrap(), None);
    assert_eq!(fixture.journal.accounts(CHAIN).await.unwrap(), []);
    assert!(fixture.journal.attempt(CHAIN, sponsored.hash).await.unwrap().is_none());
    assert_eq!(fixture.journal.keys().await.unwrap(), [key]);
    assert_eq!(fixture.next_nonce(kept).await, 1);
    assert_eq!(events(&fixture.path), [event(1, 1, 3, "committed")]);
    // A new life of the chain: positions are not used again.
    fixture.journal.pin_chain(restarted).await.unwrap();
    let after = fixture.commit(vec![committed(&attempt(account(1), 0, 1))]).await;
    assert!(after[0] > before[2]);
    assert_eq!(fixture.journal.forget_chain(99).await.unwrap(), 0);
}

#[tokio::test]
async fn a_key_is_on_record_for_life() {
    let fixture = Fixture::new();
    let key = |arn: &str, byte| StoredKey { arn: arn.to_owned(), spki: vec![byte; 88], address: Address::repeat_byte(byte) };
    fixture.journal.put_key(key("b", 2)).await.unwrap();
    fixture.journal.put_key(key("a", 1)).await.unwrap();
    fixture.journal.put_key(key("a", 1)).await.unwrap();
    let error = fixture.journal.put_key(key("a", 3)).await.unwrap_err();
    assert!(matches!(error, JournalError::Unusable(_)), "{error:?}");
    assert_eq!(fixture.journal.keys().await.unwrap(), [key("a", 1), key("b", 2)]);
}

#[tokio::test]
async fn the_summary_counts_attempts_by_state() {
    let fixture = Fixture::new();
    let (a, b, c) = (attempt(account(1), 0, 1), attempt(account(1), 1, 2), attempt(account(1), 2, 3));
    fixture.commit(vec![committed(&a), committed(&b), committed(&c), Record::Floor { account: account(2), nonce: 9 }]).await;
    fixture.commit(vec![reached(&a, Confirmed, None), reached(&b, Broadcast, None), reached(&c, Broadcast, None)]).await;
    let stored = |account, next_nonce| StoredAccount { account, next_nonce, pauses: Pauses::default() };
    assert_eq!(
        fixture.journal.summary().await.unwrap(),
        [
            AccountSummary { account: stored(account(1), 3), attempts: vec![(Broadcast, 2), (Confirmed, 1)] },
            AccountSummary { account: stored(account(2), 9), attempts: vec![] },
        ]
    );
}

#[tokio::test]
async fn the_next_slot_on_record_is_found_whatever_its_state() {
    let fixture = Fixture::new();
    let (low, high) = (attempt(account(1), 3, 1), attempt(account(1), 7, 2));
    fixture.commit(vec![committed(&low), committed(&high), reached(&low, AttemptState::Confirmed, Some(block(1, 1)))]).await;
    let mut found = Vec::new();
    for from in [0, 3, 4, 7, 8, u64::MAX] {
        found.push(fixture.journal.next_slot(account(1), from).await.unwrap());
    }
    assert_eq!(found, [Some(3), Some(3), Some(7), Some(7), None, None]);
    assert_eq!(fixture.journal.next_slot(account(2), 0).await.unwrap(), None);
}
