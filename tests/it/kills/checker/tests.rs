//! Each rule of the checker sees what it is there for.

use super::*;
use crate::kills::ledger::Request;

const ACCOUNT: Address = Address::repeat_byte(1);

fn event(position: u64, state: &str, block: Option<(u64, B256)>) -> Event {
    Event {
        position,
        address: ACCOUNT,
        sequence: position,
        transaction: "a".into(),
        hash: Some(B256::repeat_byte(7)),
        state: state.into(),
        block,
        detail: None,
        service: "payments".into(),
    }
}

/// One transaction that went well.
fn good() -> Evidence {
    let (hash, block) = (B256::repeat_byte(7), (3, B256::repeat_byte(3)));
    let attempt = Attempt {
        position: 1,
        hash,
        address: ACCOUNT,
        nonce: 0,
        transaction: "a".into(),
        replaces: None,
        cancels: false,
        state: "confirmed".into(),
        block: Some(block),
        value: 1_000_000,
    };
    let events = vec![
        event(1, "committed", None),
        event(2, "broadcast", None),
        event(3, "included", Some(block)),
        event(4, "confirmed", Some(block)),
    ];
    let request = Request { operation: "plain", account: ACCOUNT, value: 1_000_000, answer: Answer::Hash(hash), handed_in: false };
    Evidence {
        stream: events.iter().map(told).collect(),
        journal: Journal {
            genesis: Some(B256::ZERO),
            keys: vec![ACCOUNT],
            accounts: vec![super::super::journal::Account { address: ACCOUNT, floor: 0, paused: None }],
            slots: vec![super::super::journal::Slot { address: ACCOUNT, nonce: 0, authorisation: false, done: true }],
            attempts: vec![attempt],
            events,
            queued: Vec::new(),
        },
        mined: vec![Mined { from: ACCOUNT, nonce: 0, hash, value: 1_000_000, block }],
        nonces: [(ACCOUNT, 1)].into(),
        keys: vec![ACCOUNT],
        record: Record { requests: vec![request], ..Record::default() },
        sent: vec![hash],
        looked_up: [(hash, ("confirmed".to_owned(), hash))].into(),
        witnesses: vec![hash],
        ..Evidence::default()
    }
}

