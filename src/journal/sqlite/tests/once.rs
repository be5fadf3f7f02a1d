//! What is acknowledged before it has an attempt, and idempotency keys.

use super::*;
use crate::journal::history::{Bounds, History as _, ListQuery, Name, Scope, Shown};
use crate::journal::{IdempotencyKey, Intent};
use AttemptState::{Committed, Queued, Refused};

fn intent(attempt: &Attempt) -> Record {
    Record::Intent(Box::new(Intent {
        account: attempt.account,
        transaction: attempt.transaction,
        service: Arc::clone(&attempt.service),
        principal: Arc::clone(&attempt.principal),
        request: Arc::clone(&attempt.request),
    }))
}

fn key(attempt: &Attempt, text: &str, digest: u8) -> Record {
    Record::Key {
        chain_id: CHAIN,
        service: Arc::clone(&attempt.service),
        principal: Arc::clone(&attempt.principal),
        key: IdempotencyKey { key: Arc::from(text), digest: B256::repeat_byte(digest) },
        transaction: attempt.transaction,
    }
}

fn scope() -> Scope {
    Scope { chain_id: CHAIN, service: Arc::from("payments"), principal: Arc::from("default") }
}

impl Fixture {
    async fn key(&self, text: &str) -> Option<StoredIdempotencyKey> {
        self.journal.idempotency_key(Arc::from("payments"), Arc::from("default"), Arc::from(text)).await.unwrap()
    }

    async fn queued(&self, account: Account) -> Vec<TransactionId> {
        let queued = self.journal.queued_ids(account, 100).await.unwrap();
        assert_eq!(self.journal.queued_count(account).await.unwrap(), queued.len() as u64);
        queued
    }

    /// State and hash of each of the transaction's events, and its own state.
    async fn told(&self, id: TransactionId) -> (Vec<(AttemptState, Option<B256>)>, AttemptState) {
        let life = self.journal.life(scope(), Name::Id(id)).await.unwrap().unwrap();
        (life.events.iter().map(|event| (event.state, event.hash)).collect(), life.transaction.state)
    }
}

fn taken(attempt: &Attempt) -> Record {
    Record::Taken { transaction: attempt.transaction }
}

#[tokio::test]
async fn what_is_acknowledged_waits_in_the_order_of_its_ids_until_it_has_an_attempt_or_an_end() {
    let fixture = Fixture::new();
    let attempts: Vec<Attempt> = (0..3).map(|number| attempt(account(1), number, 0xa0 + number as u8)).collect();
    let elsewhere = attempt(account(2), 0, 0xb0);
    for acknowledged in attempts.iter().rev().chain([&elsewhere]) {
        assert_eq!(fixture.commit(vec![intent(acknowledged)]).await.len(), 1);
    }
    let ids: Vec<TransactionId> = attempts.iter().map(|attempt| attempt.transaction).collect();
    assert_eq!(fixture.queued(account(1)).await, ids);
    assert_eq!(fixture.journal.queued_ids(account(1), 2).await.unwrap(), ids[..2]);
    assert_eq!(fixture.told(ids[0]).await, (vec![(Queued, None)], Queued));

    fixture.commit(vec![taken(&attempts[0]), committed(&attempts[0])]).await;
    assert_eq!(fixture.told(ids[0]).await, (vec![(Queued, None), (Committed, Some(attempts[0].hash))], Committed));
    let end = |why: &str| Record::Ended { transaction: ids[1], detail: why.to_owned() };
    assert_eq!(fixture.commit(vec![end("the key is gone")]).await.len(), 1);
    assert_eq!(fixture.told(ids[1]).await, (vec![(Queued, None), (Refused, None)], Refused));
    assert_eq!(fixture.queued(account(1)).await, [ids[2]]);

    let Fixture { journal, path, _directory, .. } = fixture;
    drop(journal);
    let journal = SqliteJournal::open(&path, metrics()).unwrap();
    let left = journal.intent(ids[2]).await.unwrap().unwrap();
    assert_eq!((left.transaction, &left.request, left.account), (ids[2], &attempts[2].request, account(1)));
    for over in &ids[..2] {
        assert_eq!(journal.intent(*over).await.unwrap(), None);
    }
}

/// Whether something of account 1 is ahead of the transaction.
async fn is_behind(fixture: &Fixture, this: &Attempt) -> bool {
    fixture.journal.waits_ahead(account(1), this.transaction).await.unwrap()
}

