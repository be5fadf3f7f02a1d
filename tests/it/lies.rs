//! An endpoint that announces what is not there: it is put out, named, and let back, and clients are told the chain.

use serde_json::{Value, json};
use sluice_load_tests::announcements::{HEADS, HeadFault};
use sluice_load_tests::faults::Faults;
use sluice_load_tests::node_proxy::NodeProxy;

use crate::support::anvil::quantity;
use crate::support::gateway::{Gateway, sluice};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_announces_what_is_not_there_is_put_out_and_named() {
    let Some(mut world) = World::start("an_endpoint_that_announces_what_is_not_there_is_put_out_and_named").await else { return };
    world.extra.environment = "clocks = { head_silence = \"500ms\" }".into();
    let from = world.accounts(1).await[0];
    let honest = NodeProxy::start(world.anvil.address).await.unwrap();
    let mut command = sluice(&["serve", &world.configuration()]);
    // The liar is the one that is asked first.
    let nodes = format!("[{{ url = \"{}\" }}, {{ url = \"{}\" }}]", world.node.url(), honest.url());
    command.env("SLUICE__ENVIRONMENT__DEV__NODES", nodes);
    let gateway = Gateway::start(command, "payments", &world.folder.path().join("gateway.log")).await.ready().await;
    let liar = async || gateway.status().await["environments"][0]["endpoints"][0].clone();
    eventually("both", || async { (gateway.status().await["environments"][0]["endpoints"][1]["up"] == true).then_some(()) }).await;
    let client = gateway.connect().await;
    let mut heads = client.subscribe(json!(["newHeads"])).await.unwrap();
    for _ in 0..5 {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
        soon("a head", heads.next()).await.unwrap();
    }

    world.node.set_head_faults(Faults::default().sometimes(HEADS, 10_000, HeadFault::OtherHistory));
    let put_out: Value = eventually("it to be put out", || async {
        world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
        let state = liar().await;
        (state["state"] == "untrusted").then_some(state)
    })
    .await;
    assert!(put_out["error"].as_str().unwrap().contains("it does not have the blocks that it announces"), "{put_out}");
    assert_eq!((&put_out["up"], &put_out["chainId"]), (&json!(false), &json!(31337)));
    let label = put_out["label"].as_str().unwrap();
    let series = |name: &str, more: &str| format!("{name}{{endpoint=\"{label}\",environment=\"dev\"{more}}}");
    assert_eq!(gateway.metric(&series("sluice_upstream_lies_total", ",kind=\"contradiction\"")).await, 1.0);
    assert_eq!(gateway.metric(&series("sluice_upstream_up", "")).await, 0.0);
    // The other one is there: everything goes on.
    let answer = soon("an answer", client.request("eth_sendTransaction", transfer(from, 1))).await.unwrap();
    eventually("a receipt", || async {
        let receipt = gateway.call("eth_getTransactionReceipt", json!([answer])).await.unwrap();
        receipt.is_object().then_some(())
    })
    .await;

    world.node.set_head_faults(Faults::default());
    eventually("it to come back", || async { (liar().await["state"] == "up").then_some(()) }).await;
    world.anvil.call("anvil_mine", json!(["0x1"])).await.unwrap();
    let newest = quantity(&world.anvil.call("eth_blockNumber", json!([])).await.unwrap());
    let mut before: Option<Value> = None;
    loop {
        let head = soon("a head", heads.next()).await.expect("the stream goes on");
        if let Some(before) = &before {
            assert_eq!(head["parentHash"], before["hash"], "nothing but the chain is told");
        }
        let real = world.anvil.call("eth_getBlockByHash", json!([head["hash"], false])).await.unwrap();
        assert_eq!(real["number"], head["number"]);
        if quantity(&head["number"]) >= newest {
            break;
        }
        before = Some(head);
    }
}
