//! One more Region for a multi-Region key: the same public key, so the same address, with a quota of its own.

use alloy_primitives::Address;
use aws_sdk_kms::types::{KeyState as AwsState, MultiRegionKeyType};

use super::AwsKms;
use super::discovery::description;
use super::manage::tag_list;
use crate::signing::signature::PinnedKey;
use crate::signing::{KeyArn, KeyStoreError, SignClass};

/// A replica that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its name.
    pub arn: KeyArn,
    /// The address of both keys.
    pub address: Address,
}

/// Why there is no replica that works, and what there is.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// Nothing was changed, or it is not known.
    #[error("{0}")]
    NotMade(KeyStoreError),
    /// The replica is there, and is not known to work.
    #[error("{error}; the replica {arn} is there, and is not known to work")]
    Half {
        /// The replica.
        arn: KeyArn,
        /// What happened.
        error: KeyStoreError,
    },
    /// The replica of a key with imported material needs the same material.
    #[error("the replica {arn} is there and holds nothing yet: its material is imported, and AWS copies none of that kind")]
    NeedsMaterial {
        /// The replica.
        arn: KeyArn,
    },
    /// AWS promises that this cannot be.
    #[error("the replica {arn} has another public key than {primary}: do not use it")]
    OtherKey {
        /// The replica.
        arn: KeyArn,
        /// The key that it was made of.
        primary: KeyArn,
    },
}

impl AwsKms {
    /// Adds the Region of `there`, which reaches it, to a multi-Region primary key (id, ARN or alias) with its tags and description,
    /// waits until the replica can sign, and compares the public keys. Said again, it goes on with the replica that is there.
    pub async fn replicate(&self, key: &str, there: &AwsKms) -> Result<Replica, ReplicateError> {
        let (primary, words) = self.primary(key).await.map_err(ReplicateError::NotMade)?;
        let arn = in_region(&primary, &there.region).map_err(ReplicateError::NotMade)?;
        let tags = self.describe_tags(&primary).await.and_then(|tags| tag_list(&tags)).map_err(ReplicateError::NotMade)?;
        let made = self
            .once("ReplicateKey", |client| {
                let call = client.replicate_key().key_id(&*primary.0).replica_region(&there.region);
                call.description(words).set_tags(tags).send()
            })
            .await;
        match made {
            Ok(_) => {}
            Err(fault) if fault.code.as_deref() == Some("AlreadyExistsException") => {}
            Err(fault) => return Err(ReplicateError::NotMade(fault.into())),
        }
        let half = |error| ReplicateError::Half { arn: arn.clone(), error };
        let metadata = there.settled(&arn.0, true, &[AwsState::Enabled, AwsState::PendingImport]).await.map_err(half)?;
        if metadata.key_state == Some(AwsState::PendingImport) {
            return Err(ReplicateError::NeedsMaterial { arn });
        }
        let (ours, theirs) = (self.get_public_key(&primary).await.map_err(half)?, there.get_public_key(&arn).await.map_err(half)?);
        if ours != theirs {
            return Err(ReplicateError::OtherKey { arn, primary });
        }
        let pinned = PinnedKey::from_spki(arn.clone(), &theirs);
        let pinned = pinned.map_err(|error| half(KeyStoreError { class: SignClass::Configuration, detail: error.to_string() }))?;
        Ok(Replica { address: pinned.address(), arn })
    }

    /// The ARN and the description of a key that can be replicated.
    async fn primary(&self, key: &str) -> Result<(KeyArn, String), KeyStoreError> {
        let metadata = self.metadata(key).await?;
        let found = description(metadata.clone())?.into_signer()?;
        let refuse = |detail| Err(KeyStoreError { class: SignClass::Configuration, detail });
        let Some(regions) = metadata.multi_region_configuration else {
            return refuse(format!("{} is a key of one Region, which cannot be changed", found.arn));
        };
        if regions.multi_region_key_type != Some(MultiRegionKeyType::Primary) {
            let primary = regions.primary_key.and_then(|key| key.region).unwrap_or_else(|| "another Region".to_owned());
            return refuse(format!("{} is a replica itself: say its primary key, in {primary}", found.arn));
        }
        Ok((found.arn, metadata.description.unwrap_or_default()))
    }
}

/// The name that a key has in another Region.
fn in_region(arn: &KeyArn, region: &str) -> Result<KeyArn, KeyStoreError> {
    let mut parts: Vec<&str> = arn.0.splitn(6, ':').collect();
    match parts.get_mut(3) {
        Some(place) if *place != region => *place = region,
        Some(_) => return Err(KeyStoreError { class: SignClass::Configuration, detail: format!("{arn} is in {region} already") }),
        None => return Err(KeyStoreError { class: SignClass::Configuration, detail: format!("{arn} is not an ARN") }),
    }
    Ok(KeyArn(parts.join(":").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_the_same_name_in_another_region() {
        let arn = KeyArn("arn:aws:kms:us-east-1:111122223333:key/mrk-1".into());
        assert_eq!(&*in_region(&arn, "eu-west-1").unwrap().0, "arn:aws:kms:eu-west-1:111122223333:key/mrk-1");
        assert!(in_region(&arn, "us-east-1").unwrap_err().detail.contains("already"));
        assert!(in_region(&KeyArn("local:0x00".into()), "eu-west-1").is_err());
    }
}
