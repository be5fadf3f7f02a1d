//! Token buckets: how often an account may call what in a Region. A bucket refills continuously and holds so many tokens at most.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::settings::Place;

/// Parts of a token: a rate of one a second makes one of them each nanosecond.
const TOKEN: u128 = 1_000_000_000;

/// One quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// Tokens that come back each second.
    pub per_second: u64,
    /// Tokens that the bucket holds; it is full at first.
    pub burst: u64,
}

/// Quotas by operation; Sign and Verify share the one of Sign. An operation without one is never throttled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(pub BTreeMap<String, Quota>);

impl Quotas {
    /// What AWS grants at first, each bucket with a tenth of a second of calls, or one second of the rare ones.
    pub fn aws() -> Self {
        let all = [
            ("Sign", 1_000, 100),
            ("GetPublicKey", 2_000, 200),
            ("DescribeKey", 2_000, 200),
            ("ListResourceTags", 2_000, 200),
            ("ListKeys", 500, 50),
            ("ListAliases", 500, 50),
            ("CreateKey", 5, 5),
            ("CreateAlias", 5, 5),
        ];
        Self(all.into_iter().map(|(operation, per_second, burst)| (operation.to_owned(), Quota { per_second, burst })).collect())
    }

    /// The same with this quota of an operation.
    #[must_use]
    pub fn with(mut self, operation: &str, per_second: u64, burst: u64) -> Self {
        self.0.insert(operation.into(), Quota { per_second, burst });
        self
    }
}

/// The operation whose quota a call counts against.
fn class(operation: &str) -> &str {
    if operation == "Verify" { "Sign" } else { operation }
}

/// How a quota of a place has been used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Usage {
    /// Calls that were let in.
    pub admitted: u64,
    /// Calls that were answered ThrottlingException for the quota or in a storm.
    pub throttled: u64,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    /// What is missing until it is full, in parts of a token.
    missing: u128,
    /// When that was so.
    at: Duration,
    /// Until then every call is throttled.
    storm_until: Duration,
    usage: Usage,
}

impl Bucket {
    fn admits(&mut self, now: Duration, quota: Option<&Quota>) -> bool {
        if now < self.storm_until {
            return false;
        }
        let Some(quota) = quota else { return true };
        let refilled = now.saturating_sub(self.at).as_nanos().saturating_mul(u128::from(quota.per_second));
        self.missing = self.missing.saturating_sub(refilled);
        self.at = self.at.max(now);
        let is_admitted = self.missing + TOKEN <= u128::from(quota.burst) * TOKEN;
        if is_admitted {
            self.missing += TOKEN;
        }
        is_admitted
    }
}

/// The buckets of all places.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets(BTreeMap<Place, BTreeMap<String, Bucket>>);

impl Buckets {
    fn bucket(&mut self, place: &Place, class: &str) -> Option<&mut Bucket> {
        if !self.0.contains_key(place) {
            self.0.insert(place.clone(), BTreeMap::new());
        }
        let of_place = self.0.get_mut(place)?;
        if !of_place.contains_key(class) {
            of_place.insert(class.to_owned(), Bucket::default());
        }
        of_place.get_mut(class)
    }

    /// Whether this call of a caller is let in; it has its token then.
    pub(super) fn admits(&mut self, place: &Place, operation: &str, now: Duration, quotas: &Quotas) -> bool {
        let class = class(operation);
        let quota = quotas.0.get(class);
        let Some(bucket) = self.bucket(place, class) else { return true };
        let is_admitted = bucket.admits(now, quota);
        if is_admitted {
            bucket.usage.admitted += 1;
        } else {
            bucket.usage.throttled += 1;
        }
        is_admitted
    }

    /// Throttles every call of this operation's quota until then.
    pub(super) fn storm(&mut self, place: &Place, operation: &str, until: Duration) {
        if let Some(bucket) = self.bucket(place, class(operation)) {
            bucket.storm_until = bucket.storm_until.max(until);
        }
    }

    /// How each quota has been used.
    pub(super) fn usage(&self) -> Vec<(Place, String, Usage)> {
        let of = |(place, buckets): (&Place, &BTreeMap<String, Bucket>)| {
            let place = place.clone();
            buckets.iter().map(move |(class, bucket)| (place.clone(), class.clone(), bucket.usage)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}
