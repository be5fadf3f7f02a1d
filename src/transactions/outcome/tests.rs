//! Every row of the table of answers, for every client.

use std::collections::BTreeSet;

use super::*;

const CLIENTS: [(&str, &str); 6] = [
    ("geth", include_str!("fixtures/geth.txt")),
    ("reth", include_str!("fixtures/reth.txt")),
    ("besu", include_str!("fixtures/besu.txt")),
    ("nethermind", include_str!("fixtures/nethermind.txt")),
    ("erigon", include_str!("fixtures/erigon.txt")),
    ("anvil", include_str!("fixtures/anvil.txt")),
];
const OTHERS: [(&str, &str); 2] = [("proxies", include_str!("fixtures/proxies.txt")), ("standard", include_str!("fixtures/standard.txt"))];

fn answer(code: i64, message: &str) -> Outcome {
    classify(&Err(CallError::Node(NodeError { code, message: message.into(), data: None })), B256::ZERO)
}

/// Condition, code, text and outcome of each line.
fn rows(table: &str) -> Vec<(&str, i64, &str, &str)> {
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [condition, code, text, outcome] = cells.as_slice() else { panic!("not four cells: {line}") };
        (*condition, code.parse().unwrap(), *text, *outcome)
    })
    .collect()
}

#[test]
fn the_words_of_every_client_are_read() {
    for (client, table) in CLIENTS.into_iter().chain(OTHERS) {
        for (_, code, text, outcome) in rows(table) {
            assert_eq!(answer(code, text).label(), outcome, "{client}: {text}");
        }
    }
}

/// A client without one of these could not be told apart from one that holds the bytes.
#[test]
fn every_client_has_the_rows_that_decide_about_a_nonce() {
    for (client, table) in CLIENTS {
        let conditions: BTreeSet<&str> = rows(table).iter().map(|row| row.0).collect();
        for condition in ["nonce too low", "same transaction", "replacement", "funds", "intrinsic gas"] {
            assert!(conditions.contains(condition), "{client}: {condition}");
        }
    }
}

/// Whatever a client adds around its words, and however it writes them.
#[test]
fn texts_are_read_in_any_case_and_with_anything_around() {
    for (client, table) in CLIENTS {
        for (_, code, text, outcome) in rows(table).into_iter().filter(|row| row.2 != "underpriced") {
            let shouted = format!("err: {} (tx 0x1234)", text.to_uppercase());
            assert_eq!(answer(code, &shouted).label(), outcome, "{client}: {shouted}");
        }
    }
}

#[test]
fn a_hash_counts_only_if_it_is_ours() {
    assert_eq!(classify(&Ok(B256::ZERO), B256::ZERO), Outcome::Accepted);
    assert_eq!(classify(&Ok(B256::repeat_byte(1)), B256::ZERO).label(), "unknown");
}

#[test]
fn what_never_left_is_told_apart_from_what_may_have_arrived() {
    for error in [CallError::Unavailable, CallError::Full, CallError::WrongChain("another".into())] {
        assert_eq!(classify(&Err(error), B256::ZERO), Outcome::NotSent);
    }
    let deadline = CallError::Deadline(std::time::Duration::from_secs(1));
    for error in [CallError::Lost, deadline, CallError::Malformed("{".into())] {
        assert_eq!(classify(&Err(error), B256::ZERO).label(), "unknown");
    }
}

#[test]
fn an_unknown_transaction_type_is_no_known_transaction() {
    assert!(!answer(-32000, "unknown transaction type").is_taken());
}

/// No answer that nobody knows is ever a promise about the bytes.
#[test]
fn what_is_not_in_the_table_is_unrecognised_whatever_its_code() {
    for code in [-32000, -32003, -32004, -32009, -32010, -32603, 3, 4, 810, 999, 1002, 0] {
        assert_eq!(answer(code, "words of tomorrow"), Outcome::Unrecognised { code, message: "words of tomorrow".into() });
    }
}

#[test]
fn refusals_of_the_bytes_themselves_are_told_apart_from_those_of_the_state() {
    for word in NEVER_VALID {
        assert!(answer(-32000, word).is_about_the_bytes(), "{word}");
    }
    for word in
        ["insufficient funds for gas * price + value", "max fee per gas less than block base fee", "already known", "oversized data"]
    {
        assert!(!answer(-32000, word).is_about_the_bytes(), "{word}");
    }
}
