//! Many clients at once, in whatever order.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use futures_util::future::join_all;

use super::*;

/// However the joins fall between the results: nobody misses one after its id was answered, and nobody gets one twice.
#[tokio::test(flavor = "multi_thread")]
async fn late_joiners_neither_miss_nor_double() {
    const LAST: u64 = 3000;
    let mut world = World::start().await;
    let (mut first, asked) = world.opened(LOGS, "0x5").await;
    let sent = Arc::new(AtomicU64::new(0));
    let feed = async {
        for n in 1..=LAST {
            sent.store(n, SeqCst);
            asked.peer.notify("0x5", json!(n));
            // In step with one reader, so that no queue overflows.
            assert_eq!(first.number().await, n);
        }
    };
    let joins = join_all((0..40_u32).map(|client| {
        let (world, sent) = (&world, &sent);
        async move {
            for _ in 0..client * 7 {
                tokio::task::yield_now().await;
            }
            let before = sent.load(SeqCst);
            let mut late = world.subscribe(LOGS).await.unwrap();
            let answered = sent.load(SeqCst);
            if answered == LAST {
                return 0;
            }
            let mut n = late.number().await;
            assert!(n >= before && n <= answered + 1, "{before} < {n} <= {answered}");
            while n < LAST {
                let next = late.number().await;
                assert_eq!(next, n + 1);
                n = next;
            }
            1
        }
    }));
    let ((), joined) = tokio::join!(feed, joins);
    assert!(joined.into_iter().sum::<u32>() > 0, "somebody came in between");
}

/// Clients come and go while relays begin, linger and end: everybody who has an id is told what happens, and nothing stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn joins_and_leaves_in_any_order_leave_nothing_behind() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 60;
    let World { mut node, module, hub, next, _pool, .. } = World::with(3, Duration::from_millis(1)).await;
    let open = Arc::new(Mutex::new(BTreeMap::new()));
    let subscriptions = open.clone();
    let script = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut made = 0;
        loop {
            tokio::select! {
                asked = node.asked() => match asked.method.as_str() {
                    "eth_subscribe" => {
                        made += 1;
                        let id = format!("{made:#x}");
                        asked.answer(json!(id));
                        subscriptions.lock().unwrap().insert(id, (asked.params, asked.peer));
                    }
                    _ => {
                        let id = asked.params[0].as_str().unwrap();
                        assert!(subscriptions.lock().unwrap().remove(id).is_some(), "{id} is ended once");
                    }
                },
                _ = ticks.tick() => {
                    for (id, (params, peer)) in &*subscriptions.lock().unwrap() {
                        peer.notify(id, params.clone());
                    }
                }
            }
        }
    });
    let (module, next) = (&module, &next);
    let clients = (0..CLIENTS).map(|client| async move {
        for round in 0..ROUNDS {
            let kind = (client * 7 + round * round) % 3;
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["logs",{kind}]}}"#);
            // Nothing is written, so nothing makes room on a connection.
            *next.lock().unwrap() = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
            let (answer, mut notifications) = soon(module.raw_json_request(&request, QUEUE)).await.unwrap();
            let answer: Value = serde_json::from_str(answer.get()).unwrap();
            assert!(answer["result"].is_number(), "{answer}");
            let told = soon(notifications.recv()).await.unwrap();
            assert!(told.get().contains(&format!(r#""result":["logs",{kind}]"#)), "{told}");
            if (client + round) % 2 == 0 {
                let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_unsubscribe","params":[{}]}}"#, answer["result"]);
                let (gone, _) = soon(module.raw_json_request(&request, 1)).await.unwrap();
                assert!(gone.get().contains(r#""result":true"#), "{gone}");
            }
            drop(notifications);
            if round % 5 == 0 {
                // Long enough for a relay to end, now and then.
                tokio::time::sleep(Duration::from_millis(client as u64)).await;
            }
        }
    });
    join_all(clients).await;
    soon(async {
        while !(hub.0.relays.is_empty() && open.lock().unwrap().is_empty()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(free(&hub, "payments"), 3);
    assert!(!script.is_finished());
    script.abort();
}
