//! The dashboard and the alert rules against a real Prometheus that scrapes a real gateway under load.

use std::collections::BTreeSet;
use std::process::Command;

use alloy_primitives::Address;
use serde_json::{Value, json};
use sluice_load_tests::client::Client;
use sluice_load_tests::kms_proxy::{KmsAnswer, KmsFault};

use crate::support::gateway::{Gateway, run, words};
use crate::support::parts::{self, Part, have};
use crate::support::prometheus::{Prometheus, dashboard};
use crate::support::world::{World, transfer};
use crate::support::{eventually, soon};

fn overview() -> Value {
    serde_json::from_str(&std::fs::read_to_string(dashboard("sluice-overview.json")).unwrap()).unwrap()
}

/// Every query of a panel, with the panel's title.
fn panels(overview: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in overview["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        for target in targets.unwrap_or_else(|| panic!("{} asks for nothing", panel["title"])) {
            queries.push((panel["title"].as_str().unwrap().into(), target["expr"].as_str().unwrap().into()));
        }
    }
    queries
}

/// The query as Grafana sends it, with every variable set to all.
fn filled(query: &str, overview: &Value) -> String {
    let mut query = query.replace("$__rate_interval", "15s").replace("$__range", "1m");
    for variable in overview["templating"]["list"].as_array().unwrap() {
        if let Some(all) = variable["allValue"].as_str() {
            query = query.replace(&format!("${}", variable["name"].as_str().unwrap()), all);
        }
    }
    assert!(!query.contains('$'), "a variable that is not defined: {query}");
    query
}

/// The series that a rule compares with numbers: `a > 1 and b < 2` gives `a` and `b`.
fn compared(rule: &str) -> Vec<String> {
    // Operators count at the top level alone: what is in brackets or quotes is blotted out, byte by byte.
    let (mut depth, mut quoted) = (0, false);
    let top: String = rule
        .chars()
        .map(|c| {
            quoted ^= c == '"';
            depth -= i32::from(!quoted && matches!(c, ')' | '}' | ']'));
            let seen = if depth > 0 || quoted || !c.is_ascii() { "_".repeat(c.len_utf8()) } else { c.to_string() };
            depth += i32::from(!quoted && matches!(c, '(' | '{' | '['));
            seen
        })
        .collect();
    let mut ends: Vec<usize> = top.match_indices("and").map(|(at, _)| at).filter(|at| is_word(&top, *at)).collect();
    ends.push(rule.len());
    let mut start = 0;
    let mut sides = Vec::new();
    for end in ends {
        let operator = start + top[start..end].rfind(['<', '>']).unwrap_or_else(|| panic!("no comparison: {rule}"));
        let number = rule[operator + 1..end].trim();
        assert!(number.parse::<f64>().is_ok(), "not compared with a number: {rule}");
        sides.push(rule[start..operator].trim().to_owned());
        start = (end + "and".len()).min(rule.len());
    }
    sides
}

/// Whether the three letters at `at` stand alone.
fn is_word(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    at > 0 && bytes[at - 1].is_ascii_whitespace() && bytes.get(at + 3).is_some_and(u8::is_ascii_whitespace)
}

