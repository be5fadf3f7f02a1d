//! DescribeKey, CreateKey, ReplicateKey.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::core::{Kms, Timer};
use super::super::errors::KmsError;
use super::super::faults::Fault;
use super::super::key::{KeyState, Origin, Presence};
use super::super::lifecycle::Draft;
use super::super::settings::Place;
use super::Call;
use super::tags::tags;

impl Kms {
    pub(super) fn describe_key(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let (index, _) = self.named(call)?;
        Ok(json!({ "KeyMetadata": self.metadata(index) }))
    }

    pub(super) fn create_key_of(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let spec = call.optional("KeySpec").or_else(|| call.optional("CustomerMasterKeySpec"));
        if spec != Some("ECC_SECG_P256K1") || call.optional("KeyUsage") != Some("SIGN_VERIFY") {
            return Err(KmsError::unsupported("only ECC_SECG_P256K1 for SIGN_VERIFY is simulated"));
        }
        let origin = match call.optional("Origin") {
            None | Some("AWS_KMS") => Origin::AwsKms,
            Some("EXTERNAL") => Origin::External,
            Some(other) => return Err(KmsError::unsupported(format!("Origin {other} is not simulated"))),
        };
        let draft = Draft {
            tags: tags(call)?,
            origin,
            description: call.optional("Description").unwrap_or_default().to_owned(),
            is_multi_region: call.body.get("MultiRegion") == Some(&Value::Bool(true)),
        };
        let index = self.create(call.from, draft, call.now);
        self.lag(index, call);
        Ok(json!({ "KeyMetadata": self.metadata(index) }))
    }

    pub(super) fn replicate_key(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (index, key) = self.owned(call)?;
        if !key.is_primary() {
            return Err(KmsError::unsupported(format!("{} is not a multi-Region primary key.", key.arn)));
        }
        match key.state {
            KeyState::Enabled => {}
            // The replica of a key without material waits for the same material.
            KeyState::PendingImport if key.origin == Origin::External => {}
            _ => key.usable()?,
        }
        let region = call.text("ReplicaRegion")?;
        let arn = Place::new(&key.place.account, region).arn(&format!("key/{}", key.id));
        if self.by_arn.contains_key(&arn) {
            return Err(KmsError::new("AlreadyExistsException", format!("{arn} already exists")));
        }
        let (tags, description) = (tags(call)?, call.optional("Description").unwrap_or_default().to_owned());
        let replica = self.replicate(index, region, description, tags, call.now).ok_or_else(KmsError::internal)?;
        if !self.settings.creating.is_zero() {
            if let Some(key) = self.keys.get_mut(replica) {
                key.state = KeyState::Creating;
            }
            self.timers.insert((call.now + self.settings.creating, replica, Timer::Ready));
        }
        self.lag(replica, call);
        let tags = call.body.get("Tags").cloned().unwrap_or_else(|| json!([]));
        Ok(json!({ "ReplicaKeyMetadata": self.metadata(replica), "ReplicaTags": tags }))
    }

    /// The new key is not found for a while, where the fault says so.
    fn lag(&mut self, index: usize, call: Call<'_>) {
        if let (Some(Fault::Lag { milliseconds }), Some(key)) = (call.fault, self.keys.get_mut(index)) {
            key.presence = Presence::Lagging;
            self.timers.insert((call.now + Duration::from_millis(*milliseconds), index, Timer::Appear));
        }
    }
}
