//! What commands that only look at keys have for a journal: the public keys on record, and those asked meanwhile in memory.

use std::sync::{Arc, Mutex, PoisonError};

use alloy_primitives::B256;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::{
    Account, AccountSummary, ChainPin, DiscoveredKey, DiscoveryChange, DiscoveryName, Epoch, Intent, Journal, JournalError, Record,
    StoredAccount, StoredAttempt, StoredIdempotencyKey, StoredKey, TransactionId,
};

/// Reads keys and pins from `base` (a journal opened for reading, if there is one) and writes nothing.
#[derive(Debug, Default)]
pub struct KeysOnly {
    base: Option<Arc<dyn Journal>>,
    asked: Mutex<Vec<StoredKey>>,
}

impl KeysOnly {
    /// Over a journal that is there, or over none.
    pub fn new(base: Option<Arc<dyn Journal>>) -> Self {
        Self { base, asked: Mutex::new(Vec::new()) }
    }
}

type Answer<T> = BoxFuture<'static, Result<T, JournalError>>;

fn refuse<T: Send + 'static>() -> Answer<T> {
    ready(Err(JournalError::NotWritten("this command writes nothing".into()))).boxed()
}

impl Journal for KeysOnly {
    fn commit(&self, _: Vec<Record>) -> Answer<Vec<i64>> {
        refuse()
    }

    fn own(&self, _: Account) -> Answer<Epoch> {
        refuse()
    }

    fn accounts(&self, chain_id: u64) -> Answer<Vec<StoredAccount>> {
        self.base.as_ref().map_or_else(|| ready(Ok(Vec::new())).boxed(), |base| base.accounts(chain_id))
    }

    fn account(&self, account: Account) -> Answer<Option<StoredAccount>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.account(account))
    }

    fn unfinished(&self, account: Account) -> Answer<Vec<StoredAttempt>> {
        self.base.as_ref().map_or_else(|| ready(Ok(Vec::new())).boxed(), |base| base.unfinished(account))
    }

    fn next_slot(&self, account: Account, from: u64) -> Answer<Option<u64>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.next_slot(account, from))
    }

    fn attempt(&self, chain_id: u64, hash: B256) -> Answer<Option<StoredAttempt>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.attempt(chain_id, hash))
    }

    fn unconfirmed(&self, chain_id: u64, service: Arc<str>, principal: Arc<str>) -> Answer<Vec<StoredAttempt>> {
        self.base.as_ref().map_or_else(|| ready(Ok(Vec::new())).boxed(), |base| base.unconfirmed(chain_id, service, principal))
    }

    fn queued_ids(&self, account: Account, limit: usize) -> Answer<Vec<TransactionId>> {
        self.base.as_ref().map_or_else(|| ready(Ok(Vec::new())).boxed(), |base| base.queued_ids(account, limit))
    }

    fn queued_count(&self, account: Account) -> Answer<u64> {
        self.base.as_ref().map_or_else(|| ready(Ok(0)).boxed(), |base| base.queued_count(account))
    }

    fn intent(&self, transaction: TransactionId) -> Answer<Option<Intent>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.intent(transaction))
    }

    fn waits_ahead(&self, account: Account, transaction: TransactionId) -> Answer<bool> {
        self.base.as_ref().map_or_else(|| ready(Ok(false)).boxed(), |base| base.waits_ahead(account, transaction))
    }

    fn idempotency_key(&self, service: Arc<str>, principal: Arc<str>, key: Arc<str>) -> Answer<Option<StoredIdempotencyKey>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.idempotency_key(service, principal, key))
    }

    fn chain(&self, chain_id: u64) -> Answer<Option<ChainPin>> {
        self.base.as_ref().map_or_else(|| ready(Ok(None)).boxed(), |base| base.chain(chain_id))
    }

    fn pin_chain(&self, _: ChainPin) -> Answer<()> {
        refuse()
    }

    fn forget_chain(&self, _: u64) -> Answer<u64> {
        refuse()
    }

    fn keys(&self) -> Answer<Vec<StoredKey>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let base = self.base.clone();
        async move {
            let mut keys = match base {
                Some(base) => base.keys().await?,
                None => Vec::new(),
            };
            keys.extend(asked);
            Ok(keys)
        }
        .boxed()
    }

    fn put_key(&self, key: StoredKey) -> Answer<()> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        ready(Ok(())).boxed()
    }

    /// Commands ask the key stores anew.
    fn discovery(&self, _: DiscoveryName) -> Answer<Option<Vec<DiscoveredKey>>> {
        ready(Ok(None)).boxed()
    }

    fn change_discovery(&self, _: DiscoveryChange) -> Answer<()> {
        refuse()
    }

    fn keep_discoveries(&self, _: Vec<DiscoveryName>) -> Answer<()> {
        refuse()
    }

    fn summary(&self) -> Answer<Vec<AccountSummary>> {
        self.base.as_ref().map_or_else(|| ready(Ok(Vec::new())).boxed(), |base| base.summary())
    }
}
