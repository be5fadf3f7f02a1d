//! What `sluice journal inspect` shows: a table for people, JSON for programs. No signed bytes, no requests.

use serde_json::{Value, json};

use alloy_primitives::B256;

use super::{Account, AccountSummary, AttemptState, ChainPin, Purpose, TransactionId};

/// The file as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Version of its tables.
    pub version: u64,
    /// Bytes of the database.
    pub file_bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// Transactions on record.
    pub transactions: u64,
    /// Of them, those that were acknowledged and have neither an attempt nor an end.
    pub queued: u64,
    /// Events on record.
    pub events: u64,
    /// Idempotency keys on record.
    pub idempotency_keys: u64,
}

/// An attempt in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// Whose slot.
    pub account: Account,
    /// Which slot.
    pub nonce: u64,
    /// Whether nothing is left to happen to the slot.
    pub done: bool,
    /// Whether the slot's payload took it by an authorisation.
    pub by_authorisation: bool,
    /// Whether the attempt is the slot's payload.
    pub current: bool,
    /// Its hash.
    pub hash: B256,
    /// Its transaction.
    pub transaction: TransactionId,
    /// Its state.
    pub state: AttemptState,
    /// What it pays for.
    pub purpose: Purpose,
}

/// Heads of the table's first columns; a column for each state that occurs follows.
const HEADS: [&str; 4] = ["CHAIN", "ACCOUNT", "NEXT NONCE", "PAUSED"];

