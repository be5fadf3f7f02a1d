//! The operations of KMS that Sluice calls, as JSON in and out.

use std::collections::BTreeMap;
use std::time::Duration;

use alloy_primitives::B256;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::core::{Key, KeyState, Kms, Reply, ReplyBody, Signed, Twist};
use super::errors::KmsError;
use super::faults::Fault;

/// What the account's address in an ARN is followed by for aliases.
const ALIAS: &str = "alias/";

impl Kms {
    /// One call, such as `Sign`, with its JSON.
    pub fn call(&mut self, now: Duration, operation: &str, body: &Value) -> Reply {
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        let fault = self.faults.next(operation, &mut self.luck);
        let mut after = self.settings.delays.draw(&mut self.pace);
        match &fault {
            Some(Fault::CutBefore) => return Reply { after, body: ReplyBody::Cut },
            Some(Fault::Error(error)) => return Reply { after, body: ReplyBody::Error(error.clone()) },
            Some(Fault::Late { milliseconds }) => after += Duration::from_millis(*milliseconds),
            _ => {}
        }
        let answer = match operation {
            "Sign" => self.sign(now, body, fault.as_ref()),
            "GetPublicKey" => self.named(body).map(public_key),
            "DescribeKey" => self.named(body).map(|key| json!({ "KeyMetadata": metadata(key) })),
            "ListKeys" => self.list_keys(body),
            "ListAliases" => self.list_aliases(body),
            "ListResourceTags" => self.list_tags(body),
            "CreateKey" => self.create(body),
            "CreateAlias" => self.create_alias(body),
            other => Err(KmsError::new("UnknownOperationException", format!("{other} is not simulated"))),
        };
        let body = match (answer, fault) {
            (_, Some(Fault::CutAfter)) => ReplyBody::Cut,
            (Ok(answer), _) => ReplyBody::Ok(answer),
            (Err(error), _) => ReplyBody::Error(error),
        };
        Reply { after, body }
    }

    fn named(&self, body: &Value) -> Result<&Key, KmsError> {
        self.key(text(body, "KeyId")?)
    }

    fn sign(&mut self, now: Duration, body: &Value, fault: Option<&Fault>) -> Result<Value, KmsError> {
        let key = self.named(body)?.clone();
        if text(body, "MessageType")? != "DIGEST" {
            return Err(KmsError::validation("only MessageType DIGEST is simulated"));
        }
        if text(body, "SigningAlgorithm")? != "ECDSA_SHA_256" {
            return Err(KmsError::new("InvalidKeyUsageException", format!("{} does not support this signing algorithm.", key.arn)));
        }
        let message = BASE64.decode(text(body, "Message")?.as_bytes()).ok();
        let digest = message.and_then(|bytes| B256::try_from(bytes.as_slice()).ok());
        let digest = digest.ok_or_else(|| KmsError::validation("Digest is invalid length for algorithm ECDSA_SHA_256."))?;
        usable(&key)?;
        let twist = Twist { high_s: fault == Some(&Fault::HighS), other_digest: fault == Some(&Fault::OtherDigest) };
        let signature = self.signature(&key, digest, twist).ok_or_else(KmsError::internal)?;
        let milliseconds = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.signed.push(Signed { milliseconds, arn: key.arn.clone(), digest });
        let arn = if fault == Some(&Fault::OtherKey) { format!("{}0", key.arn) } else { key.arn };
        Ok(json!({ "KeyId": arn, "Signature": BASE64.encode(&signature), "SigningAlgorithm": "ECDSA_SHA_256" }))
    }

    fn list_keys(&self, body: &Value) -> Result<Value, KmsError> {
        let keys = self.keys.iter().map(|key| json!({ "KeyId": key.id, "KeyArn": key.arn })).collect();
        page(body, "Keys", keys, 100, 1_000)
    }

    fn list_aliases(&self, body: &Value) -> Result<Value, KmsError> {
        let wanted = body.get("KeyId").and_then(Value::as_str).map(|name| self.find(name)).transpose()?;
        let of_key = self.aliases.iter().filter(|(_, place)| wanted.is_none_or(|wanted| wanted == **place));
        let view = |(name, place): (&String, &usize)| {
            let key = self.keys.get(*place)?;
            let (account, _) = key.arn.split_once(":key/")?;
            Some(json!({ "AliasName": name, "AliasArn": format!("{account}:{name}"), "TargetKeyId": key.id }))
        };
        page(body, "Aliases", of_key.filter_map(view).collect(), 50, 100)
    }

