//! What `sluice journal inspect` shows: a table for people, JSON for programs. No signed bytes, no requests.

use serde_json::{Value, json};

use super::{AccountSummary, AttemptState, ChainPin};

/// Heads of the table's first columns; a column for each state that occurs follows.
const HEADS: [&str; 4] = ["CHAIN", "ACCOUNT", "NEXT NONCE", "PAUSED"];

/// The journal as lines of text: pinned chains, the number of public keys, and a table of the accounts with their attempts
/// by state.
pub fn text(summary: &[AccountSummary], keys: usize, chains: &[ChainPin]) -> String {
    let mut lines = vec![format!("public keys on record: {keys}")];
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

/// The same as `{keys, chains: [{chainId, genesis}], accounts: [{chainId, address, nextNonce, paused, attempts: {state: n}}]}`;
/// numbers as JSON numbers, `paused` null or the reason.
pub fn json(summary: &[AccountSummary], keys: usize, chains: &[ChainPin]) -> Value {
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
    json!({ "keys": keys, "chains": chains, "accounts": accounts })
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
    use alloy_primitives::{Address, B256};

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
        let text = text(&summary(), 2, &chains);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "public keys on record: 2");
        assert_eq!(lines[1], format!("chain 31337 has genesis {}", B256::repeat_byte(7)));
        assert_eq!(
            lines[3].split_whitespace().collect::<Vec<_>>(),
            ["CHAIN", "ACCOUNT", "NEXT", "NONCE", "PAUSED", "BROADCAST", "CONFIRMED"]
        );
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[4]), ["31337", "0x1111111111111111111111111111111111111111", "12", "no", "3", "9"]);
        assert!(lines[5].contains("the filler of nonce 0 was refused  0"), "{text}");
        assert_eq!(lines.len(), 6);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn an_empty_journal_says_so() {
        assert_eq!(text(&[], 0, &[]), "public keys on record: 0\nno chain is pinned\nno account is on record\n");
    }

    #[test]
    fn json_has_the_same() {
        let value = json(&summary(), 2, &[]);
        assert_eq!(value["keys"], 2);
        assert_eq!(value["accounts"][0]["nextNonce"], 12);
        assert_eq!(value["accounts"][0]["attempts"], json!({ "broadcast": 3, "confirmed": 9 }));
        assert_eq!(value["accounts"][0]["paused"], Value::Null);
        assert_eq!(value["accounts"][1]["paused"], "the filler of\nnonce 0 was refused");
    }
}
