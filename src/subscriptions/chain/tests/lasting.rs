//! Clients of their own streams of the chain.

use jsonrpsee::RpcModule;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::subscriptions::connection::ConnectionHandle;

/// I8: a client that has no room holds nothing, delays nobody, and misses nothing.
#[tokio::test]
async fn a_client_without_room_lags_and_misses_nothing() {
    let world = World::with(2).await;
    let connections = ["slow", "quick"].map(|_| ConnectionHandle::new(CancellationToken::new(), 1 << 20));
    let mut module = RpcModule::new((world.feed.clone(), connections.clone()));
    module
        .register_subscription("subscribe", "event", "unsubscribe", |params, pending, context, _| async move {
            let (feed, connections) = &*context;
            let stream = Lasting::open(feed, About::Heads, None).await.unwrap();
            let Ok(sink) = pending.accept().await else { return };
            stream.serve(sink, connections[params.one::<usize>().unwrap()].clone()).await;
        })
        .unwrap();
    let mut slow = module.subscribe("subscribe", [0], 4).await.unwrap();
    let mut quick = module.subscribe("subscribe", [1], 4).await.unwrap();
    let full = 1 << 20;
    connections[0].owe(full);
    for number in 11..=40 {
        world.node.announce((number, number as u8));
        let (told, _) = soon(quick.next::<Value>()).await.unwrap().unwrap();
        assert_eq!(told, header((number, number as u8)));
        // Nobody writes here what was counted in.
        connections[1].pay(usize::MAX);
    }
    assert_eq!(connections[0].owed(), full, "nothing was counted in for it");
    connections[0].pay(usize::MAX);
    for number in 11..=40 {
        let (told, _) = soon(slow.next::<Value>()).await.unwrap().unwrap();
        assert_eq!(told, header((number, number as u8)));
        connections[0].pay(usize::MAX);
    }
}
