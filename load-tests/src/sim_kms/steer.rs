//! The simulator's own operations, by which another process steers it and reads what has happened.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::core::Kms;
use super::errors::KmsError;
use super::key::{Key, Presence};
use super::settings::Place;

impl Kms {
    /// One operation of the simulator, such as `SetFaults`, with its JSON; `now` is the time on the callers' clock.
    pub fn steer(&mut self, now: Duration, operation: &str, body: &Value) -> Result<Value, KmsError> {
        self.settle(now + self.ahead);
        match operation {
            "SetFaults" => self.set_faults(read(body)?),
            "SetDelays" => self.set_delays(read(body)?),
            "SetQuotas" => self.set_quotas(read(body)?),
            "SetKeyState" => self.set_key_state(&read::<String>(&body["KeyId"])?, read(&body["KeyState"])?)?,
            "SetAlias" => self.set_alias(body)?,
            "Storm" => {
                let place = Place::new(field(body, "Account", &self.home.account)?, field(body, "Region", &self.home.region)?);
                let until = now + self.ahead + Duration::from_millis(read(&body["Milliseconds"])?);
                self.buckets.storm(&place, &read::<String>(&body["Operation"])?, until);
            }
            "Advance" => {
                self.advance(Duration::from_millis(read(&body["Milliseconds"])?));
                self.settle(now + self.ahead);
            }
            "Signed" => {
                let from = body.get("From").map(read::<usize>).transpose()?.unwrap_or(0);
                return Ok(json!({ "Signed": self.signed.get(from..).unwrap_or_default() }));
            }
            "Calls" => return Ok(json!(self.calls)),
            "Quotas" => return Ok(self.quotas()),
            "Keys" => {
                return Ok(
                    json!({ "Keys": self.keys.iter().filter(|key| key.presence != Presence::Deleted).map(view).collect::<Vec<_>>() }),
                );
            }
            other => return Err(KmsError::new("UnknownOperationException", format!("the simulator has no {other}"))),
        }
        Ok(json!({}))
    }

    /// An alias of the first place, or of the one that is named, points at this key, or at none.
    fn set_alias(&mut self, body: &Value) -> Result<(), KmsError> {
        let place = Place::new(field(body, "Account", &self.home.account)?, field(body, "Region", &self.home.region)?);
        let target = body.get("TargetKeyId").map(read::<String>).transpose()?;
        let target = target.map(|name| self.find(&place, &name)).transpose()?;
        self.aliases.entry(place).or_default().insert(read(&body["AliasName"])?, target);
        Ok(())
    }

    fn quotas(&self) -> Value {
        let used = |(place, operation, usage): (Place, String, super::Usage)| json!({ "Account": place.account, "Region": place.region, "Operation": operation, "Admitted": usage.admitted, "Throttled": usage.throttled });
        json!({ "Quotas": self.settings.quotas, "Used": self.usage().into_iter().map(used).collect::<Vec<_>>() })
    }
}

fn view(key: &Key) -> Value {
    json!({ "KeyId": key.id, "Arn": key.arn, "KeyState": key.state, "Address": key.address(), "Tags": key.tags })
}

fn field(body: &Value, name: &str, usual: &str) -> Result<String, KmsError> {
    body.get(name).map_or_else(|| Ok(usual.to_owned()), read)
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, KmsError> {
    serde_json::from_value(value.clone()).map_err(|error| KmsError::validation(error.to_string()))
}
