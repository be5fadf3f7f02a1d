//! Batches on both transports.

use super::*;

async fn both(server: &Running, body: &str) -> [String; 2] {
    [server.post(body).await, ask(&mut server.ws().await, body).await]
}

fn turn(id: usize, address: u8) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"test_turn","params":["{}",{id}]}}"#, Address::repeat_byte(address))
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_one_address_take_turns_in_array_order() {
    const ITEMS: usize = 1000;
    let server = Running::start(config()).await;
    let batch = list((0..ITEMS).map(|id| turn(id, u8::try_from(id % 3).unwrap())));
    let mut socket = server.ws().await;
    for over_socket in [false, true] {
        server.world.log.lock().unwrap().clear();
        let answer = if over_socket { ask(&mut socket, &batch).await } else { server.post(&batch).await };
        let ids: Vec<u64> = json(&answer).as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, (0..ITEMS as u64).collect::<Vec<_>>(), "answers in the order of the items");
        let log = server.world.log.lock().unwrap().clone();
        let began: Vec<String> = log.iter().filter_map(|line| line.strip_prefix("began ").map(str::to_owned)).collect();
        assert_eq!(began, (0..ITEMS).map(|id| id.to_string()).collect::<Vec<_>>(), "first polled in array order");
        for address in 0..3 {
            let prefix = format!("took {} ", Address::repeat_byte(address));
            let took: Vec<usize> = log.iter().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).collect();
            assert_eq!(took, (0..ITEMS).filter(|id| id % 3 == usize::from(address)).collect::<Vec<_>>());
        }
        assert!(log.iter().position(|line| line.starts_with("took")).unwrap() >= ITEMS / 2, "the items run at the same time");
    }
    assert_eq!(json(&server.post(&turn(0, 1)).await)["result"], "no batch");
    server.finish().await;
}

#[tokio::test]
async fn items_run_at_the_same_time() {
    let server = Running::start(config()).await;
    let wait = r#"{"jsonrpc":"2.0","id":1,"method":"test_wait"}"#.to_owned();
    let mut socket = server.ws().await;
    send(&mut socket, &list([wait.clone(), wait])).await;
    server.world.waiting(2).await;
    server.world.go.add_permits(2);
    assert_eq!(json(&next(&mut socket).await.unwrap()).as_array().unwrap().len(), 2);
    server.finish().await;
}

#[tokio::test]
async fn invalid_items_are_answered_and_notifications_are_not() {
    let server = Running::start(config()).await;
    let batch = r#"[{"jsonrpc":"2.0","id":"a","method":"test_echo","params":[1]},1,{"jsonrpc":"2.0","method":"test_echo"},
        {"id":5,"method":"test_echo"},{"jsonrpc":"2.0","id":null,"method":"test_echo","params":[2]},{}]"#;
    for answer in both(&server, batch).await {
        let answers = json(&answer);
        let answers = answers.as_array().unwrap();
        assert_eq!(answers.len(), 5, "{answer}");
        assert_eq!((&answers[0]["id"], &answers[0]["result"][0]), (&Value::from("a"), &Value::from(1)));
        for (index, id) in [(1, Value::Null), (2, Value::from(5)), (4, Value::Null)] {
            assert_eq!(error(&answers[index]), (-32600, "invalid request", "invalid_request"), "{answer}");
            assert_eq!(answers[index]["id"], id);
        }
        assert_eq!((&answers[3]["id"], &answers[3]["result"][0]), (&Value::Null, &Value::from(2)));
    }
    for answer in both(&server, "[]").await {
        assert_eq!(error(&json(&answer)), (-32600, "empty batch", "invalid_request"));
    }
    for broken in ["[1,", "[}"] {
        for answer in both(&server, broken).await {
            assert_eq!(json(&answer)["error"]["code"], -32700);
        }
    }
    // A batch of notifications has no answer: the next message answers the next request.
    let mut socket = server.ws().await;
    send(&mut socket, r#"[{"jsonrpc":"2.0","method":"test_echo"}]"#).await;
    assert_eq!(json(&ask(&mut socket, r#"{"jsonrpc":"2.0","id":9,"method":"test_echo"}"#).await)["id"], 9);
    server.finish().await;
}

#[tokio::test]
async fn too_many_items_are_one_error() {
    let server = Running::start(config::Server { max_batch_items: 3, ..config() }).await;
    for answer in both(&server, &list((5..8).map(|id| turn(id, 0)))).await {
        assert_eq!(json(&answer).as_array().unwrap().len(), 3);
    }
    server.world.log.lock().unwrap().clear();
    for answer in both(&server, &list((5..9).map(|id| turn(id, 0)))).await {
        let answers = json(&answer);
        assert_eq!(answers.as_array().unwrap().len(), 1, "as geth: one error, with the first id, in a list");
        assert_eq!(error(&answers[0]), (-32600, "batch too large", "limit_exceeded"));
        assert_eq!(answers[0]["id"], 5);
    }
    for answer in both(&server, &list((0..100).map(|id| turn(id, 0)))).await {
        assert!(json(&answer)["error"]["code"].is_i64(), "{answer}");
    }
    assert!(server.world.log.lock().unwrap().is_empty(), "nothing of it ran");
    server.finish().await;
}

#[tokio::test]
async fn the_bytes_of_all_answers_are_bounded() {
    let server = Running::start(config()).await;
    let big = |id: usize, size: usize| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"test_big","params":[{size}]}}"#);
    let batch = list([big(0, 40_000), big(1, 50_000), big(2, 40_000), big(3, 5_000), big(4, 10), big(5, 150_000)]);
    for answer in both(&server, &batch).await {
        assert!(answer.len() < 102_000);
        let answers = json(&answer);
        let codes: Vec<i64> = (0..6).map(|index| answers[index]["error"]["code"].as_i64().unwrap_or(0)).collect();
        assert_eq!(codes, [0, 0, -32003, -32003, 0, -32003], "what is small is always told");
        assert_eq!(error(&answers[2]), (-32003, "response too large", "limit_exceeded"));
    }
    server.finish().await;
}