#[test]
fn a_rule_is_taken_apart() {
    assert_eq!(compared(r#"up{job="a > 1"} < 1"#), [r#"up{job="a > 1"}"#]);
    assert_eq!(compared("sum by (x) (a) > 0\nand\nsum by (x) (rate(b[5m])) < 1"), ["sum by (x) (a)", "sum by (x) (rate(b[5m]))"]);
}

/// One round of everything that clients do, right and wrong.
async fn round(world: &World, gateway: &Gateway, client: &Client, accounts: &[Address], round: u64) {
    let sends = (0..8).map(|i| client.start("eth_sendTransaction", transfer(accounts[i % accounts.len()], round * 8 + i as u64)));
    let sends: Vec<_> = sends.collect();
    for (method, params) in [
        ("eth_blockNumber", json!([])),
        ("eth_getBalance", json!([accounts[0], "latest"])),
        ("eth_call", json!([{ "to": "0x01" }, "latest"])),
        ("sluice_noSuchMethod", json!([])),
        ("eth_sendTransaction", json!([{ "from": Address::repeat_byte(9), "to": accounts[0] }])),
        ("personal_sign", json!(["0x00", accounts[0]])),
    ] {
        // Errors are part of the load, and lost connections too.
        let _ = client.request(method, params).await;
    }
    let _ = gateway.call("eth_chainId", json!([])).await;
    for send in sends {
        let _ = send.await;
    }
    if round % 8 == 3 {
        world.kms_proxy.set_faults([KmsFault::signs(1, KmsAnswer::throttled())]);
    }
    tokio::task::yield_now().await;
}

/// Clients at work, for as long as it is polled; the node's connection is lost once.
async fn load(world: &World, gateway: &Gateway, accounts: &[Address]) {
    let client = gateway.connect().await;
    let mut watcher = None;
    for number in 0.. {
        if watcher.as_ref().is_none_or(|(client, ..): &(Client, _, _)| client.is_closed()) {
            let client = gateway.connect().await;
            let heads = client.subscribe(json!(["newHeads"])).await;
            let receipts = client.subscribe(json!(["transactionReceipts"])).await;
            watcher = Some((client, heads, receipts));
        }
        round(world, gateway, &client, accounts, number).await;
        if number == 2 {
            world.node.cut();
        }
    }
}

/// Asks until the query has an answer that a panel can show.
async fn shown(prometheus: &Prometheus, what: &str, query: &str) {
    eventually(&format!("{what}: {query}"), || async {
        let values = prometheus.query(query).await.unwrap_or_else(|error| panic!("{what}: {query}: {error}"));
        values.iter().any(|value| value.is_finite()).then_some(())
    })
    .await;
}

async fn no_panel_is_empty(prometheus: &Prometheus, overview: &Value) {
    for (title, query) in panels(overview) {
        shown(prometheus, &title, &filled(&query, overview)).await;
    }
    for annotation in overview["annotations"]["list"].as_array().unwrap() {
        for side in compared(annotation["expr"].as_str().unwrap()) {
            shown(prometheus, "annotation", &side).await;
        }
    }
    let values = prometheus.ask("label/environment/values", &[("match[]", "sluice_upstream_up")]).await.unwrap();
    assert_eq!(values, json!(["dev"]), "the variable of the dashboard");
}

/// Every rule is evaluated without an error, and the series that it compares are there: it can fire.
async fn every_rule_can_fire(prometheus: &Prometheus) {
    let rules = eventually("the rules to be evaluated", || async {
        let groups = prometheus.ask("rules", &[]).await.unwrap();
        let rules: Vec<Value> =
            groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    })
    .await;
    let written = std::fs::read_to_string(dashboard("alerts.yml")).unwrap().matches("- alert: ").count();
    assert_eq!(rules.len(), written);
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].as_str().is_some_and(|text| text.len() > 10), "{name}: {annotation}");
        }
        for side in compared(rule["query"].as_str().unwrap()) {
            let values = prometheus.query(&side).await.unwrap_or_else(|error| panic!("{name}: {side}: {error}"));
            assert!(!values.is_empty(), "{name} can never fire, there is no series: {side}");
        }
    }
}

/// Every metric that the dashboard names is on the gateway's page.
fn every_metric_is_there(page: &str, overview: &Value) {
    let exists: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let queries: Vec<String> = panels(overview).into_iter().map(|(_, query)| query).collect();
    let mut looked_at = 0;
    for word in queries.join(" ").split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("sluice_")) {
        looked_at += 1;
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|end| word.strip_suffix(end)).any(|name| exists.contains(name));
        assert!(of_histogram || exists.contains(word), "{word} is not on the page of metrics");
    }
    assert!(looked_at > 50, "{looked_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_panel_is_empty_and_every_rule_can_fire() {
    const NAME: &str = "no_panel_is_empty_and_every_rule_can_fire";
    if !have(NAME, &[Part::Prometheus]) {
        return;
    }
    let Some(mut world) = World::start(NAME).await else { return };
    world.extra.configuration = "refresh = \"1s\"".into();
    let accounts = world.accounts(2).await;
    world.slow_signs(5);
    let gateway = world.gateway().await;
    let prometheus = Prometheus::start(world.folder.path(), gateway.admin).await;
    let overview = overview();
    let checks = async {
        no_panel_is_empty(&prometheus, &overview).await;
        every_rule_can_fire(&prometheus).await;
        every_metric_is_there(&gateway.admin("metrics").await.1, &overview);
    };
    tokio::select! {
        () = load(&world, &gateway, &accounts) => panic!("the load ended"),
        () = checks => {}
    }
    // The real thing once: no node, and the rule says so.
    world.node.refuse(true);
    world.node.cut();
    eventually("the alert", || async {
        let alerts = prometheus.ask("alerts", &[]).await.unwrap();
        let mut alerts = alerts["alerts"].as_array().unwrap().iter();
        alerts.any(|alert| alert["labels"]["alertname"] == "SluiceNoReadyEndpoint" && alert["labels"]["environment"] == "dev").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_pass_their_unit_tests() {
    if !have("the_rules_pass_their_unit_tests", &[Part::Prometheus]) {
        return;
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let mut command = Command::new(parts::promtool());
        command.args(&arguments[..2]).arg(dashboard(arguments[2]));
        let output = soon("promtool", tokio::task::spawn_blocking(|| run(command))).await.unwrap();
        assert!(output.status.success(), "{}", words(&output));
    }
    let names = |file: &str, start: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(dashboard(file)).unwrap();
        text.lines().filter_map(|line| line.trim().strip_prefix(start)).map(str::to_owned).collect()
    };
    assert_eq!(names("alerts.yml", "- alert: "), names("alerts.test.yml", "- name: "), "every rule has a test");
}
