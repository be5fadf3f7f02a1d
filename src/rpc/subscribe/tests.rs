use super::*;

fn kind(params: &str) -> Result<Kind, String> {
    read(&Params::new(Some(params))).map_err(|error| error.message().to_owned())
}

/// Parameters for the node.
fn relayed(params: &str) -> String {
    match kind(params) {
        Ok(Kind::Relayed { params, .. }) => params.into_owned(),
        Ok(Kind::Logs { params, .. }) => params,
        other => panic!("{params}: {other:?}"),
    }
}

#[test]
fn kinds_are_read() {
    let hash = format!("\"0x{}\"", "1".repeat(64));
    assert_eq!(kind(r#"["newHeads"]"#), Ok(Kind::Heads));
    let logs = kind(&format!(r#"["logs",{{"topics":[{hash}]}}]"#));
    let filter = LogFilter { topics: vec![Some([B256::repeat_byte(0x11)].into())], ..LogFilter::default() };
    assert_eq!(logs, Ok(Kind::Logs { params: format!(r#"["logs",{{"topics":[[{hash}]]}}]"#), filter }));
    let of_a_block = format!(r#"["logs",{{"blockHash":{hash}}}]"#);
    assert_eq!(kind(&of_a_block), Ok(Kind::Relayed { name: "logs", params: of_a_block.clone().into() }), "it is a node's to say");
    assert_eq!(kind(r#"["syncing"]"#), Ok(Kind::Relayed { name: "syncing", params: r#"["syncing"]"#.into() }));
    assert_eq!(kind(r#"["transactionReceipts"]"#), Ok(Kind::Receipts(None)));
    assert_eq!(kind(r#"["transactionReceipts", {}]"#), Ok(Kind::Receipts(None)));
    let one = kind(&format!(r#"["transactionReceipts", {{"transactionHashes":[{hash}]}}]"#));
    assert_eq!(one, Ok(Kind::Receipts(Some(vec![B256::repeat_byte(0x11)]))));
}

#[test]
fn what_means_the_same_is_spelled_the_same() {
    for hashes in [r#"["newPendingTransactions"]"#, r#"[ "newPendingTransactions", false ]"#, r#"["newPendingTransactions",null]"#] {
        assert_eq!(relayed(hashes), r#"["newPendingTransactions"]"#);
    }
    assert_eq!(relayed(r#"[ "newPendingTransactions" , true ]"#), r#"["newPendingTransactions",true]"#);
    for all in [r#"["logs",{}]"#, r#"[ "logs" , {"address":[],"topics":[],"other":1} ]"#] {
        assert_eq!(relayed(all), r#"["logs",{}]"#);
    }
}

#[test]
fn what_is_not_served_is_told() {
    for (params, words) in [
        ("[]", "expected subscription name as first argument"),
        ("[7]", "expected subscription name as first argument"),
        ("{}", "non-array args"),
        (r#"["newHeads",{}]"#, "too many arguments, want at most 1"),
        (r#"["syncing",1]"#, "too many arguments, want at most 1"),
        (r#"["logs"]"#, "missing value for required argument 1"),
        (r#"["logs",null]"#, "missing value for required argument 1"),
        (r#"["logs",{},1]"#, "too many arguments, want at most 2"),
        (r#"["logs",{"topics":["0x1"]}]"#, "invalid argument 1: hex string of odd length"),
        (r#"["newPendingTransactions",{}]"#, "invalid argument 1: json: cannot unmarshal object into Go value of type bool"),
        (r#"["newPendingTransactions",true,1]"#, "too many arguments, want at most 2"),
        (r#"["nonsense",{}]"#, "no \"nonsense\" subscription in eth namespace"),
    ] {
        assert_eq!(kind(params), Err(words.into()), "{params}");
    }
    let many = vec![format!("\"0x{}\"", "1".repeat(64)); 201].join(",");
    let told = kind(&format!(r#"["transactionReceipts",{{"transactionHashes":[{many}]}}]"#));
    assert_eq!(told, Err("invalid argument 1: more than 200 transaction hashes".into()));
    assert!(kind(r#"["transactionReceipts",{"transactionHashes":[]}]"#).is_err());
    assert!(kind(r#"["transactionReceipts",{"hashes":[]}]"#).is_err());
}

#[test]
fn a_full_hub_is_told_with_a_reason_and_when_to_try_again() {
    let told = no_seat(JoinError::Full);
    let data: Value = serde_json::from_str(told.data().unwrap().get()).unwrap();
    assert_eq!((told.code(), &data), (-32005, &serde_json::json!({ "reason": "limit_exceeded", "retryAfterMs": 5000 })));
}
