//! I9: whoever has lost an account writes nothing about it.

use super::*;
use crate::journal::history::{History as _, Scope};

fn tenure(account: Account, epoch: Epoch) -> Record {
    Record::Tenure { account, epoch }
}

async fn epoch(fixture: &Fixture, account: Account) -> Epoch {
    fixture.journal.own(account).await.unwrap()
}

fn is_lost<T: std::fmt::Debug>(result: Result<T, JournalError>, account: Account) -> bool {
    match result {
        Err(JournalError::NotOwner { address }) => address == account.address,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn i9_nothing_is_written_about_an_account_that_is_lost() {
    let fixture = Fixture::new();
    let (mine, other) = (account(1), account(2));
    let (mine_epoch, other_epoch) = (epoch(&fixture, mine).await, epoch(&fixture, other).await);
    let (first, second) = (attempt(mine, 0, 1), attempt(mine, 1, 2));
    fixture.commit(vec![tenure(mine, mine_epoch), committed(&first)]).await;
    fixture.commit(vec![tenure(other, other_epoch), committed(&attempt(other, 0, 3))]).await;
    // Behind the writer's back, as another replica would.
    let thief = rusqlite::Connection::open(&fixture.path).unwrap();
    thief.execute("UPDATE accounts SET epoch = epoch + 1 WHERE address = ?1", [mine.address.as_slice()]).unwrap();
    let batches = [
        vec![committed(&second)],
        vec![reached(&first, AttemptState::Broadcast, None)],
        vec![Record::Floor { account: mine, nonce: 9 }],
        vec![Record::Pause { account: mine, by: PauseBy::Operator, reason: Some("x".to_owned()) }],
        vec![Record::Used { account: mine, nonce: 0 }],
    ];
    for batch in batches {
        let records = std::iter::once(tenure(mine, mine_epoch)).chain(batch).collect();
        assert!(is_lost(fixture.journal.commit(records).await, mine));
    }
    assert_eq!(events(&fixture.path), [event(1, 1, 1, "committed"), event(2, 1, 3, "committed")]);
    assert_eq!(fixture.next_nonce(mine).await, 1);
    // The other accounts of the group go on.
    let lost = fixture.journal.commit(vec![tenure(mine, mine_epoch), committed(&second)]);
    let kept = fixture.journal.commit(vec![tenure(other, other_epoch), committed(&attempt(other, 1, 4))]);
    assert!(is_lost(lost.await, mine));
    kept.await.unwrap();
    assert_eq!(fixture.next_nonce(other).await, 2);
}

#[tokio::test]
async fn a_new_tenure_ends_the_one_before_it() {
    let fixture = Fixture::new();
    let mine = account(1);
    let first = epoch(&fixture, mine).await;
    assert_eq!(first, Epoch::FIRST);
    assert!(fixture.journal.account(mine).await.unwrap().is_none(), "owning puts nothing on record");
    // What was called before the new tenure is behind it; what comes later of the old one is refused.
    let release = fixture.hold_writer().await;
    let before = fixture.journal.commit(vec![tenure(mine, first), committed(&attempt(mine, 0, 1))]);
    let second = fixture.journal.own(mine);
    let after = fixture.journal.commit(vec![tenure(mine, first), committed(&attempt(mine, 1, 2))]);
    release.send(()).unwrap();
    before.await.unwrap();
    let second = second.await.unwrap();
    assert!(second > first);
    assert!(is_lost(after.await, mine));
    fixture.commit(vec![tenure(mine, second), committed(&attempt(mine, 1, 2))]).await;
    assert!(epoch(&fixture, mine).await > second);
}

#[tokio::test]
async fn a_tenure_of_an_account_that_is_not_on_record_ends_with_the_next_one() {
    let fixture = Fixture::new();
    let mine = account(1);
    let (first, second) = (epoch(&fixture, mine).await, epoch(&fixture, mine).await);
    assert!(second > first);
    assert!(is_lost(fixture.journal.commit(vec![tenure(mine, first), committed(&attempt(mine, 0, 1))]).await, mine));
    let scope = Scope { chain_id: CHAIN, service: Arc::from("payments"), principal: Arc::from("default") };
    let is_shown = fixture.journal.account_record(scope, mine.address).await.unwrap().is_some();
    assert!(!is_shown && fixture.journal.accounts(CHAIN).await.unwrap().is_empty(), "owning puts nothing on record");
    assert!(fixture.journal.summary().await.unwrap().is_empty());
    fixture.commit(vec![tenure(mine, second), committed(&attempt(mine, 0, 1))]).await;
    assert_eq!(fixture.next_nonce(mine).await, 1);
}
