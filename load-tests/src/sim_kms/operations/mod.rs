//! The operations of KMS, as JSON in and out: who is let in, what a fault changes, which one it is.

mod aliases;
mod import;
mod keys;
mod listings;
mod sign;
mod states;
mod tags;

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::core::{Delivery, Kms, Reply, ReplyBody};
use super::errors::KmsError;
use super::faults::Fault;
use super::key::Key;
use super::settings::Place;

/// A call on its way through KMS.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    /// The caller's account and Region.
    from: &'a Place,
    now: Duration,
    operation: &'a str,
    body: &'a Value,
    fault: Option<&'a Fault>,
}

impl Kms {
    /// One call of the first place, such as `Sign`, with its JSON.
    pub fn call(&mut self, now: Duration, operation: &str, body: &Value) -> Reply {
        let home = self.home.clone();
        self.call_from(&home, now, operation, body)
    }

    /// One call of an account in a Region. Its quotas are the caller's, whosever the key is.
    pub fn call_from(&mut self, from: &Place, now: Duration, operation: &str, body: &Value) -> Reply {
        let now = now + self.ahead;
        self.settle(now);
        match self.calls.get_mut(operation) {
            Some(count) => *count += 1,
            None => drop(self.calls.insert(operation.to_owned(), 1)),
        }
        let is_admitted = self.buckets.admits(from, operation, now, &self.settings.quotas);
        let fault = is_admitted.then(|| self.faults.next(operation, &mut self.luck)).flatten();
        let mut after = self.settings.delays.draw(&mut self.pace);
        let mut delivery = Delivery::Whole;
        match &fault {
            _ if !is_admitted => return error(after, KmsError::throttled()),
            Some(Fault::CutBefore) => return Reply { after, body: ReplyBody::Cut, delivery },
            Some(Fault::Error(refusal)) => return error(after, refusal.clone()),
            Some(Fault::Storm { milliseconds }) => {
                self.buckets.storm(from, operation, now + Duration::from_millis(*milliseconds));
                return error(after, KmsError::throttled());
            }
            Some(Fault::Late { milliseconds }) => after += Duration::from_millis(*milliseconds),
            Some(Fault::Slow { milliseconds }) => delivery = Delivery::Slow(Duration::from_millis(*milliseconds)),
            Some(Fault::Torn) => delivery = Delivery::Torn,
            _ => {}
        }
        let answer = self.answer(Call { from, now, operation, body, fault: fault.as_ref() });
        let body = match (answer, fault) {
            (_, Some(Fault::CutAfter)) => ReplyBody::Cut,
            (Ok(answer), _) => ReplyBody::Ok(answer),
            (Err(error), _) => ReplyBody::Error(error),
        };
        Reply { after, body, delivery }
    }

    fn answer(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        match call.operation {
            "Sign" => self.sign(call),
            "Verify" => self.verify(call),
            "GetPublicKey" => self.public_key(call),
            "DescribeKey" => self.describe_key(call),
            "CreateKey" => self.create_key_of(call),
            "ReplicateKey" => self.replicate_key(call),
            "EnableKey" => self.enable_key(call),
            "DisableKey" => self.disable_key(call),
            "ScheduleKeyDeletion" => self.schedule_key_deletion(call),
            "CancelKeyDeletion" => self.cancel_key_deletion(call),
            "GetParametersForImport" => self.parameters_for_import(call),
            "ImportKeyMaterial" => self.import_key_material(call),
            "DeleteImportedKeyMaterial" => self.delete_imported_key_material(call),
            "ListKeys" => self.list_keys(call),
            "ListAliases" => self.list_aliases(call),
            "ListResourceTags" => self.list_resource_tags(call),
            "TagResource" => self.tag_resource(call),
            "UntagResource" => self.untag_resource(call),
            "CreateAlias" => self.create_alias(call),
            "UpdateAlias" => self.update_alias(call),
            "DeleteAlias" => self.delete_alias(call),
            other => Err(KmsError::new("UnknownOperationException", format!("{other} is not simulated"))),
        }
    }

    /// The key that the call names.
    fn named(&self, call: Call<'_>) -> Result<(usize, &Key), KmsError> {
        let name = call.text("KeyId")?;
        let index = self.find(call.from, name)?;
        self.keys.get(index).map(|key| (index, key)).ok_or_else(|| KmsError::not_found(name))
    }

    /// The same, of an operation that only the account of the key may call.
    fn owned(&self, call: Call<'_>) -> Result<(usize, &Key), KmsError> {
        let (index, key) = self.named(call)?;
        if key.place.account == call.from.account {
            return Ok((index, key));
        }
        let (account, operation) = (&call.from.account, call.operation);
        let words = format!(
            "User: arn:aws:iam::{account}:root is not authorized to perform: kms:{operation} on resource: {} because no resource-based policy allows the kms:{operation} action",
            key.arn
        );
        Err(KmsError::new("AccessDeniedException", words))
    }

    /// The key's `KeyMetadata`.
    fn metadata(&self, index: usize) -> Value {
        let of = |key: &Key| key.metadata(self.settings.epoch(), &self.replica_regions(key));
        self.keys.get(index).map(of).unwrap_or_default()
    }
}

impl<'a> Call<'a> {
    fn text(&self, field: &str) -> Result<&'a str, KmsError> {
        self.body.get(field).and_then(Value::as_str).ok_or_else(|| KmsError::missing(field))
    }

    fn optional(&self, field: &str) -> Option<&'a str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// A blob.
    fn bytes(&self, field: &str) -> Result<Vec<u8>, KmsError> {
        let text = self.text(field)?;
        BASE64.decode(text.as_bytes()).map_err(|_| KmsError::new("SerializationException", format!("{field} is not Base64")))
    }
}

fn error(after: Duration, error: KmsError) -> Reply {
    Reply { after, body: ReplyBody::Error(error), delivery: Delivery::Whole }
}

/// The answer of an operation that says nothing.
fn done() -> Result<Value, KmsError> {
    Ok(json!({}))
}
