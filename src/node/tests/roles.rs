//! What goes to which endpoint.

use serde_json::json;

use super::backend::{Backend, hash};
use super::*;

const READ: Roles = Roles { read: true, send: false, private: false };
const SEND: Roles = Roles { read: false, send: true, private: false };
const PRIVATE: Roles = Roles { read: false, send: false, private: true };

/// A node that reads, and one with these roles.
async fn pair(roles: Roles) -> (super::super::testing::Running, Backend, Backend) {
    let (reader, other) = (Backend::start().await, Backend::start().await);
    let pool = Setup { roles: vec![READ, roles], ..Setup::default() }.ready(&[&reader, &other]).await;
    (pool, reader, other)
}

#[tokio::test]
async fn reads_heads_and_streams_never_go_to_an_endpoint_that_does_not_read() {
    for roles in [SEND, PRIVATE] {
        let (pool, mut reader, mut sender) = pair(roles).await;
        // It is ahead, and comes first where it can.
        sender.announce((99, 99));
        let (result, ()) =
            soon(async { tokio::join!(pool.call::<u8>("eth_x", ()), async { reader.asked().await.answer(json!(1)) }) }).await;
        assert_eq!(result.unwrap(), 1);
        let every = pool.call_every::<u8>("eth_y", ());
        let (answers, ()) = soon(async { tokio::join!(every, async { reader.asked().await.answer(json!(2)) }) }).await;
        assert_eq!((answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), pool.readers().len()), (vec![2], 1));
        let params = raw(["logs"]);
        let (stream, ()) = soon(async { tokio::join!(pool.subscribe(&params), async { reader.asked().await.answer(json!("0x5")) }) }).await;
        drop(stream.unwrap());
        assert_eq!(pool.heads().borrow().as_ref().map(|head| head.number), Some(10));
        assert_eq!((pool.endpoints()[1].head, pool.endpoints()[1].up), (None, true));
        assert!(sender.nothing_asked());
        // With nobody left who reads, they wait for one.
        reader.down().await;
        until(&pool, |pool| pool.fault().is_some()).await;
        assert!(pool.send_fault().is_none() && soon(pool.call_every::<u8>("eth_y", ())).await.iter().all(Result::is_err));
        let script = async {
            reader.up().await;
            while reader.asked().await.method != "eth_z" {}
        };
        tokio::select! {
            result = pool.call::<u8>("eth_z", ()) => panic!("{result:?}"),
            () = soon(script) => {}
        }
        assert!(sender.nothing_asked());
    }
}

#[tokio::test]
async fn what_is_sent_goes_to_those_alone_that_take_transactions() {
    let (pool, mut reader, mut sender) = pair(SEND).await;
    assert_eq!(pool.senders(), 1);
    let tickets = pool.send_raw(raw(["0x01"]).into());
    assert_eq!(tickets.len(), 1);
    sender.asked().await.answer(json!(hash(1)));
    for ticket in tickets {
        assert!(soon(ticket).await.is_ok());
    }
    let tickets = pool.send_raw_to(0, &[raw(["0x02"]).into()]);
    assert_eq!(sender.asked().await.params, json!(["0x02"]));
    assert_eq!((tickets.len(), pool.send_raw_to(1, &[raw(["0x03"]).into()]).len()), (1, 0));
    let params = raw([1]);
    let bundle = pool.hand_in("eth_sendBundle", Some(&params));
    let (result, ()) = soon(async { tokio::join!(bundle, async { sender.asked().await.answer(json!("bundled")) }) }).await;
    assert_eq!(result.unwrap().get(), "\"bundled\"");
    assert!(reader.nothing_asked());
}

#[tokio::test]
async fn what_is_private_goes_nowhere_while_its_endpoint_is_away() {
    let (pool, mut reader, mut private) = pair(PRIVATE).await;
    private.down().await;
    until(&pool, |pool| pool.send_fault().is_some()).await;
    assert!(pool.fault().is_none(), "reads go on");
    let ticket = pool.send_raw(raw(["0x01"]).into()).remove(0);
    assert!(matches!(soon(ticket).await, Err(CallError::Unavailable)));
    let ticket = pool.send_raw_to(0, &[raw(["0x01"]).into()]).remove(0);
    assert!(matches!(soon(ticket).await, Err(CallError::Unavailable)));
    assert!(matches!(soon(pool.hand_in("eth_sendBundle", None)).await, Err(CallError::Unavailable)));
    assert!(reader.nothing_asked());
    private.up().await;
    until(&pool, |pool| pool.send_fault().is_none()).await;
    assert!(private.nothing_asked(), "nothing is sent by itself");
}

#[tokio::test]
async fn what_was_handed_in_is_never_repeated() {
    let (mut one, mut two) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&one, &two]).await;
    let script = async { one.asked().await.peer.disconnect() };
    let (result, ()) = soon(async { tokio::join!(pool.hand_in("eth_sendBundle", None), script) }).await;
    assert!(matches!(result, Err(CallError::Lost)), "it may have arrived");
    one.down().await;
    until(&pool, |pool| !pool.endpoints()[0].up).await;
    let script = async { two.asked().await.answer(json!(1)) };
    let (result, ()) = soon(async { tokio::join!(pool.hand_in("eth_sendBundle", None), script) }).await;
    assert_eq!(result.unwrap().get(), "1", "nothing was sent to the one that is away");
}
