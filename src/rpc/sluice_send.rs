//! `sluice_sendTransaction`: a transaction with its idempotency key, and how far the answer waits for it.

use std::fmt;
use std::sync::Arc;

use alloy_primitives::B256;
use jsonrpsee::types::Params;
use jsonrpsee::{Extensions, RpcModule};
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::arguments::Arguments;
use super::eth::{Answer, Raw, raw};
use super::idempotency::conflict;
use super::refusals::refusal;
use super::send::{Call, claim, on_record, send, usable_key};
use super::service::{Service, principal, waited_all};
use super::waiting::{Target, named, receipt, timeout, until};
use crate::journal::history::Life;
use crate::journal::{Account, Intent, Kind, Purpose, TransactionId};
use crate::subscriptions::lifecycle::view::{BlockView, SlotView};
use crate::transactions::errors::TransactionError;
use crate::transactions::idempotency::Claimed;
use crate::transactions::request::MEMBERS;

/// Registers the method.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_async_method("sluice_sendTransaction", |params, service, extensions| async move {
        send_transaction(&params, &service, &extensions).await
    })?;
    Ok(())
}

/// How far the answer waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum WaitFor {
    Queued,
    #[default]
    Broadcast,
    Included,
    Confirmed,
}

/// The members beside those of the transaction. Any other one is an error, unlike geth's: an idempotency key that was misspelled is a
/// second payment.
#[derive(Debug, Default)]
struct Options<'a> {
    wait_for: Option<WaitFor>,
    timeout: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Options<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Options<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a transaction")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Options<'de>, A::Error> {
                let mut options = Options::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "waitFor" if options.wait_for.is_some() => return Err(de::Error::duplicate_field("waitFor")),
                        "waitFor" => options.wait_for = Some(map.next_value()?),
                        "timeout" if options.timeout.is_some() => return Err(de::Error::duplicate_field("timeout")),
                        "timeout" => options.timeout = map.next_value()?,
                        name if MEMBERS.contains(&name) => drop(map.next_value::<IgnoredAny>()?),
                        name => return Err(de::Error::custom(format_args!("{name} is no member of what sluice_sendTransaction takes"))),
                    }
                }
                Ok(options)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[derive(Serialize)]
struct SentView {
    id: String,
    hash: Option<B256>,
    state: &'static str,
    slot: Option<SlotView>,
    block: Option<BlockView>,
    /// Only of what is in a block and was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Raw>,
}

impl SentView {
    /// `first` is the hash that was told first.
    fn new(life: &Life, first: Option<B256>, receipt: Option<Raw>) -> Self {
        let transaction = &life.transaction;
        Self {
            id: transaction.id.to_string(),
            hash: first.or_else(|| named(life)),
            state: transaction.shown().as_str(),
            slot: transaction.attempt.map(|(_, nonce)| SlotView::new(transaction.account, nonce)),
            // That of a cancel is no block of what was asked for.
            block: transaction.block.filter(|_| transaction.purpose == Purpose::Request).map(BlockView::from),
            receipt,
        }
    }
}

