use proptest::prelude::*;
use serde_json::json;

use super::*;

fn spelling(filter: &str) -> Result<String, FilterError> {
    normalised(&RawValue::from_string(filter.to_owned()).unwrap()).map(|(text, _)| text)
}

fn address(byte: u8) -> String {
    format!("0x{}", format!("{byte:02x}").repeat(20))
}

fn topic(byte: u8) -> String {
    format!("0x{}", format!("{byte:02x}").repeat(32))
}

#[test]
fn filters_that_mean_the_same_have_one_spelling() {
    let (a, b, s, t) = (address(0xaa), address(0xbb), topic(0x0c), topic(0xdd));
    let expected = json!({ "address": [a, b], "topics": [[s], null, [s, t]] }).to_string();
    for same in [
        json!({ "address": [a, b], "topics": [s, null, [s, t]] }),
        json!({ "topics": [[s], [], [t, s, t]], "address": [b.to_uppercase().replace("0X", "0x"), a, b], "fromBlock": "latest" }),
        json!({ "Address": [b.replace("0x", "0X"), a], "TOPICS": [[s, s], [null, "nonsense"], [s, t]], "toBlock": "latest", "limit": 3 }),
    ] {
        assert_eq!(spelling(&same.to_string()).unwrap(), expected, "{same}");
    }
    assert_eq!(spelling(&json!({ "address": a }).to_string()).unwrap(), json!({ "address": [a] }).to_string());
}

#[test]
fn filters_that_differ_stay_apart() {
    let (a, b, s) = (address(1), address(2), topic(3));
    let filters = [
        json!({}),
        json!({ "address": a }),
        json!({ "address": b }),
        json!({ "address": [a, b] }),
        json!({ "topics": [s] }),
        // As many topics as positions: a log with fewer does not pass.
        json!({ "topics": [null] }),
        json!({ "topics": [s, null] }),
        json!({ "topics": [null, s] }),
        json!({ "fromBlock": "0x1" }),
        json!({ "fromBlock": "earliest" }),
        json!({ "toBlock": "0x1" }),
        json!({ "blockHash": s }),
    ];
    let spellings: BTreeSet<_> = filters.iter().map(|filter| spelling(&filter.to_string()).unwrap()).collect();
    assert_eq!(spellings.len(), filters.len());
}

/// geth's words, from its source (eth/filters/api.go, rpc/types.go, common/hexutil) of 2026.
#[test]
fn what_cannot_be_read_is_told_in_geths_words() {
    let long: Vec<String> = (0..1001_u32).map(|n| format!("0x{n:064x}")).collect();
    for (filter, words) in [
        (json!("x"), "json: cannot unmarshal string into Go value of type filters.input"),
        (json!([]), "json: cannot unmarshal array into Go value of type filters.input"),
        (json!({ "address": 5 }), "invalid addresses in query"),
        (json!({ "address": {} }), "invalid addresses in query"),
        (json!({ "address": "" }), "invalid address: empty hex string"),
        (json!({ "address": "12" }), "invalid address: hex string without 0x prefix"),
        (json!({ "address": "0x1" }), "invalid address: hex string of odd length"),
        (json!({ "address": "0xzz1" }), "invalid address: invalid hex string"),
        (json!({ "address": "0x0x11" }), "invalid address: invalid hex string"),
        (json!({ "address": "0x12" }), "invalid address: hex has invalid length 1 after decoding; expected 20 for address"),
        (json!({ "address": [address(1), null] }), "non-string address at index 1"),
        (
            json!({ "address": [address(1), "0x"] }),
            "invalid address at index 1: hex has invalid length 0 after decoding; expected 20 for address",
        ),
        (json!({ "topics": "0x" }), "json: cannot unmarshal string into Go struct field input.topics of type []interface {}"),
        (json!({ "topics": [1] }), "invalid topic(s)"),
        (json!({ "topics": [[topic(1), 1]] }), "invalid topic(s)"),
        (json!({ "topics": ["0x12"] }), "hex has invalid length 1 after decoding; expected 32 for topic"),
        (json!({ "topics": [["0x12", null]] }), "hex has invalid length 1 after decoding; expected 32 for topic"),
        (json!({ "topics": [null, null, null, null, null] }), "exceed max topics"),
        (json!({ "topics": [long] }), "exceed max topics"),
        (json!({ "fromBlock": "0x" }), "hex string \"0x\""),
        (json!({ "fromBlock": "" }), "empty hex string"),
        (json!({ "fromBlock": 5 }), "hex string without 0x prefix"),
        (json!({ "fromBlock": "0x01" }), "hex number with leading zero digits"),
        (json!({ "toBlock": "0xg" }), "invalid hex string"),
        (json!({ "toBlock": "0x8000000000000000" }), "block number larger than int64"),
        (json!({ "toBlock": "0x10000000000000000" }), "hex number > 64 bits"),
        (json!({ "blockHash": 1 }), "json: cannot unmarshal non-string into Go struct field input.blockHash of type common.Hash"),
        (
            json!({ "blockHash": "0x1" }),
            "json: cannot unmarshal hex string of odd length into Go struct field input.blockHash of type common.Hash",
        ),
        (json!({ "blockHash": "0x12" }), "hex string has length 2, want 64 for common.Hash"),
        (
            json!({ "blockHash": topic(1), "fromBlock": "latest" }),
            "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
        ),
    ] {
        assert_eq!(spelling(&filter.to_string()), Err(FilterError::Invalid(words.into())), "{filter}");
    }
    let many: Vec<String> = (0..1001_u32).map(|n| format!("0x{n:040x}")).collect();
    let told = spelling(&json!({ "address": many }).to_string());
    assert_eq!(told, Err(FilterError::TooLong("exceed max addresses or topics per search position")));
    assert!(spelling(&json!({ "address": many[..1000] }).to_string()).is_ok());
}

proptest! {
    /// Whatever is sent, nothing panics, and a spelling is its own spelling.
    #[test]
    fn a_spelling_is_stable(
        addresses in proptest::collection::vec(0_u8..4, 0..6),
        topics in proptest::collection::vec(proptest::option::of(proptest::collection::vec(0_u8..4, 0..4)), 0..5),
        noise in ".{0,20}",
    ) {
        let addresses: Vec<String> = addresses.into_iter().map(address).collect();
        let topics: Vec<_> = topics.into_iter().map(|some| some.map(|some| some.into_iter().map(topic).collect::<Vec<_>>())).collect();
        let filter = json!({ "address": addresses, "topics": topics }).to_string();
        let once = spelling(&filter).unwrap();
        prop_assert_eq!(spelling(&once).unwrap(), once);
        let _ = spelling(&json!({ "address": noise, "topics": [noise], "fromBlock": noise, "blockHash": noise }).to_string());
    }
}