fn rules(evidence: &Evidence) -> Vec<Rule> {
    check(evidence).into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn what_went_well_breaks_no_promise() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_hash_that_is_neither_mined_nor_refused_is_lost() {
    let mut evidence = good();
    evidence.mined.clear();
    assert!(rules(&evidence).contains(&Rule::Lost));
    let mut evidence = good();
    evidence.journal.attempts.clear();
    assert!(rules(&evidence).contains(&Rule::Lost) && rules(&evidence).contains(&Rule::NotOnRecord));
}

#[test]
fn a_hash_that_was_told_for_bytes_whose_hold_is_over_is_lost() {
    let mut evidence = good();
    evidence.mined.clear();
    evidence.journal.attempts[0].state = "refused".into();
    evidence.journal.events = vec![event(1, "held", None), Event { detail: Some(HOLD_OVER.into()), ..event(2, "refused", None) }];
    let is_lost = |evidence: &Evidence| rules(evidence).contains(&Rule::Lost);
    assert!(is_lost(&evidence));
    // It was never handed in: nobody's promise.
    let hash = evidence.journal.attempts[0].hash;
    evidence.record.requests[0].answer = Answer::Bytes(hash);
    assert!(!is_lost(&evidence));
    evidence.record.requests[0].answer = Answer::Hash(hash);
    evidence.journal.events[1].detail = Some("intrinsic gas too low".into());
    assert!(!is_lost(&evidence), "a node has refused it");
}

#[test]
fn who_else_has_the_key_may_be_first_and_nobody_else() {
    let mut evidence = good();
    let (other, was) = (B256::repeat_byte(0x77), evidence.mined[0].hash);
    evidence.mined[0] = Mined { hash: other, value: 1, ..evidence.mined[0].clone() };
    evidence.journal.attempts[0].state = "replaced".into();
    let is_lost =
        |evidence: &Evidence| check(evidence).iter().any(|one| one.rule == Rule::Lost && one.to_string().contains(&was.to_string()));
    assert!(is_lost(&evidence));
    evidence.record.foreign.insert(other);
    assert!(!is_lost(&evidence));
    evidence.journal.attempts[0].state = "broadcast".into();
    assert!(is_lost(&evidence), "the record has to say so");
}

#[test]
fn what_the_harness_found_by_itself_is_told() {
    let mut evidence = good();
    evidence.unrest.push("a nonce stays open".into());
    evidence.record.complaints.push("a cursor is not taken".into());
    evidence.record.disobeyed.push("a paused account took a transaction".into());
    assert_eq!(rules(&evidence), [Rule::Stuck, Rule::WrongReport, Rule::Disobeyed]);
}

#[test]
fn a_request_that_is_mined_twice_is_doubled_whatever_it_was_told() {
    let mut evidence = good();
    evidence.record.requests[0].answer = Answer::Nothing;
    evidence.mined.push(Mined { nonce: 1, hash: B256::repeat_byte(8), ..evidence.mined[0].clone() });
    assert!(rules(&evidence).contains(&Rule::Doubled));
}

#[test]
fn an_error_is_a_promise_that_nothing_is_mined() {
    let mut evidence = good();
    evidence.record.requests[0].answer = Answer::Refused { reason: "refused".into(), hash: None, words: "no".into() };
    assert!(rules(&evidence).contains(&Rule::WrongReport));
}

#[test]
fn a_payload_in_the_place_of_one_that_was_not_refused_is_seen() {
    let mut evidence = good();
    let other = Attempt { position: 5, hash: B256::repeat_byte(9), transaction: "b".into(), ..evidence.journal.attempts[0].clone() };
    evidence.journal.attempts.push(other);
    assert!(rules(&evidence).contains(&Rule::TwoPayloads));
}

/// The transaction is replaced by a payload that is mined in its place.
fn replaced(change: Change) -> Evidence {
    let mut evidence = good();
    let (before, after) = (B256::repeat_byte(7), B256::repeat_byte(8));
    let mut newer = Attempt {
        position: 3,
        hash: after,
        replaces: Some(before),
        cancels: change == Change::Cancel,
        ..evidence.journal.attempts[0].clone()
    };
    if newer.cancels {
        newer.value = 0;
    }
    evidence.mined[0] = Mined { hash: after, value: newer.value, ..evidence.mined[0].clone() };
    evidence.journal.attempts[0] = Attempt { state: "replaced".into(), block: None, ..evidence.journal.attempts[0].clone() };
    evidence.journal.attempts.push(newer);
    let of = |event: Event, hash| Event { hash: Some(hash), ..event };
    let block = evidence.mined[0].block;
    evidence.journal.events = vec![
        event(1, "committed", None),
        event(2, "broadcast", None),
        of(event(3, "committed", None), after),
        of(event(4, "included", Some(block)), after),
        of(event(5, "confirmed", Some(block)), after),
        event(6, "replaced", None),
    ];
    evidence.stream = evidence.journal.events.iter().map(told).collect();
    let state = if change == Change::Cancel { "cancelled" } else { "confirmed" };
    evidence.looked_up = [(before, (state.to_owned(), after))].into();
    let outcome = Outcome::Replaced { hash: after, before };
    evidence.record.changes = vec![Changed { change, name: Name::Hash(before), value: 1_000_000, outcome }];
    evidence
}

#[test]
fn a_payload_that_is_sped_up_or_cancelled_as_it_was_told_breaks_no_promise() {
    assert_eq!(check(&replaced(Change::SpeedUp)), []);
    assert_eq!(check(&replaced(Change::Cancel)), []);
}

#[test]
fn a_replacement_is_of_the_transaction_and_was_asked_for() {
    let mut evidence = replaced(Change::SpeedUp);
    evidence.journal.attempts[1].replaces = None;
    assert!(rules(&evidence).contains(&Rule::TwoPayloads));
    let mut evidence = replaced(Change::SpeedUp);
    evidence.journal.attempts[1].transaction = "b".into();
    assert!(rules(&evidence).contains(&Rule::TwoPayloads) && rules(&evidence).contains(&Rule::WrongReport));
    let mut evidence = replaced(Change::Cancel);
    evidence.record.changes[0].outcome = Outcome::Refused { reason: "already_mined".into() };
    assert_eq!(rules(&evidence), [Rule::WrongRecord]);
    let mut evidence = replaced(Change::Cancel);
    evidence.record.changes[0].outcome = Outcome::Ended;
    assert_eq!(rules(&evidence), [Rule::WrongReport]);
}

#[test]
fn what_is_cancelled_and_mined_all_the_same_is_seen() {
    let mut evidence = replaced(Change::Cancel);
    evidence.mined[0] = good().mined[0].clone();
    assert!(rules(&evidence).contains(&Rule::WrongRecord) && rules(&evidence).contains(&Rule::WrongReport));
}

#[test]
fn a_slot_that_is_open_or_left_out_is_a_gap() {
    let mut evidence = good();
    evidence.journal.slots[0].done = false;
    assert_eq!(rules(&evidence), [Rule::Gap]);
    let mut evidence = good();
    evidence.journal.slots[0].nonce = 2;
    evidence.nonces.insert(ACCOUNT, 3);
    assert!(rules(&evidence).contains(&Rule::Gap));
}

#[test]
fn a_stream_that_misses_or_doubles_an_event_is_seen() {
    let mut evidence = good();
    evidence.stream.remove(1);
    assert_eq!(rules(&evidence), [Rule::Stream]);
    let mut evidence = good();
    evidence.stream.insert(1, evidence.stream[0].clone());
    assert_eq!(rules(&evidence), [Rule::Stream]);
}

#[test]
fn an_event_that_comes_twice_or_out_of_order_is_seen() {
    let mut evidence = good();
    evidence.journal.events[1].state = "committed".into();
    assert!(rules(&evidence).contains(&Rule::WrongRecord));
}
