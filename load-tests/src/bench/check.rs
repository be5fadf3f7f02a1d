//! Whether everything that was answered is what the chain has: once, and nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};

use alloy_primitives::{Address, B256};

/// JSON-RPC code of what was refused for want of room or time, before it had a nonce.
const LIMIT_EXCEEDED: i64 = -32005;
/// Examples that are told of each kind of fault.
const EXAMPLES: usize = 3;

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The transaction's hash.
    Hash(B256),
    /// An error: its code and its reason.
    Error(i64, String),
    /// Nothing, before the time was over.
    Nothing,
}

/// A transaction in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mined {
    pub(super) sender: Address,
    pub(super) nonce: u64,
    pub(super) hash: B256,
}

/// What is wrong, if anything; `mined` are the transactions of all blocks.
pub(super) fn check<'a>(told: impl Iterator<Item = &'a Told>, mined: &[Mined]) -> Vec<String> {
    let mut faults = Faults::default();
    let mut hashes = HashSet::new();
    for told in told {
        match told {
            Told::Hash(hash) if !hashes.insert(*hash) => faults.add("hash told twice", hash),
            Told::Hash(_) | Told::Error(LIMIT_EXCEEDED, _) => {}
            Told::Error(code, reason) => faults.add("error other than for want of room or time", &format!("{code} {reason}")),
            Told::Nothing => faults.add("request without an answer", &""),
        }
    }
    let mut times = HashMap::<B256, usize>::new();
    let mut nonces = BTreeMap::<Address, Vec<u64>>::new();
    for one in mined {
        *times.entry(one.hash).or_default() += 1;
        nonces.entry(one.sender).or_default().push(one.nonce);
        if !hashes.contains(&one.hash) {
            faults.add("transaction that is mined and was told to nobody", &one.hash);
        }
    }
    for hash in &hashes {
        match times.get(hash) {
            Some(1) => {}
            Some(_) => faults.add("transaction that is mined more than once", hash),
            None => faults.add("hash that was told and is not mined", hash),
        }
    }
    for (sender, mut nonces) in nonces {
        nonces.sort_unstable();
        if !nonces.iter().copied().eq(0..nonces.len() as u64) {
            faults.add("account with a hole or a double in its nonces", &sender);
        }
    }
    faults.told()
}

/// Faults by their kind.
#[derive(Debug, Default)]
struct Faults(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Faults {
    fn add(&mut self, kind: &'static str, example: &dyn std::fmt::Display) {
        let (count, examples) = self.0.entry(kind).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example.to_string());
        }
    }

    fn told(self) -> Vec<String> {
        self.0.into_iter().map(|(kind, (count, examples))| format!("{count} × {kind}: {}", examples.join(", "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mined(sender: u8, nonce: u64, hash: u8) -> Mined {
        Mined { sender: Address::repeat_byte(sender), nonce, hash: B256::repeat_byte(hash) }
    }

    fn hash(byte: u8) -> Told {
        Told::Hash(B256::repeat_byte(byte))
    }

    #[test]
    fn what_was_told_and_is_mined_once_is_right_and_so_is_what_was_refused_for_want_of_room() {
        let told = [hash(1), hash(2), hash(3), Told::Error(-32005, "queue_full".into())];
        assert_eq!(check(told.iter(), &[mined(7, 1, 2), mined(7, 0, 1), mined(8, 0, 3)]), Vec::<String>::new());
    }

    #[test]
    fn everything_else_is_told() {
        let cases: [(&[Told], &[Mined], &str); 7] = [
            (&[hash(1)], &[], "hash that was told and is not mined"),
            (&[], &[mined(7, 0, 1)], "mined and was told to nobody"),
            (&[hash(1)], &[mined(7, 0, 1), mined(7, 0, 1)], "mined more than once"),
            (&[hash(1), hash(1)], &[mined(7, 0, 1)], "hash told twice"),
            (&[hash(1)], &[mined(7, 1, 1)], "a hole or a double"),
            (&[Told::Error(-32000, "key_store_throttled".into())], &[], "-32000 key_store_throttled"),
            (&[Told::Nothing], &[], "without an answer"),
        ];
        for (told, mined, words) in cases {
            let wrong = check(told.iter(), mined);
            assert!(wrong.iter().any(|line| line.contains(words)), "{words}: {wrong:?}");
        }
    }
}
