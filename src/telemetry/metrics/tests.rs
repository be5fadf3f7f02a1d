use alloy_primitives::Address;

use super::accounts::AccountView;
use super::*;

#[test]
fn names_follow_the_conventions() {
    let metrics = Metrics::new().unwrap();
    for Family { name, kind, .. } in metrics.families() {
        assert!(name.starts_with("sluice_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}: `_total` is the end of counters");
        let units = ["_milliseconds", "_ms", "_minutes", "_kilobytes"];
        assert!(!units.iter().any(|unit| name.ends_with(unit)), "{name}: base units");
    }
}

#[test]
fn a_lazy_histogram_has_no_series_before_its_first_observation() {
    let metrics = Metrics::new().unwrap();
    let lazy = Lazy::new(&metrics.clients.seconds, "eth_call");
    assert!(!metrics.render().unwrap().contains("eth_call"));
    lazy.observe(0.5);
    lazy.observe(0.5);
    let text = metrics.render().unwrap();
    assert!(text.contains("sluice_request_duration_seconds_count{method=\"eth_call\"} 2\n"), "{text}");
}

/// What a busy gateway shows: 1,000 accounts, 100 methods, 10 services, 4 environments with 3 endpoints each.
#[test]
fn the_page_of_a_large_gateway_is_bounded() {
    let metrics = Metrics::new().unwrap();
    let meters: Vec<_> = (0..1_000_u64)
        .map(|number| {
            let mut meter = metrics.accounts.meter("dev", Address::left_padding_from(&number.to_be_bytes()));
            meter.show(&AccountView { active: true, ..AccountView::default() }, Instant::now());
            meter
        })
        .collect();
    for method in 0..100 {
        let method = format!("eth_methodNumber{method}");
        metrics.clients.seconds.with_label_values(&[&method]).observe(0.001);
        metrics.clients.own_seconds.with_label_values(&[&method]).observe(0.001);
        for service in 0..10 {
            for outcome in ["ok", "error"] {
                metrics.clients.requests.with_label_values(&[&format!("service{service}"), &method, outcome]).inc();
            }
        }
    }
    for environment in ["one", "two", "three", "four"] {
        for endpoint in ["wss://a.example.org", "wss://b.example.org", "wss://c.example.org"] {
            metrics.nodes.request_seconds.with_label_values(&[environment, endpoint]).observe(0.001);
        }
        for stage in ["prepare", "queue", "sign", "order", "commit", "window", "node"] {
            metrics.transactions.stage_seconds.with_label_values(&[environment, stage]).observe(0.001);
        }
    }
    let page = metrics.render().unwrap();
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    assert!(page.lines().count() < 10_000, "{} lines", page.lines().count());
    drop(meters);
}
