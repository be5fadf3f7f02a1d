//! The id of a subscription stays the same whatever becomes of the connections behind it.

use super::*;
use crate::node::testing::until;

#[tokio::test]
async fn an_id_outlives_the_connection_and_the_endpoint() {
    let (first, second) = (Backend::start().await, Backend::start().await);
    let pool = ready(&[&first, &second]).await;
    let times = Times { deadline: Duration::from_secs(20), linger: LONG };
    let mut world = World::over(first, pool, 8, times);
    let mut client = world.subscribe(HEADS).await.unwrap();
    // `params` checks that the id is the one that was answered.
    world.node.announce((11, 11));
    assert_eq!(client.params().await["result"]["number"], "0xb");
    world.node.script(|script| script.head = (12, 12));
    world.node.disconnect();
    world.node.asked().await.answer(crate::node::testing::backend::header((12, 12)));
    assert_eq!(client.params().await["result"]["number"], "0xc");
    world.node.down().await;
    until(&world._pool, |pool| !pool.endpoints()[0].up).await;
    second.announce((12, 12));
    second.announce((13, 13));
    assert_eq!(client.params().await["result"]["number"], "0xd");
    assert_eq!(world.unsubscribe(&client).await, true);
}