    fn list_tags(&self, body: &Value) -> Result<Value, KmsError> {
        let tags = self.named(body)?.tags.iter().map(|(name, value)| json!({ "TagKey": name, "TagValue": value })).collect();
        page(body, "Tags", tags, 50, 50)
    }

    fn create(&mut self, body: &Value) -> Result<Value, KmsError> {
        let spec = body.get("KeySpec").and_then(Value::as_str);
        let usage = body.get("KeyUsage").and_then(Value::as_str);
        if spec != Some("ECC_SECG_P256K1") || usage != Some("SIGN_VERIFY") {
            return Err(KmsError::new("UnsupportedOperationException", "only ECC_SECG_P256K1 for SIGN_VERIFY is simulated"));
        }
        let mut tags = BTreeMap::new();
        for tag in body.get("Tags").and_then(Value::as_array).into_iter().flatten() {
            tags.insert(text(tag, "TagKey")?.to_owned(), text(tag, "TagValue")?.to_owned());
        }
        Ok(json!({ "KeyMetadata": metadata(&self.create_key(tags)) }))
    }

    fn create_alias(&mut self, body: &Value) -> Result<Value, KmsError> {
        let (name, target) = (text(body, "AliasName")?, self.find(text(body, "TargetKeyId")?)?);
        if !name.starts_with(ALIAS) {
            return Err(KmsError::validation("Alias must start with the prefix \"alias/\"."));
        }
        if self.aliases.contains_key(name) {
            return Err(KmsError::new("AlreadyExistsException", format!("An alias with the name {name} already exists")));
        }
        self.aliases.insert(name.to_owned(), target);
        Ok(json!({}))
    }
}

fn text<'a>(body: &'a Value, field: &str) -> Result<&'a str, KmsError> {
    body.get(field).and_then(Value::as_str).ok_or_else(|| KmsError::validation(format!("{field} is missing")))
}

fn usable(key: &Key) -> Result<(), KmsError> {
    let in_state = |state: &str| KmsError::new("KMSInvalidStateException", format!("{} is {state}.", key.arn));
    match key.state {
        KeyState::Enabled => Ok(()),
        KeyState::Disabled => Err(KmsError::new("DisabledException", format!("{} is disabled.", key.arn))),
        KeyState::PendingDeletion => Err(in_state("pending deletion")),
        KeyState::Creating => Err(in_state("Creating")),
    }
}

fn metadata(key: &Key) -> Value {
    json!({
        "KeyId": key.id,
        "Arn": key.arn,
        "AWSAccountId": key.arn.split(':').nth(4),
        "Enabled": key.state == KeyState::Enabled,
        "KeyState": key.state,
        "KeySpec": "ECC_SECG_P256K1",
        "CustomerMasterKeySpec": "ECC_SECG_P256K1",
        "KeyUsage": "SIGN_VERIFY",
        "KeyManager": "CUSTOMER",
        "Origin": "AWS_KMS",
        "MultiRegion": false,
        "SigningAlgorithms": ["ECDSA_SHA_256"],
    })
}

fn public_key(key: &Key) -> Value {
    json!({
        "KeyId": key.arn,
        "PublicKey": BASE64.encode(&key.spki()),
        "KeySpec": "ECC_SECG_P256K1",
        "CustomerMasterKeySpec": "ECC_SECG_P256K1",
        "KeyUsage": "SIGN_VERIFY",
        "SigningAlgorithms": ["ECDSA_SHA_256"],
    })
}

/// One page of a listing; its marker is the place of the next item.
fn page(body: &Value, name: &str, items: Vec<Value>, usual: u64, most: u64) -> Result<Value, KmsError> {
    let limit = body.get("Limit").and_then(Value::as_u64).unwrap_or(usual);
    if !(1..=most).contains(&limit) {
        return Err(KmsError::validation(format!("Limit must be from 1 to {most}")));
    }
    let from: usize = match body.get("Marker").and_then(Value::as_str) {
        Some(marker) => marker.parse().map_err(|_| KmsError::new("InvalidMarkerException", "The marker is not valid."))?,
        None => 0,
    };
    let next = from.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX));
    let is_truncated = next < items.len();
    let mut page = json!({ "Truncated": is_truncated });
    page[name] = items.into_iter().skip(from).take(next - from).collect();
    if is_truncated {
        page["NextMarker"] = json!(next.to_string());
    }
    Ok(page)
}
