//! What clients read back.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::journal::history::{Bounds, History, ListQuery, MAX_RECEIPT, Name, OpenSlot, Scope, Shown, StoredEvent};
use AttemptState::{Broadcast, Committed, Confirmed, Held, Included, Orphaned, Refused, Replaced};

const ALL: Bounds = Bounds { items: 10_000, bytes: 64 << 20 };

fn scope() -> Scope {
    Scope { chain_id: CHAIN, service: Arc::from("payments"), principal: Arc::from("default") }
}

fn newest(limit: usize) -> ListQuery {
    ListQuery { from: None, state: None, ascending: false, after: None, limit }
}

fn receipt(text: &str) -> Arc<RawValue> {
    Arc::from(RawValue::from_string(text.to_owned()).unwrap())
}

fn included(attempt: &Attempt, block: BlockRef, receipt: Arc<RawValue>) -> Record {
    Record::State {
        account: attempt.account,
        hash: attempt.hash,
        state: Included,
        block: Some(block),
        detail: None,
        receipt: Some(receipt),
    }
}

async fn read(fixture: &Fixture, scope: Scope) -> Vec<(u8, u64, AttemptState)> {
    let events = fixture.journal.events(scope, 0, ALL).await.unwrap();
    events.iter().map(|event| (event.hash.unwrap().0[0], event.nonce.unwrap(), event.state)).collect()
}

#[tokio::test]
async fn i11_events_are_those_of_one_principal_of_one_service_on_one_chain() {
    let fixture = Fixture::new();
    let mine = attempt(account(1), 0, 1);
    let others = Attempt { principal: Arc::from("other"), ..attempt(account(1), 1, 2) };
    let elsewhere = Attempt { service: Arc::from("other"), ..attempt(account(1), 2, 3) };
    let far = attempt(Account { chain_id: 1, ..account(1) }, 0, 4);
    let filler = Attempt { kind: Kind::Filler, service: Arc::from(""), principal: Arc::from(""), ..attempt(account(1), 3, 5) };
    fixture.commit([&mine, &others, &elsewhere, &far, &filler].map(committed).to_vec()).await;
    fixture.commit(vec![reached(&elsewhere, Broadcast, None), reached(&mine, Broadcast, None)]).await;
    assert_eq!(read(&fixture, scope()).await, [(1, 0, Committed), (1, 0, Broadcast)]);
    assert_eq!(read(&fixture, Scope { principal: Arc::from("other"), ..scope() }).await, [(2, 1, Committed)]);
    assert_eq!(read(&fixture, Scope { chain_id: 1, ..scope() }).await, [(4, 0, Committed)]);
    assert_eq!(read(&fixture, Scope { chain_id: u64::MAX, ..scope() }).await, []);
    assert_eq!(read(&fixture, Scope { service: Arc::from("nobody"), ..scope() }).await, []);

    let journal = &fixture.journal;
    for (stranger, name) in [(&others, "principal"), (&elsewhere, "service"), (&far, "chain"), (&filler, "filler")] {
        let event = journal.event(scope(), stranger.account.address, stranger.nonce + 1).await.unwrap();
        assert!(event.is_none_or(|event| event.transaction == mine.transaction), "{name}");
        assert!(journal.life(scope(), Name::Id(stranger.transaction)).await.unwrap().is_none(), "{name}");
        assert!(journal.life(scope(), Name::Hash(stranger.hash)).await.unwrap().is_none(), "{name}");
        assert_eq!(journal.begin_of(scope(), vec![mine.transaction, stranger.transaction]).await.unwrap(), Err(stranger.transaction));
    }
    let listed = journal.list(scope(), newest(100)).await.unwrap().transactions;
    assert_eq!(listed.iter().map(|one| one.id).collect::<Vec<_>>(), [mine.transaction]);
    let from = ListQuery { from: Some(account(1).address), ..newest(100) };
    assert_eq!(journal.list(scope(), from).await.unwrap().transactions, listed);
    assert_eq!(journal.last_event(scope()).await.unwrap().unwrap().state, Broadcast);
}

