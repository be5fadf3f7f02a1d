//! [`History`] on SQLite: each read in one snapshot on a connection of its own.

use alloy_primitives::{Address, B256};
use tokio::sync::watch;

use super::{SqliteJournal, events, transactions};
use crate::journal::TransactionId;
use crate::journal::history::{AccountRecord, Answer, Bounds, History, Life, ListPage, ListQuery, Name, Scope, StoredEvent};

impl History for SqliteJournal {
    fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    fn events(&self, scope: Scope, position: i64, bounds: Bounds) -> Answer<Vec<StoredEvent>> {
        self.read(move |connection| events::page(connection, &scope, position, bounds))
    }

    fn event(&self, scope: Scope, address: Address, sequence: u64) -> Answer<Option<StoredEvent>> {
        self.read(move |connection| events::numbered(connection, &scope, address, sequence))
    }

    fn last_event(&self, scope: Scope) -> Answer<Option<StoredEvent>> {
        self.read(move |connection| events::last(connection, &scope))
    }

    fn begin_of(&self, scope: Scope, ids: Vec<TransactionId>) -> Answer<Result<i64, TransactionId>> {
        self.read(move |connection| transactions::begin_of(connection, &scope, &ids))
    }

    fn life(&self, scope: Scope, name: Name) -> Answer<Option<Life>> {
        self.read(move |connection| transactions::life(connection, &scope, name))
    }

    fn mined_instead(&self, chain_id: u64, hash: B256) -> Answer<Option<B256>> {
        self.read(move |connection| transactions::mined_instead(connection, chain_id, hash))
    }

    fn list(&self, scope: Scope, query: ListQuery) -> Answer<ListPage> {
        self.read(move |connection| transactions::list(connection, &scope, &query))
    }

    fn account_record(&self, scope: Scope, address: Address) -> Answer<Option<AccountRecord>> {
        self.read(move |connection| transactions::account(connection, &scope, address))
    }
}