/// The journal as lines of text: what is in the file, pinned chains, the number of public keys, and a table of the accounts with
/// their attempts by state.
pub fn text(overview: &Overview, summary: &[AccountSummary], keys: usize, chains: &[ChainPin]) -> String {
    let Overview { version, file_bytes, log_bytes, transactions, queued, events, idempotency_keys } = overview;
    let mut lines = vec![
        format!("version {version}, {file_bytes} bytes and {log_bytes} bytes of log"),
        format!("transactions on record: {transactions}, {queued} of them queued; events: {events}; idempotency keys: {idempotency_keys}"),
        format!("public keys on record: {keys}"),
    ];
    if chains.is_empty() {
        lines.push("no chain is pinned".to_owned());
    }
    lines.extend(chains.iter().map(|pin| format!("chain {} has genesis {}", pin.chain_id, pin.genesis)));
    if summary.is_empty() {
        lines.push("no account is on record".to_owned());
    } else {
        lines.push(String::new());
        lines.extend(table(summary));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The same as `{version, fileBytes, logBytes, transactions, queued, events, idempotencyKeys, keys, chains: [{chainId, genesis}], accounts: [{chainId, address, nextNonce, paused, attempts: {state: n}}]}`;
/// numbers as JSON numbers, `paused` null or the reason.
pub fn json(overview: &Overview, summary: &[AccountSummary], keys: usize, chains: &[ChainPin]) -> Value {
    let chains: Vec<Value> = chains.iter().map(|pin| json!({ "chainId": pin.chain_id, "genesis": pin.genesis })).collect();
    let accounts: Vec<Value> = summary
        .iter()
        .map(|summary| {
            let attempts: serde_json::Map<String, Value> =
                summary.attempts.iter().map(|(state, count)| (state.as_str().to_owned(), Value::from(*count))).collect();
            json!({
                "chainId": summary.account.account.chain_id,
                "address": summary.account.account.address.to_checksum(None),
                "nextNonce": summary.account.next_nonce,
                "paused": summary.account.pauses.words(),
                "attempts": attempts,
            })
        })
        .collect();
    json!({
        "version": overview.version,
        "fileBytes": overview.file_bytes,
        "logBytes": overview.log_bytes,
        "transactions": overview.transactions,
        "queued": overview.queued,
        "events": overview.events,
        "idempotencyKeys": overview.idempotency_keys,
        "keys": keys,
        "chains": chains,
        "accounts": accounts,
    })
}

/// The attempts of one address as a table, in the order given.
pub fn slots_text(slots: &[SlotRow]) -> String {
    let heads = ["CHAIN", "NONCE", "SLOT", "PAYLOAD", "STATE", "PURPOSE", "HASH", "TRANSACTION"].map(str::to_owned);
    let mut rows = vec![heads.to_vec()];
    rows.extend(slots.iter().map(|slot| {
        let payload = match (slot.current, slot.by_authorisation) {
            (true, true) => "authorisation",
            (true, false) => "current",
            (false, _) => "former",
        };
        vec![
            slot.account.chain_id.to_string(),
            slot.nonce.to_string(),
            if slot.done { "done" } else { "open" }.to_owned(),
            payload.to_owned(),
            slot.state.as_str().to_owned(),
            slot.purpose.as_str().to_owned(),
            slot.hash.to_string(),
            slot.transaction.to_string(),
        ]
    }));
    let mut lines = align(&rows);
    lines.push(String::new());
    lines.join("\n")
}

/// The same as `[{chainId, nonce, done, current, byAuthorisation, state, purpose, hash, transaction}]`.
pub fn slots_json(slots: &[SlotRow]) -> Value {
    let row = |slot: &SlotRow| {
        json!({
            "chainId": slot.account.chain_id,
            "nonce": slot.nonce,
            "done": slot.done,
            "current": slot.current,
            "byAuthorisation": slot.by_authorisation,
            "state": slot.state.as_str(),
            "purpose": slot.purpose.as_str(),
            "hash": slot.hash,
            "transaction": slot.transaction.to_string(),
        })
    };
    slots.iter().map(row).collect()
}

fn table(summary: &[AccountSummary]) -> Vec<String> {
    let count = |account: &AccountSummary, state| account.attempts.iter().find(|(of, _)| *of == state).map_or(0, |(_, count)| *count);
    let states: Vec<AttemptState> =
        AttemptState::ALL.into_iter().filter(|state| summary.iter().any(|account| count(account, *state) > 0)).collect();
    let mut rows =
        vec![HEADS.iter().map(|head| (*head).to_owned()).chain(states.iter().map(|state| state.as_str().to_uppercase())).collect()];
    for line in summary {
        let mut row: Vec<String> = vec![
            line.account.account.chain_id.to_string(),
            line.account.account.address.to_checksum(None),
            line.account.next_nonce.to_string(),
            // A reason may have come from outside: one line, no control characters.
            line.account.pauses.words().as_deref().map_or_else(|| "no".to_owned(), one_line),
        ];
        row.extend(states.iter().map(|state| count(line, *state).to_string()));
        rows.push(row);
    }
    align(&rows)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The rows of a table as lines: each column as wide as its widest cell.
pub fn align(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;

    use super::*;
    use crate::journal::{Account, PauseBy, Pauses, StoredAccount};

    fn pauses(reason: Option<&str>) -> Pauses {
        let mut pauses = Pauses::default();
        pauses.set(PauseBy::Filler, reason.map(str::to_owned));
        pauses
    }

    fn summary() -> Vec<AccountSummary> {
        let account = |byte, next_nonce, paused: Option<&str>, attempts| AccountSummary {
            account: StoredAccount {
                account: Account { chain_id: 31337, address: Address::repeat_byte(byte) },
                next_nonce,
                pauses: pauses(paused),
            },
            attempts,
        };
        vec![
            account(0x11, 12, None, vec![(AttemptState::Broadcast, 3), (AttemptState::Confirmed, 9)]),
            account(0x22, 0, Some("the filler of\nnonce 0 was refused"), vec![]),
        ]
    }

    #[test]
    fn the_table_has_the_states_that_occur() {
        let chains = [ChainPin { chain_id: 31337, genesis: B256::repeat_byte(7) }];
        let overview =
            Overview { version: 3, file_bytes: 4096, log_bytes: 5, transactions: 12, queued: 1, events: 30, idempotency_keys: 4 };
        let text = text(&overview, &summary(), 2, &chains);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "version 3, 4096 bytes and 5 bytes of log");
        assert_eq!(lines[1], "transactions on record: 12, 1 of them queued; events: 30; idempotency keys: 4");
        assert_eq!(lines[2], "public keys on record: 2");
        assert_eq!(lines[3], format!("chain 31337 has genesis {}", B256::repeat_byte(7)));
        assert_eq!(
            lines[5].split_whitespace().collect::<Vec<_>>(),
            ["CHAIN", "ACCOUNT", "NEXT", "NONCE", "PAUSED", "BROADCAST", "CONFIRMED"]
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[6]), ["31337", "0x1111111111111111111111111111111111111111", "12", "no", "3", "9"]);
        assert!(lines[7].contains("the filler of nonce 0 was refused  0"), "{text}");
        assert_eq!(lines.len(), 8);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn an_empty_journal_says_so() {
        let text = text(&Overview::default(), &[], 0, &[]);
        assert!(text.ends_with("public keys on record: 0\nno chain is pinned\nno account is on record\n"), "{text}");
    }

    #[test]
    fn json_has_the_same() {
        let value = json(&Overview { queued: 7, ..Overview::default() }, &summary(), 2, &[]);
        assert_eq!(value["queued"], 7);
        assert_eq!(value["keys"], 2);
        assert_eq!(value["accounts"][0]["nextNonce"], 12);
        assert_eq!(value["accounts"][0]["attempts"], json!({ "broadcast": 3, "confirmed": 9 }));
        assert_eq!(value["accounts"][0]["paused"], Value::Null);
        assert_eq!(value["accounts"][1]["paused"], "the filler of\nnonce 0 was refused");
    }
}
