//! Slots that an attempt of another slot takes by an EIP-7702 authorisation.

use super::*;
use AttemptState::{Broadcast, Committed, Confirmed, Refused, Replaced};

const SPONSOR: u8 = 1;
const AUTHORITY: u8 = 2;

fn sponsored(nonce: u64, hash: u8, slots: &[u64]) -> Attempt {
    let mut attempt = attempt(account(SPONSOR), nonce, hash);
    attempt.authorisations = slots.iter().map(|slot| (account(AUTHORITY), *slot)).collect();
    attempt
}

#[tokio::test]
async fn an_authorisation_takes_a_slot_of_its_account() {
    let fixture = Fixture::new();
    let a = sponsored(0, 0xa0, &[4, 5, 4]);
    fixture.commit(vec![Record::Floor { account: account(AUTHORITY), nonce: 4 }, committed(&a)]).await;
    assert_eq!(fixture.next_nonce(account(AUTHORITY)).await, 6);
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Committed, true)]);
    assert_eq!(fixture.hashes(account(SPONSOR)).await, [(a.hash, Committed, true)]);
    let taken = fixture.journal.commit(vec![committed(&attempt(account(AUTHORITY), 5, 0xb0))]).await.unwrap_err();
    assert!(matches!(taken, JournalError::SlotTaken { address, nonce: 5 } if address == account(AUTHORITY).address), "{taken:?}");
    // The other way round: an authorisation cannot take a slot with a payload.
    fixture.commit(vec![committed(&attempt(account(AUTHORITY), 6, 0xb1))]).await;
    let taken = fixture.journal.commit(vec![committed(&sponsored(1, 0xa1, &[6]))]).await.unwrap_err();
    assert!(matches!(taken, JournalError::SlotTaken { address, nonce: 6 } if address == account(AUTHORITY).address), "{taken:?}");
    assert_eq!(fixture.next_nonce(account(SPONSOR)).await, 1);
}

fn used(nonce: u64) -> Record {
    Record::Used { account: account(AUTHORITY), nonce }
}

#[tokio::test]
async fn the_chain_and_not_its_confirmation_uses_the_slots_up() {
    let fixture = Fixture::new();
    let a = sponsored(0, 0xa0, &[0, 1]);
    fixture.commit(vec![committed(&a), reached(&a, Confirmed, Some(block(3, 3)))]).await;
    assert_eq!(fixture.hashes(account(SPONSOR)).await, []);
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Confirmed, true)]);
    assert_eq!(fixture.next_nonce(account(AUTHORITY)).await, 2);
    fixture.commit(vec![used(0)]).await;
    // The second one was skipped: its account takes the slot back.
    let own = attempt(account(AUTHORITY), 1, 0xb1);
    fixture.commit(vec![replacing(&own, 0xa0), used(1)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Confirmed, false), (own.hash, Committed, true)]);
    fixture.commit(vec![reached(&own, Confirmed, None)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, []);
    let taken = fixture.journal.commit(vec![replacing(&attempt(account(AUTHORITY), 0, 0xb0), 0xa0)]).await.unwrap_err();
    assert!(matches!(taken, JournalError::SlotTaken { nonce: 0, .. }), "{taken:?}");
}

#[tokio::test]
async fn a_refused_one_leaves_its_slots_on_record_and_open() {
    let fixture = Fixture::new();
    let a = sponsored(0, 0xa0, &[0]);
    fixture.commit(vec![committed(&a), reached(&a, Refused, None)]).await;
    assert_eq!(fixture.next_nonce(account(AUTHORITY)).await, 1);
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Refused, true)]);
    let filler = attempt(account(AUTHORITY), 0, 0xb0);
    fixture.commit(vec![replacing(&filler, 0xa0)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Refused, false), (filler.hash, Committed, true)]);
    // In its own slot it is the current payload still.
    assert!(fixture.stored(&a).await.current);
    fixture.commit(vec![reached(&filler, Confirmed, None)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, []);
    assert_eq!(fixture.stored(&a).await.state, Refused);
}

#[tokio::test]
async fn a_replaced_one_leaves_its_slots_open_too() {
    let fixture = Fixture::new();
    let (a, b) = (sponsored(0, 0xa0, &[0, 1]), sponsored(0, 0xb0, &[1]));
    fixture.commit(vec![committed(&a), replacing(&b, 0xa0)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Committed, true), (b.hash, Committed, true)]);
    fixture.commit(vec![reached(&b, Confirmed, None), used(1)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Replaced, true)]);
    let next = attempt(account(AUTHORITY), 0, 0xc0);
    fixture.commit(vec![replacing(&next, 0xa0)]).await;
    fixture.commit(vec![reached(&next, Confirmed, None)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, []);
}

#[tokio::test]
async fn own_attempts_of_the_slot_that_may_be_mined_keep_it_unfinished() {
    let fixture = Fixture::new();
    let own = attempt(account(AUTHORITY), 0, 0xb0);
    let a = sponsored(0, 0xa0, &[0]);
    let replacement = Record::Attempt { attempt: Box::new(a.clone()), state: Committed, replaces: Some(own.hash), takes_over: Vec::new() };
    fixture.commit(vec![committed(&own), reached(&own, Broadcast, None), replacement]).await;
    assert!(!fixture.stored(&own).await.current);
    fixture.commit(vec![reached(&a, Confirmed, None)]).await;
    // Which of the two used the nonce up is for the chain to say.
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(own.hash, Broadcast, false), (a.hash, Confirmed, true)]);
    fixture.commit(vec![reached(&own, Replaced, None), used(0)]).await;
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, []);
}

#[tokio::test]
async fn an_own_authorisation_is_listed_with_its_attempt() {
    let fixture = Fixture::new();
    let mut a = attempt(account(SPONSOR), 0, 0xa0);
    a.authorisations = vec![(account(SPONSOR), 1)];
    fixture.commit(vec![committed(&a)]).await;
    assert_eq!(fixture.next_nonce(account(SPONSOR)).await, 2);
    assert_eq!(fixture.hashes(account(SPONSOR)).await, [(a.hash, Committed, true)]);
    let b = attempt(account(SPONSOR), 0, 0xb0);
    fixture.commit(vec![replacing(&b, 0xa0), reached(&b, Confirmed, None)]).await;
    // Slot 0 is done; slot 1 stays open, held by an attempt that can never be mined.
    assert_eq!(fixture.hashes(account(SPONSOR)).await, [(a.hash, Replaced, true)]);
}

#[tokio::test]
async fn the_same_bytes_again_are_listed_once() {
    let fixture = Fixture::new();
    let a = sponsored(0, 0xa0, &[0]);
    fixture.commit(vec![committed(&a), reached(&a, Refused, None)]).await;
    let again = Attempt { transaction: TransactionId::new(), ..a.clone() };
    fixture.commit(vec![replacing(&again, 0xa0)]).await;
    assert_eq!(fixture.stored(&a).await.attempt.authorisations, a.authorisations);
    assert_eq!(fixture.hashes(account(AUTHORITY)).await, [(a.hash, Committed, true)]);
}

#[tokio::test]
async fn slots_of_another_chain_are_not_taken() {
    let fixture = Fixture::new();
    let mut a = attempt(account(SPONSOR), 0, 0xa0);
    a.authorisations = vec![(Account { chain_id: 1, ..account(AUTHORITY) }, 0)];
    let refused = fixture.journal.commit(vec![committed(&a)]).await.unwrap_err();
    assert!(matches!(refused, JournalError::NotWritten(_)), "{refused:?}");
    assert!(fixture.journal.attempt(CHAIN, a.hash).await.unwrap().is_none());
}
