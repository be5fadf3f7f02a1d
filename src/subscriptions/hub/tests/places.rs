//! Places for relays: whose they are, and what becomes of those that nobody watches.

use super::*;

#[tokio::test]
async fn places_are_bounded_and_who_only_lingers_gives_way() {
    let mut world = World::with(2, LONG).await;
    let (one, _) = world.opened(LOGS, "0x1").await;
    let (_two, _) = world.opened(&filter("2"), "0x2").await;
    let third = &filter("3");
    assert_eq!(world.subscribe(third).await.err().as_deref(), Some("Full"));
    assert!(world.subscribe(LOGS).await.is_ok(), "what is there already needs no place");
    assert!(world.node.nothing_asked());
    world.unsubscribe(&one).await;
    // The other subscriber of LOGS was dropped; it is noticed by its own task.
    let asked = loop {
        let World { node, module, .. } = &mut world;
        let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":{third}}}"#);
        let answered = tokio::select! {
            answered = module.raw_json_request(&request, QUEUE) => Err(answered.unwrap().0),
            asked = node.asked() => Ok(asked),
        };
        match answered {
            Ok(asked) => break asked,
            Err(answer) => assert!(answer.get().contains("Full"), "{answer}"),
        }
        tokio::task::yield_now().await;
    };
    let methods = [asked.method, world.node.asked().await.method];
    assert!(methods.contains(&"eth_unsubscribe".to_owned()) && methods.contains(&"eth_subscribe".to_owned()), "{methods:?}");
    // A long filter takes more than one place.
    let long = format!(r#"["logs",{{"topics":["{}"]}}]"#, "0".repeat(3 * PLACE_BYTES));
    assert_eq!(world.subscribe(&long).await.err().as_deref(), Some("Full"));
}

#[tokio::test]
async fn a_service_and_a_connection_have_places_of_their_own() {
    let mut world = World::with(2, LONG).await;
    let mut open = Vec::new();
    for address in ["1", "2"] {
        open.push(world.opened(&filter(address), address).await.0);
    }
    assert_eq!(world.subscribe(&filter("3")).await.err().as_deref(), Some("Full"));
    // What no service can make more of: this node answers the first by itself.
    open.push(world.subscribe(SHARED[0]).await.unwrap());
    for (number, shared) in SHARED.into_iter().enumerate().skip(1) {
        open.push(world.opened(shared, &format!("0xa{number}")).await.0);
    }
    for address in ["other1", "other2"] {
        open.push(world.opened(&filter(address), address).await.0);
    }
    assert_eq!(world.subscribe(&filter("other3")).await.err().as_deref(), Some("Full"));
    assert_eq!((free(&world.hub, "payments"), free(&world.hub, "other")), (0, 0));

    // What two services have in common is one relay, and takes the places of the one that wanted it first.
    let shared = Subject::filter(&Arc::from("other"), &filter("1"));
    assert!(world.hub.lease(&shared, &world.connection).is_some());
    assert_eq!(free(&world.hub, "other"), 0);

    // One connection leaves half of its service's places to others.
    let mut world = World::with(PLACES, LONG).await;
    let mut open = Vec::new();
    let large = |number: usize| filter(&format!("{number}{}", "0".repeat(127 * PLACE_BYTES)));
    for number in 0..FILTERS / 128 {
        open.push(world.opened(&large(number), &format!("{number:#x}")).await.0);
    }
    assert_eq!(world.subscribe(LOGS).await.err().as_deref(), Some("Full"));
    assert_eq!(free(&world.hub, "payments"), PLACES - FILTERS);
    assert!(world.subscribe(&large(0)).await.is_ok(), "what is there already needs no place");
    let subject = Subject::filter(&Arc::from("payments"), LOGS);
    let another = ConnectionHandle::new(CancellationToken::new(), 1 << 20);
    assert!(world.hub.lease(&subject, &another).is_some());
}
