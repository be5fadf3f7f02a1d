//! The account of a restored journal.

use super::*;

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