#[tokio::test]
async fn what_was_asked_for_earlier_is_ahead_until_a_block_has_it_or_it_is_over() {
    use AttemptState::{Broadcast, Confirmed, Held, Included, Orphaned};
    let begun = |attempt: &Attempt, state| match committed(attempt) {
        Record::Attempt { attempt, replaces, takes_over, .. } if state == Held => Record::Attempt { attempt, state, replaces, takes_over },
        record => record,
    };
    for (state, is_ahead) in
        [(Committed, true), (Held, true), (Broadcast, true), (Orphaned, true), (Included, false), (Confirmed, false), (Refused, false)]
    {
        let fixture = Fixture::new();
        let (earlier, this) = (attempt(account(1), 0, 1), attempt(account(1), 1, 2));
        fixture.commit(vec![intent(&this)]).await;
        assert!(!is_behind(&fixture, &this).await, "it is alone");
        let block = matches!(state, Included | Confirmed).then_some(BlockRef { number: 7, hash: B256::ZERO });
        fixture.commit(vec![begun(&earlier, state), reached(&earlier, state, block)]).await;
        assert_eq!(is_behind(&fixture, &this).await, is_ahead, "{state:?}");
        assert!(!is_behind(&fixture, &earlier).await, "what is asked for later is not ahead");
    }
}

#[tokio::test]
async fn what_is_acknowledged_earlier_is_ahead_until_it_has_an_attempt_or_an_end() {
    let fixture = Fixture::new();
    let (earlier, this, elsewhere) = (attempt(account(1), 0, 1), attempt(account(1), 1, 2), attempt(account(2), 0, 3));
    fixture.commit(vec![intent(&this), intent(&earlier), intent(&elsewhere)]).await;
    assert!(is_behind(&fixture, &this).await && !is_behind(&fixture, &earlier).await);
    fixture.commit(vec![Record::Ended { transaction: earlier.transaction, detail: "cancelled".to_owned() }]).await;
    assert!(!is_behind(&fixture, &this).await);
}

#[tokio::test]
async fn a_slot_that_is_mined_by_another_payload_is_not_ahead() {
    let fixture = Fixture::new();
    let (earlier, this) = (attempt(account(1), 0, 1), attempt(account(1), 2, 2));
    let sped_up = Attempt { transaction: earlier.transaction, ..attempt(account(1), 0, 3) };
    fixture.commit(vec![intent(&this), committed(&earlier), replacing(&sped_up, 1)]).await;
    assert!(is_behind(&fixture, &this).await);
    let block = BlockRef { number: 7, hash: B256::ZERO };
    fixture.commit(vec![reached(&earlier, AttemptState::Included, Some(block))]).await;
    assert!(!is_behind(&fixture, &this).await);
}

#[tokio::test]
async fn what_took_a_nonce_of_the_account_by_an_authorisation_is_ahead() {
    let fixture = Fixture::new();
    let (lent, this) = (attempt(account(2), 0, 1), attempt(account(1), 1, 2));
    let lent = Attempt { authorisations: vec![(account(1), 0)], ..lent };
    fixture.commit(vec![intent(&this), committed(&lent)]).await;
    assert!(is_behind(&fixture, &this).await);
    fixture.commit(vec![reached(&lent, AttemptState::Included, Some(BlockRef { number: 7, hash: B256::ZERO }))]).await;
    assert!(!is_behind(&fixture, &this).await);
}

#[tokio::test]
async fn an_acknowledged_transaction_has_one_first_attempt_or_an_end_and_never_both() {
    let fixture = Fixture::new();
    let (first, again) = (attempt(account(1), 0, 0xa0), attempt(account(1), 1, 0xa1));
    let again = Attempt { transaction: first.transaction, ..again };
    let other = attempt(account(1), 2, 0xa2);
    fixture.commit(vec![intent(&first), taken(&first), committed(&first)]).await;
    let refused = fixture.journal.commit(vec![committed(&other), taken(&again), committed(&again)]).await.unwrap_err();
    assert!(matches!(refused, JournalError::NotQueued { transaction } if transaction == first.transaction), "{refused}");
    assert!(fixture.journal.attempt(CHAIN, other.hash).await.unwrap().is_none(), "nothing of the batch was written");
    let end = Record::Ended { transaction: first.transaction, detail: "cancelled".to_owned() };
    assert_eq!(fixture.commit(vec![end]).await, Vec::<i64>::new(), "it has an attempt");

    let ended = attempt(account(1), 1, 0xa3);
    let end = Record::Ended { transaction: ended.transaction, detail: "cancelled".to_owned() };
    assert_eq!(fixture.commit(vec![intent(&ended), end.clone()]).await.len(), 2);
    assert_eq!(fixture.commit(vec![end]).await, Vec::<i64>::new(), "once");
    assert!(fixture.journal.commit(vec![taken(&ended), committed(&ended)]).await.is_err(), "what was ended is never sent");
    let stranger = attempt(account(1), 1, 0xa4);
    assert!(fixture.journal.commit(vec![taken(&stranger), committed(&stranger)]).await.is_err(), "it was never acknowledged");
}

