//! EnableKey, DisableKey, ScheduleKeyDeletion, CancelKeyDeletion.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::core::Kms;
use super::super::errors::KmsError;
use super::super::key::{KeyState, date};
use super::{Call, done};

const DAY: Duration = Duration::from_secs(86_400);

impl Kms {
    pub(super) fn enable_key(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        self.switch(call, KeyState::Enabled)
    }

    pub(super) fn disable_key(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        self.switch(call, KeyState::Disabled)
    }

    fn switch(&mut self, call: Call<'_>, state: KeyState) -> Result<Value, KmsError> {
        let (index, key) = self.owned(call)?;
        if !matches!(key.state, KeyState::Enabled | KeyState::Disabled) {
            return Err(key.in_state());
        }
        if let Some(key) = self.keys.get_mut(index) {
            key.state = state;
        }
        done()
    }

    pub(super) fn schedule_key_deletion(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let days = match call.body.get("PendingWindowInDays") {
            None => 30,
            Some(days) => days.as_u64().and_then(|days| u32::try_from(days).ok()).unwrap_or(0),
        };
        if !(7..=30).contains(&days) {
            return Err(KmsError::validation("PendingWindowInDays must be from 7 to 30."));
        }
        let (index, key) = self.owned(call)?;
        if matches!(key.state, KeyState::PendingDeletion | KeyState::PendingReplicaDeletion | KeyState::Creating | KeyState::Updating) {
            return Err(key.in_state());
        }
        let waits_for_replicas = key.is_primary() && !self.replica_regions(key).is_empty();
        let arn = key.arn.clone();
        if let Some(key) = self.keys.get_mut(index) {
            (key.window, key.state) = (DAY * days, KeyState::PendingReplicaDeletion);
        }
        let mut answer = json!({ "KeyId": arn, "KeyState": KeyState::PendingReplicaDeletion, "PendingWindowInDays": days });
        if !waits_for_replicas {
            self.begin_deletion(index, call.now);
            answer["KeyState"] = json!(KeyState::PendingDeletion);
            answer["DeletionDate"] = date(self.settings.epoch(), call.now + DAY * days);
        }
        Ok(answer)
    }

    pub(super) fn cancel_key_deletion(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (index, key) = self.owned(call)?;
        if !matches!(key.state, KeyState::PendingDeletion | KeyState::PendingReplicaDeletion) {
            let words = format!("{} is not pending deletion.", key.arn);
            return Err(KmsError::new("KMSInvalidStateException", words));
        }
        let arn = key.arn.clone();
        if let Some(key) = self.keys.get_mut(index) {
            key.state = if key.has_material() { KeyState::Disabled } else { KeyState::PendingImport };
            key.deletion = None;
        }
        Ok(json!({ "KeyId": arn }))
    }
}
