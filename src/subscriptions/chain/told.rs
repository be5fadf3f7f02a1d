//! What a stream of the chain tells.

use std::sync::Arc;

use alloy_primitives::{B256, U64};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::node::StreamItem;

/// A place in the chain: behind this block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::subscriptions) struct Place {
    #[serde(serialize_with = "quantity")]
    pub(super) number: u64,
    pub(super) hash: B256,
}

fn quantity<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    U64::from(*number).serialize(serializer)
}

/// What cannot be told: the stream stood behind `from`, and stands behind `to` now. Neither what was taken back in between is known here nor
/// what was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::subscriptions) struct Gap {
    pub(super) from: Place,
    pub(super) to: Place,
}

/// One thing that is told.
#[derive(Debug, Clone)]
pub(in crate::subscriptions) enum Told {
    /// A header, or a log.
    Item(Arc<RawValue>),
    /// See [`Gap`].
    Gap(Gap),
}

/// As a relay passes it on.
impl From<Told> for StreamItem {
    fn from(told: Told) -> Self {
        match told {
            Told::Item(item) => Self::Item(item),
            Told::Gap(_) => Self::Gap,
        }
    }
}

impl Gap {
    /// The event that tells it to a client.
    pub(super) fn event(self) -> Result<Arc<RawValue>, serde_json::Error> {
        #[derive(Serialize)]
        struct Event {
            gap: Gap,
        }
        to_raw_value(&Event { gap: self }).map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_with_its_blocks() {
        let place = |number, byte| Place { number, hash: B256::repeat_byte(byte) };
        let gap = Gap { from: place(16, 1), to: place(300, 2) };
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let expected = format!(r#"{{"gap":{{"from":{{"number":"0x10","hash":"0x{one}"}},"to":{{"number":"0x12c","hash":"0x{two}"}}}}}}"#);
        assert_eq!(gap.event().unwrap().get(), expected);
    }
}
