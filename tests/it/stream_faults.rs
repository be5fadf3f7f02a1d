//! Streams of heads while the connections to two endpoints of one chain fail, with a reorg meanwhile or without: what each client was told is
//! compared with the chain.

use alloy_primitives::B256;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sluice_load_tests::client::Subscription;
use sluice_load_tests::node_proxy::NodeProxy;
use sluice_load_tests::sim_kms::{self, SimKms};
use sluice_load_tests::sim_node::{self, Reorg, Returned, SimNode};

use crate::support::anvil::parse;
use crate::support::configuration::{Configuration, Extra, Keys};
use crate::support::gateway::{Gateway, sluice};
use crate::support::{ANYWHERE, eventually, soon};

const CLIENTS: usize = 20;
/// Faults of each kind; `SLUICE_STREAM_FAULTS` says another number.
const FAULTS: u64 = 10;

/// What happens to the connections.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Both are cut, and made again at once.
    Cut,
    /// The first endpoint is away.
    Failover,
    /// Both are away.
    Away,
}

/// The chain as a client makes it of what it is told.
#[derive(Debug, Default)]
struct View(Vec<B256>);

impl View {
    /// The next header: it follows a block of the view, whatever was above that is orphaned, and it is not told twice.
    fn told(&mut self, head: &Value) -> Result<(), String> {
        let (hash, parent) = (parse::<B256>(&head["hash"]), parse::<B256>(&head["parentHash"]));
        let below = self.0.iter().rposition(|block| *block == parent).ok_or_else(|| format!("a block before {hash} is missing"))?;
        if self.0.contains(&hash) {
            return Err(format!("{hash} is told twice"));
        }
        self.0.truncate(below + 1);
        self.0.push(hash);
        Ok(())
    }
}

#[test]
fn a_view_finds_what_is_missing_doubled_or_out_of_order() {
    let head = |hash: u8, parent: u8| json!({ "hash": B256::repeat_byte(hash), "parentHash": B256::repeat_byte(parent) });
    let told = |heads: &[(u8, u8)]| {
        let mut view = View(vec![B256::repeat_byte(1)]);
        heads.iter().try_for_each(|(hash, parent)| view.told(&head(*hash, *parent))).map(|()| view.0.len())
    };
    assert_eq!(told(&[(2, 1), (3, 2), (4, 3)]), Ok(4));
    assert_eq!(told(&[(2, 1), (3, 2), (12, 1), (13, 12), (14, 13)]), Ok(4), "a reorg");
    assert!(told(&[(2, 1), (4, 3)]).unwrap_err().contains("missing"));
    assert!(told(&[(2, 1), (3, 2), (3, 2)]).unwrap_err().contains("twice"));
    assert!(told(&[(3, 2), (2, 1)]).unwrap_err().contains("missing"));
    assert!(told(&[(2, 1), (13, 12)]).unwrap_err().contains("missing"), "the first block of a branch");
}

/// Sluice between a simulated KMS and two ways to one simulated node.
struct Stage {
    node: SimNode,
    ways: [NodeProxy; 2],
    gateway: Gateway,
}

impl Stage {
    fn head(&self) -> (u64, B256) {
        self.node.with(|node, _| (node.chain().head().number(), node.chain().head().hash))
    }

    fn mine(&self) {
        self.node.mine();
    }

    async fn fault(&self, kind: Kind, number: u64) {
        let away: &[NodeProxy] = match kind {
            Kind::Cut => &[],
            Kind::Failover => &self.ways[..1],
            Kind::Away => &self.ways,
        };
        away.iter().for_each(|way| way.refuse(true));
        let cut = if away.is_empty() { &self.ways } else { away };
        cut.iter().for_each(NodeProxy::cut);
        (0..=number % 3).for_each(|_| self.mine());
        if number % 2 == 1 {
            let depth = 1 + number % 4;
            self.node.reorg(Reorg { depth, blocks: depth + 1, transactions: Returned::Lost });
        }
        self.away(away.len()).await;
        // A failover ends while the gateway streams by the other endpoint, or before that has told its head.
        let is_by_the_other = matches!(kind, Kind::Failover) && number % 4 < 2;
        if is_by_the_other {
            self.caught_up().await;
        }
        away.iter().for_each(|way| way.refuse(false));
        self.caught_up().await;
    }