#[tokio::test]
async fn what_was_mined_instead_is_found_and_a_cancel_is_none_of_it() {
    let fixture = Fixture::new();
    let first = attempt(account(1), 0, 0xa0);
    let faster = Attempt { hash: B256::repeat_byte(0xb0), ..first.clone() };
    let cancel = Attempt { hash: B256::repeat_byte(0xc0), purpose: Purpose::Cancel, ..first.clone() };
    fixture.commit(vec![committed(&first), replacing(&faster, 0xa0), replacing(&cancel, 0xb0)]).await;
    let journal = &fixture.journal;
    let instead = |of: B256| journal.mined_instead(CHAIN, of);
    let block = BlockRef { number: 7, hash: B256::repeat_byte(7) };
    assert_eq!(instead(first.hash).await.unwrap(), None);
    fixture.commit(vec![included(&faster, block, receipt("{}"))]).await;
    assert_eq!(instead(first.hash).await.unwrap(), Some(faster.hash));
    for none in [faster.hash, cancel.hash, B256::ZERO] {
        assert_eq!(instead(none).await.unwrap(), None);
    }
    assert_eq!(journal.mined_instead(1, first.hash).await.unwrap(), None, "another chain");

    // After a reorg the cancel is mined: that is no receipt of a payment.
    fixture.commit(vec![reached(&faster, Orphaned, None), included(&cancel, block, receipt("{}"))]).await;
    assert_eq!(instead(first.hash).await.unwrap(), None);
    let life = journal.life(scope(), Name::Hash(first.hash)).await.unwrap().unwrap();
    assert_eq!((life.transaction.shown(), life.transaction.attempt), (Shown::Cancelled, Some((cancel.hash, 0))));
    let tries: Vec<_> = life.attempts.iter().map(|one| (one.hash.0[0], one.purpose, one.state, one.replaces)).collect();
    let expected = [
        (0xa0, Purpose::Request, Committed, None),
        (0xb0, Purpose::Request, Orphaned, Some(first.hash)),
        (0xc0, Purpose::Cancel, Included, Some(faster.hash)),
    ];
    assert_eq!(tries, expected);
    assert!(life.events.iter().all(|event| (event.purpose == Purpose::Cancel) == (event.hash == Some(cancel.hash))));
    for (state, listed) in [(Shown::Cancelled, 1), (Shown::Attempt(Included), 0)] {
        let query = ListQuery { state: Some(state), ..newest(10) };
        assert_eq!(journal.list(scope(), query).await.unwrap().transactions.len(), listed, "{state:?}");
    }
}

