//! What a simulated KMS is made of: accounts, Regions, keys, credentials, quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::quota::Quotas;
use crate::random::Delays;

/// The zero of the clock in Unix time where nobody sets one: 1 January 2026.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// An account in a Region: what keys, aliases and quotas belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Place {
    /// 12 digits.
    pub account: String,
    /// Such as `us-east-1`.
    pub region: String,
}

impl Place {
    /// This account in this Region.
    pub fn new(account: impl Into<String>, region: impl Into<String>) -> Self {
        Self { account: account.into(), region: region.into() }
    }

    /// The ARN of `key/…` or `alias/…` here.
    pub fn arn(&self, resource: &str) -> String {
        format!("arn:aws:kms:{}:{}:{resource}", self.region, self.account)
    }

    /// The place and the resource that an ARN of KMS names.
    pub(super) fn of_arn(arn: &str) -> Option<(Self, &str)> {
        let mut parts = arn.splitn(6, ':');
        let head = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        (head == ("arn", "aws", "kms")).then(|| (Self::new(account, region), resource))
    }
}

/// Credentials that KMS knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id, such as `AKIAIOSFODNN7EXAMPLE`.
    pub id: String,
    /// What requests are signed with.
    pub secret: String,
    /// The token that must come with it; `None` for credentials that last.
    pub session_token: Option<String>,
    /// The account that it acts for.
    pub account: String,
    /// From when on it is refused as expired, in Unix time.
    pub expires: Option<Duration>,
}

impl AccessKey {
    /// Credentials that last.
    pub fn new(id: &str, secret: &str, account: &str) -> Self {
        Self { id: id.into(), secret: secret.into(), session_token: None, account: account.into(), expires: None }
    }
}

/// Everything about one simulated KMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Keys, delays, chances and the nonces of signatures come from it.
    pub seed: u64,
    /// Keys that each place has from the start.
    pub keys: u64,
    /// Tags of those keys.
    pub tags: BTreeMap<String, String>,
    /// The Region of the first place.
    pub region: String,
    /// The account of the first place, 12 digits.
    pub account: String,
    /// Further places that have keys from the start. Every other place is there too, and empty.
    pub further: Vec<Place>,
    /// Where this names Regions, the keys of the start are multi-Region keys with replicas there.
    pub replica_regions: Vec<String>,
    /// Aliases without a target, as AWS makes them for its services (`alias/aws/ebs`), in every place that has keys from the start.
    pub bare_aliases: Vec<String>,
    /// Credentials that are known. Where there are none, nobody's signature is looked at.
    pub access_keys: Vec<AccessKey>,
    /// How often may be called what.
    pub quotas: Quotas,
    /// How long a new replica is in the state Creating.
    pub creating: Duration,
    /// How long answers take.
    pub delays: Delays,
    /// The zero of the clock in Unix time; `None`: a `SimKms` takes the machine's time, and a `Kms` 1 January 2026.
    pub epoch: Option<Duration>,
}

impl Settings {
    /// So many keys without tags in us-east-1; no credentials, no quotas, no delays.
    pub fn new(seed: u64, keys: u64) -> Self {
        Self {
            seed,
            keys,
            tags: BTreeMap::new(),
            region: "us-east-1".into(),
            account: "111122223333".into(),
            further: Vec::new(),
            replica_regions: Vec::new(),
            bare_aliases: Vec::new(),
            access_keys: Vec::new(),
            quotas: Quotas::default(),
            creating: Duration::from_secs(2),
            delays: Delays::default(),
            epoch: None,
        }
    }

    /// The same, with one more tag on each key that there is from the start.
    #[must_use]
    pub fn with_tag(mut self, name: &str, value: &str) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }

    /// The first place.
    pub fn home(&self) -> Place {
        Place::new(&self.account, &self.region)
    }

    /// The zero of the clock in Unix time.
    pub(super) fn epoch(&self) -> Duration {
        self.epoch.unwrap_or(EPOCH)
    }
}