#[tokio::test]
async fn an_export_has_every_key_with_whose_it_is() {
    let fixture = Fixture::new();
    let (first, second) = (attempt(account(1), 0, 0xa0), attempt(account(1), 1, 0xa1));
    fixture.commit(vec![key(&first, "k", 7), committed(&first)]).await;
    fixture.commit(vec![key(&second, "l", 8), intent(&second)]).await;
    let mut output = Vec::new();
    export(&fixture.path, false, &mut output).unwrap();
    let lines: Vec<serde_json::Value> = output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let mut keys: Vec<_> = lines.into_iter().filter(|line| line["type"] == "idempotencyKey").collect();
    keys.sort_by_key(|line| line["key"].to_string());
    assert!(keys.iter().all(|line| line["createdAt"].is_u64()), "{keys:?}");
    let line = |text: &str, digest: u8, of: &Attempt| {
        serde_json::json!({
            "type": "idempotencyKey", "service": "payments", "principal": "default", "key": text, "chainId": CHAIN,
            "digest": B256::repeat_byte(digest), "transactionId": of.transaction.to_string()
        })
    };
    keys.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("createdAt")));
    assert_eq!(keys, [line("k", 7, &first), line("l", 8, &second)]);
}

#[tokio::test]
async fn a_key_stands_for_one_transaction_of_its_principal() {
    let fixture = Fixture::new();
    let (first, second) = (attempt(account(1), 0, 0xa0), attempt(account(1), 1, 0xa1));
    fixture.commit(vec![key(&first, "k", 7), committed(&first)]).await;
    let stored = StoredIdempotencyKey { digest: B256::repeat_byte(7), transaction: first.transaction, first: Some(first.hash) };
    assert_eq!(fixture.key("k").await, Some(stored));
    assert_eq!(fixture.key("K").await, None);
    let late = fixture.journal.commit(vec![key(&second, "k", 7), committed(&second)]).await.unwrap_err();
    assert!(matches!(late, JournalError::KeyTaken { transaction } if transaction == second.transaction), "{late}");
    assert!(fixture.journal.attempt(CHAIN, second.hash).await.unwrap().is_none(), "no second payment");

    let other = Attempt { principal: Arc::from("other"), ..attempt(account(1), 1, 0xa2) };
    fixture.commit(vec![key(&other, "k", 9), committed(&other)]).await;
    assert_eq!(fixture.key("k").await, Some(stored), "another principal's key is its own");
    // A replacement changes nothing of what was told first.
    let bump = Attempt { transaction: first.transaction, ..attempt(account(1), 0, 0xaf) };
    fixture.commit(vec![replacing(&bump, 0xa0)]).await;
    assert_eq!(fixture.key("k").await, Some(stored));
    fixture.journal.forget_chain(CHAIN).await.unwrap();
    assert_eq!(fixture.key("k").await, None);
}

#[tokio::test]
async fn a_key_of_what_is_acknowledged_has_its_hash_later() {
    let fixture = Fixture::new();
    let one = attempt(account(1), 0, 0xa0);
    fixture.commit(vec![key(&one, "k", 1), intent(&one)]).await;
    assert_eq!(fixture.key("k").await.unwrap().first, None);
    fixture.commit(vec![taken(&one), committed(&one)]).await;
    assert_eq!(fixture.key("k").await.unwrap().first, Some(one.hash));
}

#[tokio::test]
async fn lists_and_streams_show_what_is_queued() {
    let fixture = Fixture::new();
    let (queued, sent) = (attempt(account(1), 0, 0xa0), attempt(account(1), 0, 0xa1));
    fixture.commit(vec![intent(&queued)]).await;
    fixture.commit(vec![committed(&sent)]).await;
    let query = ListQuery { from: None, state: Some(Shown::Attempt(Queued)), ascending: true, after: None, limit: 10 };
    let page = fixture.journal.list(scope(), query).await.unwrap();
    assert_eq!(page.transactions.iter().map(|one| (one.id, one.attempt)).collect::<Vec<_>>(), [(queued.transaction, None)]);
    let bounds = Bounds { items: 10, bytes: 1 << 20 };
    let events = fixture.journal.events(scope(), 0, bounds).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.sequence, event.state, event.hash, event.nonce)).collect();
    assert_eq!(told, [(1, Queued, None, None), (2, Committed, Some(sent.hash), Some(0))]);
    assert!(fixture.journal.event(scope(), account(1).address, 1).await.unwrap().is_some());
}

#[tokio::test]
async fn no_attempt_is_ever_queued() {
    let fixture = Fixture::new();
    let one = attempt(account(1), 0, 0xa0);
    fixture.commit(vec![committed(&one)]).await;
    assert!(fixture.journal.commit(vec![reached(&one, Queued, None)]).await.is_err());
    let begins = Record::Attempt { attempt: Box::new(attempt(account(1), 1, 0xa1)), state: Queued, replaces: None, takes_over: Vec::new() };
    assert!(fixture.journal.commit(vec![begins]).await.is_err());
}