#[tokio::test]
async fn an_event_has_everything_and_its_receipt_is_that_of_its_block() {
    let fixture = Fixture::new();
    let a = attempt(account(7), 3, 0xa0);
    let (first, second) = (receipt(r#"{ "blockHash":"0x01", "odd" : 1.50e+1 }"#), receipt(r#"{"blockHash":"0x02"}"#));
    fixture
        .commit(vec![
            committed(&a),
            included(&a, block(10, 1), Arc::clone(&first)),
            reached(&a, Orphaned, Some(block(10, 1))),
            included(&a, block(11, 2), Arc::clone(&second)),
            reached(&a, Confirmed, None),
        ])
        .await;
    let events = fixture.journal.events(scope(), 0, ALL).await.unwrap();
    let told: Vec<_> =
        events.iter().map(|event| (event.state, event.block, event.receipt.as_ref().map(|receipt| receipt.get().to_owned()))).collect();
    assert_eq!(
        told,
        [
            (Committed, None, None),
            (Included, Some(block(10, 1)), Some(first.get().to_owned())),
            (Orphaned, Some(block(10, 1)), None),
            (Included, Some(block(11, 2)), Some(second.get().to_owned())),
            (Confirmed, Some(block(11, 2)), None),
        ]
    );
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    for event in &events {
        assert_eq!((event.account, event.nonce, event.transaction, event.hash), (a.account, Some(3), a.transaction, Some(a.hash)));
        assert!(event.at > UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        let again = fixture.journal.event(scope(), a.account.address, event.sequence).await.unwrap().unwrap();
        assert_eq!((again.position, again.state, again.at), (event.position, event.state, event.at));
    }
    let life = fixture.journal.life(scope(), Name::Hash(a.hash)).await.unwrap().unwrap();
    assert_eq!(life.receipt.unwrap().get(), second.get());
    assert_eq!((life.transaction.state, life.transaction.block), (Confirmed, Some(block(11, 2))));
    assert_eq!((life.events.len(), life.request.as_str()), (5, r#"{"value":"0x1"}"#));
}

#[tokio::test]
async fn a_receipt_that_is_too_long_is_left_out() {
    let fixture = Fixture::new();
    let (a, b) = (attempt(account(1), 0, 1), attempt(account(1), 1, 2));
    let of_length = |length: usize| receipt(&format!("\"{}\"", "x".repeat(length - 2)));
    fixture.commit(vec![committed(&a), committed(&b)]).await;
    fixture.commit(vec![included(&a, block(1, 1), of_length(MAX_RECEIPT)), included(&b, block(1, 1), of_length(MAX_RECEIPT + 1))]).await;
    let events = fixture.journal.events(scope(), 2, ALL).await.unwrap();
    let lengths: Vec<_> = events.iter().map(|event| event.receipt.as_ref().map(|receipt| receipt.get().len())).collect();
    assert_eq!(lengths, [Some(MAX_RECEIPT), None]);
    // A page ends behind the event that fills it.
    let small = Bounds { items: 100, bytes: 1 };
    assert_eq!(fixture.journal.events(scope(), 2, small).await.unwrap().len(), 1);
}

#[tokio::test]
async fn commits_are_told_once_they_can_be_read() {
    let fixture = Fixture::new();
    let mut commits = fixture.journal.commits();
    commits.mark_unchanged();
    fixture.journal.pin_chain(ChainPin { chain_id: CHAIN, genesis: B256::ZERO }).await.unwrap();
    assert!(!commits.has_changed().unwrap(), "nothing that clients read");
    let commit = fixture.journal.commit(vec![committed(&attempt(account(1), 0, 1))]);
    commits.changed().await.unwrap();
    assert_eq!(read(&fixture, scope()).await.len(), 1);
    commit.await.unwrap();
}

#[tokio::test]
async fn the_attempt_that_counts_speaks_for_a_transaction() {
    let fixture = Fixture::new();
    let a = attempt(account(1), 0, 1);
    let bump = Attempt { hash: B256::repeat_byte(2), ..a.clone() };
    fixture.commit(vec![committed(&a), replacing(&bump, 1)]).await;
    let spokesman = || async { fixture.journal.list(scope(), newest(1)).await.unwrap().transactions[0].clone() };
    assert_eq!(spokesman().await.attempt, Some((bump.hash, 0)), "the newest");
    fixture.commit(vec![reached(&a, Included, Some(block(1, 1)))]).await;
    assert_eq!((spokesman().await.attempt, spokesman().await.state), (Some((a.hash, 0)), Included), "the one that is in a block");
    fixture.commit(vec![reached(&bump, Confirmed, Some(block(2, 2)))]).await;
    assert_eq!((spokesman().await.attempt, spokesman().await.state), (Some((bump.hash, 0)), Confirmed), "the one that is final");
    let life = fixture.journal.life(scope(), Name::Hash(a.hash)).await.unwrap().unwrap();
    assert_eq!(life.transaction, spokesman().await);
    assert_eq!(life.events.last().unwrap().state, Replaced);
}

/// Else a repeated key would tell "refused" of a payment that may still be mined.
#[tokio::test]
async fn a_refused_replacement_does_not_speak_for_a_transaction_that_waits() {
    let fixture = Fixture::new();
    let first = attempt(account(1), 0, 1);
    let faster = Attempt { hash: B256::repeat_byte(2), ..first.clone() };
    let spoken = async || {
        let life = fixture.journal.life(scope(), Name::Id(first.transaction)).await.unwrap().unwrap();
        (life.transaction.attempt, life.transaction.state)
    };
    fixture.commit(vec![committed(&first), reached(&first, Broadcast, None), replacing(&faster, 1)]).await;
    assert_eq!(spoken().await, (Some((faster.hash, 0)), Committed));
    fixture.commit(vec![reached(&faster, Refused, None)]).await;
    assert_eq!(spoken().await, (Some((first.hash, 0)), Broadcast));
    fixture.commit(vec![reached(&first, Refused, None)]).await;
    assert_eq!(spoken().await, (Some((faster.hash, 0)), Refused));
}

#[tokio::test]
async fn bytes_that_another_transaction_took_up_leave_a_refused_one_behind() {
    let fixture = Fixture::new();
    let signed = Attempt { kind: Kind::SignOnly, ..attempt(account(1), 0, 1) };
    let sent = Attempt { kind: Kind::Raw, transaction: TransactionId::new(), request: Arc::from("{}"), ..signed.clone() };
    let held = Record::Attempt { attempt: Box::new(signed.clone()), state: Held, replaces: None, takes_over: Vec::new() };
    fixture.commit(vec![held, reached(&signed, Refused, None), replacing(&sent, 1)]).await;
    let life = fixture.journal.life(scope(), Name::Id(signed.transaction)).await.unwrap().unwrap();
    assert_eq!((life.transaction.attempt, life.transaction.state, life.events.len()), (None, Refused, 2));
    let life = fixture.journal.life(scope(), Name::Hash(signed.hash)).await.unwrap().unwrap();
    assert_eq!((life.transaction.id, life.transaction.state, life.transaction.kind), (sent.transaction, Committed, Kind::Raw));
    assert_eq!(read(&fixture, scope()).await, [(1, 0, Held), (1, 0, Refused), (1, 0, Committed)]);
}

#[tokio::test]
async fn a_list_is_paged_in_order_of_arrival() {
    let fixture = Fixture::new();
    let attempts: Vec<Attempt> = (0..20).map(|i| attempt(account(1 + i % 2), u64::from(i / 2), i)).collect();
    fixture.commit(attempts.iter().map(committed).collect()).await;
    fixture.commit(attempts.iter().step_by(5).map(|a| reached(a, Broadcast, None)).collect()).await;
    for (from, state, ascending, limit) in [
        (None, None, false, 7),
        (None, None, true, 20),
        (Some(account(2).address), None, false, 3),
        (None, Some(Broadcast), true, 1),
        (Some(account(1).address), Some(Broadcast), false, 100),
    ] {
        let mut wanted: Vec<TransactionId> = (0..)
            .zip(&attempts)
            .filter(|(i, a)| from.is_none_or(|from| from == a.account.address) && state.is_none_or(|_| i % 5 == 0))
            .map(|(_, a)| a.transaction)
            .collect();
        if !ascending {
            wanted.reverse();
        }
        let mut told = Vec::new();
        let mut after = None;
        loop {
            let query = ListQuery { from, state: state.map(Shown::Attempt), ascending, after, limit };
            let page = fixture.journal.list(scope(), query).await.unwrap();
            assert!(page.transactions.len() <= limit);
            told.extend(page.transactions.iter().map(|one| one.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(told, wanted, "{from:?} {state:?} {ascending}");
    }
}

#[tokio::test]
async fn an_account_is_told_with_what_is_open() {
    let fixture = Fixture::new();
    let (done, mine) = (attempt(account(1), 5, 1), attempt(account(1), 6, 2));
    let others = Attempt { service: Arc::from("other"), ..attempt(account(1), 7, 3) };
    let floor = Record::Floor { account: account(1), nonce: 5 };
    fixture.commit(vec![floor, committed(&done), committed(&mine), committed(&others)]).await;
    fixture.commit(vec![reached(&done, Confirmed, Some(block(1, 1))), reached(&others, Broadcast, None)]).await;
    fixture.commit(vec![Record::Pause { account: account(1), by: PauseBy::Operator, reason: Some("why".to_owned()) }]).await;
    let record = fixture.journal.account_record(scope(), account(1).address).await.unwrap().unwrap();
    assert_eq!((record.floor, record.next_nonce, record.pauses.words().as_deref()), (5, 8, Some("why")));
    assert_eq!(record.counts, [(Committed, 1), (Broadcast, 1)]);
    let own = Some((mine.transaction, mine.hash));
    let open = [OpenSlot { nonce: 6, state: Committed, own }, OpenSlot { nonce: 7, state: Broadcast, own: None }];
    assert_eq!(record.open, open);
    assert_eq!(fixture.journal.account_record(scope(), account(9).address).await.unwrap(), None);
}

/// A file as the first version left it.
#[tokio::test]
async fn a_journal_of_version_1_upgrades_itself() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../migrations/0001_journal.sql")).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 0x536c7569; PRAGMA user_version = 1;
         INSERT INTO accounts (chain_id, address, last_sequence) VALUES (31337, x'0101010101010101010101010101010101010101', 3);
         INSERT INTO transactions (id, chain_id, address, service, principal, kind, request, created_at) VALUES
             (x'00000000000000000000000000000001', 31337, x'0101010101010101010101010101010101010101', 'payments', 'default', 'send', '{}', 1),
             (x'00000000000000000000000000000002', 31337, x'0101010101010101010101010101010101010101', 'other', 'default', 'send', '{}', 1);",
    )
    .unwrap();
    for (position, id, byte) in [(1, 1, 1_u8), (3, 2, 2)] {
        old.execute(
            "INSERT INTO attempts (position, chain_id, hash, address, nonce, transaction_id, raw, cost, state) VALUES
             (?1, 31337, ?2, x'0101010101010101010101010101010101010101', ?3, ?4, x'02', zeroblob(32), 'broadcast')",
            rusqlite::params![position, [byte; 32], i64::from(byte), id_bytes(id)],
        )
        .unwrap();
    }
    for (sequence, id, byte, state) in [(1, 1, 1_u8, "committed"), (2, 1, 1, "broadcast"), (3, 2, 2, "committed")] {
        old.execute(
            "INSERT INTO events (chain_id, address, sequence, transaction_id, hash, state, at) VALUES
             (31337, x'0101010101010101010101010101010101010101', ?1, ?2, ?3, ?4, 7)",
            rusqlite::params![sequence, id_bytes(id), [byte; 32], state],
        )
        .unwrap();
    }
    drop(old);
    assert!(matches!(SqliteJournal::open_read_only(&path), Err(JournalError::Unusable(text)) if text.contains("start the gateway once")));
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    let events = journal.events(scope(), 0, ALL).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.sequence, event.hash.unwrap().0[0], event.nonce.unwrap(), event.state)).collect();
    assert_eq!(told, [(1, 1, 1, Committed), (2, 1, 1, Broadcast)]);
    assert_eq!(journal.list(scope(), newest(10)).await.unwrap().transactions.len(), 1);
    let a = Attempt { account: account(1), ..attempt(account(1), 9, 9) };
    journal.commit(vec![committed(&a)]).await.unwrap();
    assert_eq!(journal.last_event(scope()).await.unwrap().unwrap().sequence, 4);
}

fn id_bytes(last: u8) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[15] = last;
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pages of any size, read behind each other while others write, are the owner's events, each once and in order.
    #[test]
    fn pages_are_every_own_event_once_and_in_order(
        writes in proptest::collection::vec((0..2_u8, 1..4_usize), 1..30),
        pages in proptest::collection::vec((1..5_usize, 0..2_u8), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            let (mut read, mut position) = (Vec::<StoredEvent>::new(), 0);
            let mut hash = 0;
            let mut writes = writes.into_iter();
            let services = ["payments", "other"];
            for (items, write) in pages.into_iter().chain(std::iter::repeat_n((3, 0), 60)) {
                if write == 1 && let Some((service, count)) = writes.next() {
                    let attempts = (0..count).map(|_| {
                        hash += 1;
                        let service = Arc::from(services[usize::from(service)]);
                        Attempt { service, ..attempt(account(1 + hash % 3), u64::from(hash), hash) }
                    });
                    let records = attempts.flat_map(|a| [committed(&a), reached(&a, Broadcast, None)]).collect();
                    fixture.commit(records).await;
                }
                let page = fixture.journal.events(scope(), position, Bounds { items, bytes: 1 << 20 }).await.unwrap();
                prop_assert!(page.len() <= items);
                position = page.last().map_or(position, |event| event.position);
                read.extend(page);
            }
            let told: Vec<(u8, AttemptState)> = read.iter().map(|event| (event.hash.unwrap().0[0], event.state)).collect();
            let connection = file::open_reader(&fixture.path).unwrap();
            let mut statement = connection.prepare(
                "SELECT e.hash, e.state FROM events e JOIN transactions t ON t.id = e.transaction_id
                 WHERE t.service = 'payments' ORDER BY e.position").unwrap();
            let expected: Vec<(u8, AttemptState)> = statement
                .query_map([], |row| Ok((row.get::<_, [u8; 32]>(0)?[0], row.get::<_, String>(1)?))).unwrap()
                .map(|row| row.map(|(hash, state)| (hash, AttemptState::parse(&state).unwrap())).unwrap()).collect();
            prop_assert_eq!(told, expected);
            Ok(())
        })?;
    }
}