    /// Waits until the gateway knows that so many endpoints are away.
    async fn away(&self, endpoints: usize) {
        eventually("the endpoints to be missed", || async {
            let (_, page) = self.gateway.admin("metrics").await;
            let down = page.lines().filter(|line| line.starts_with("sluice_upstream_up{") && line.ends_with("} 0")).count();
            (down >= endpoints).then_some(())
        })
        .await;
    }

    /// Waits until the gateway knows the node's head.
    async fn caught_up(&self) {
        let wanted = self.head().0 as f64;
        eventually("the head to be known", || async {
            (self.gateway.metric("sluice_head_number{environment=\"dev\"}").await == wanted).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_sees_the_chain_whatever_happens_to_the_connections() {
    let kms = SimKms::new(sim_kms::Settings::new(7, 1).with_tag("app", "payments"));
    let node = SimNode::new(sim_node::Settings::new(sim_node::Client::Geth, 31337, 7));
    let (keys, endpoint) = (kms.listen(ANYWHERE).await.unwrap(), node.listen(ANYWHERE).await.unwrap());
    let ways = [NodeProxy::start(endpoint.address()).await.unwrap(), NodeProxy::start(endpoint.address()).await.unwrap()];
    let folder = tempfile::tempdir().unwrap();
    let (keys_url, url, extra) = (keys.url(), ways[0].url(), Extra::default());
    let configuration = Configuration { chain_id: 31337, node: &url, keys: Keys::Kms(&keys_url), service: "payments", extra: &extra };
    let both = configuration
        .text()
        .replace(&format!("{{ url = \"{url}\" }}"), &format!("{{ url = \"{url}\" }}, {{ url = \"{}\" }}", ways[1].url()));
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, both).unwrap();
    let log = folder.path().join("gateway.log");
    let gateway = Gateway::start(sluice(&["serve", file.to_str().unwrap()]), "payments", &log).await.ready().await;
    let stage = Stage { node, ways, gateway };
    // A reorg is never deeper than this.
    (0..8).for_each(|_| stage.mine());
    stage.caught_up().await;

    let clients = join_all((0..CLIENTS).map(|_| stage.gateway.connect())).await;
    let streams = join_all(clients.iter().map(|client| client.subscribe(json!(["newHeads"])))).await;
    let mut streams: Vec<Subscription> = streams.into_iter().map(Result::unwrap).collect();
    let start: Vec<B256> = stage.node.with(|node, _| node.chain().canonical().map(|block| block.hash).collect());
    let faults = std::env::var("SLUICE_STREAM_FAULTS").map_or(FAULTS, |faults| faults.parse().unwrap());
    for number in 0..faults {
        for kind in [Kind::Cut, Kind::Failover, Kind::Away] {
            stage.fault(kind, number).await;
        }
    }
    stage.mine();

    let chain: Vec<B256> = stage.node.with(|node, _| node.chain().canonical().map(|block| block.hash).collect());
    for (client, stream) in streams.iter_mut().enumerate() {
        let mut view = View(start.clone());
        while view.0.last() != chain.last() {
            let head = soon("the newest head", stream.next()).await.unwrap_or_else(|| panic!("client {client} was ended: {view:?}"));
            view.told(&head).unwrap_or_else(|why| panic!("client {client}: {why}"));
        }
        assert_eq!(view.0, chain, "client {client}");
    }
    let steps = async |kind: &str| stage.gateway.metric(&format!("sluice_stream_steps_total{{environment=\"dev\",kind=\"{kind}\"}}")).await;
    assert!(steps("fetched").await > 0.0 && steps("orphaned").await > 0.0, "faults that nobody noticed prove nothing");
    assert_eq!(steps("gap").await, 0.0);
}