async fn send_transaction(params: &Params<'_>, service: &Arc<Service>, extensions: &Extensions) -> Answer<Raw> {
    let call = Call::read(params, service, extensions, Kind::Send)?;
    let arguments = Arguments::up_to(params, 1)?;
    let Options { wait_for, timeout: given } = arguments.required(0)?;
    let timeout = timeout(given, 0, service.chain.environment())?;
    let target = match wait_for.unwrap_or_default() {
        WaitFor::Queued => return queue(call, service, extensions).await,
        WaitFor::Broadcast => Target::Attempt,
        WaitFor::Included => Target::Included,
        WaitFor::Confirmed => Target::Confirmed,
    };
    let sent = send(call, service, extensions).await?;
    let life = until(service, extensions, &sent, target, timeout).await;
    let answer = match life {
        Ok(life) if target == Target::Attempt => raw(&SentView::new(&life, sent.hash, None)),
        Ok(life) => match receipt(service, life.clone()).await {
            Ok(receipt) => raw(&SentView::new(&life, None, Some(receipt))),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    waited_all(extensions);
    answer
}

/// Acknowledges the transaction: it is on record, and will be finished.
async fn queue(mut call: Call, service: &Arc<Service>, extensions: &Extensions) -> Answer<Raw> {
    loop {
        let claim = match claim(&mut call, service, extensions).await? {
            Claimed::NoKey => None,
            Claimed::Ours(claim) => Some(claim),
            Claimed::Before(stored) => {
                let life = on_record(service, extensions, stored).await?;
                return raw(&SentView::new(&life, stored.first, None));
            }
            Claimed::Conflict => return Err(conflict()),
        };
        usable_key(service, call.from).map_err(refusal)?;
        let mut turn = call.turn.take();
        if let Some(turn) = &mut turn {
            turn.wait().await;
        }
        let id = TransactionId::new();
        let intent = Intent {
            account: Account { chain_id: service.chain.environment().chain_id, address: call.from },
            transaction: id,
            service: Arc::clone(&service.name),
            principal: Arc::clone(&principal(extensions).name),
            request: Arc::clone(&call.text),
        };
        let acknowledged = service.chain.acknowledge(intent, call.given.clone(), claim).await;
        waited_all(extensions);
        match acknowledged {
            Ok(()) => {
                let queued = SentView { id: id.to_string(), hash: None, state: "queued", slot: None, block: None, receipt: None };
                return raw(&queued);
            }
            Err(TransactionError::KeyTaken) => {}
            Err(error) => return Err(refusal(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use alloy_primitives::Address;

    use super::*;
    use crate::journal::history::StoredTransaction;
    use crate::journal::{AttemptState, BlockRef};

    #[test]
    fn a_member_that_nobody_knows_is_an_error_that_names_it() {
        let read = |text: &str| match serde_json::from_str::<Options<'_>>(text) {
            Ok(options) => Ok((options.wait_for.unwrap_or_default(), options.timeout.map(|timeout| timeout.get().to_owned()))),
            Err(error) => Err(error.to_string()),
        };
        let every: String = MEMBERS.iter().map(|name| format!(r#""{name}":null,"#)).collect();
        assert_eq!(read(&format!(r#"{{{every}"timeout":"0x5","waitFor":"queued"}}"#)), Ok((WaitFor::Queued, Some(r#""0x5""#.to_owned()))));
        assert_eq!(read(r#"{"timeout":null}"#), Ok((WaitFor::Broadcast, None)));
        for wrong in ["idempotency_key", "IdempotencyKey", "waitfor", "timeOut", "gasLimit"] {
            let told = read(&format!(r#"{{"from":null,"{wrong}":"x"}}"#)).unwrap_err();
            assert!(told.starts_with(&format!("{wrong} is no member")), "{told}");
        }
        assert!(read(r#"{"waitFor":"queued","waitFor":"included"}"#).unwrap_err().contains("duplicate field"));
    }

    #[test]
    fn a_repeated_key_of_a_cancelled_transaction_is_not_told_that_it_is_included() {
        let told = |purpose| {
            let transaction = StoredTransaction {
                id: TransactionId::new(),
                kind: Kind::Send,
                account: Account { chain_id: 1, address: Address::ZERO },
                created_at: SystemTime::UNIX_EPOCH,
                attempt: Some((B256::ZERO, 0)),
                purpose,
                state: AttemptState::Included,
                block: Some(BlockRef { number: 1, hash: B256::ZERO }),
            };
            let life = Life { transaction, request: "{}".into(), attempts: Vec::new(), events: Vec::new(), receipt: None };
            let view = SentView::new(&life, Some(B256::ZERO), None);
            (view.state, view.block.is_some())
        };
        assert_eq!(told(Purpose::Request), ("included", true));
        assert_eq!(told(Purpose::Cancel), ("cancelled", false));
    }
}
