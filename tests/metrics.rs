//! The page of metrics says what the code registers, and the dashboards ask for nothing else.
// Tests may panic, and so may what they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sluice_gateway::telemetry::metrics::Metrics;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Type and labels by name, as the code registers them.
fn registered() -> BTreeMap<String, (String, Vec<String>)> {
    let metrics = Metrics::new().unwrap();
    let families = metrics.families().iter();
    families.map(|family| (family.name.into(), (family.kind.into(), family.labels.iter().map(|&label| label.into()).collect()))).collect()
}

/// The cells of every row whose first cell is a metric.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with("| `sluice_"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands in backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_page_of_metrics_lists_exactly_the_metrics() {
    let page = read("docs/metrics.md");
    let rows = rows(&page);
    let documented: BTreeMap<String, (String, Vec<String>)> =
        rows.iter().map(|cells| (code(cells[0]).remove(0), (cells[1].to_owned(), code(cells[2])))).collect();
    assert_eq!(documented.len(), rows.len(), "no metric twice");
    assert_eq!(documented, registered());
}

#[test]
fn every_row_has_a_unit_a_meaning_and_what_to_look_at() {
    let page = read("docs/metrics.md");
    for cells in rows(&page) {
        assert_eq!(cells.len(), 6, "{cells:?}");
        assert!(cells[3..].iter().all(|cell| !cell.is_empty()), "{cells:?}");
        if cells[1] == "histogram" && cells[0].contains("_seconds") {
            assert_eq!(cells[3], "seconds", "{cells:?}");
        }
    }
}

/// Names of metrics in a text; those of a histogram's series become the histogram's.
fn named(text: &str, known: &BTreeMap<String, (String, Vec<String>)>) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("sluice_"));
    let base = |word: &str| {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        histogram.filter(|name| known.get(*name).is_some_and(|(kind, _)| kind == "histogram")).unwrap_or(word).to_owned()
    };
    words.map(base).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let known = registered();
    let dashboard = named(&read("dashboards/sluice-overview.json"), &known);
    assert_eq!(dashboard, known.keys().cloned().collect());
}

#[test]
fn the_rules_ask_for_metrics_that_exist() {
    let known = registered();
    for file in ["dashboards/alerts.yml", "dashboards/alerts.test.yml"] {
        let names = named(&read(file), &known);
        assert!(names.len() > 10, "{file}");
        for name in names {
            assert!(known.contains_key(&name), "{file}: {name}");
        }
    }
}

/// Every alarm that the code raises, by its word.
fn raised(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            raised(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split(".alarm(").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            found.extend(calls.map(str::to_owned));
        }
    }
}

#[test]
fn the_alarms_are_those_that_begin_at_0_and_those_of_the_page() {
    let mut alarms = BTreeSet::new();
    raised(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut alarms);
    assert!(alarms.len() >= 6, "{alarms:?}");
    let source = read("src/transactions/meters.rs");
    let list = source.split_once("const ALARMS: [").unwrap().1.split_once("];").unwrap().0;
    let listed: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(alarms, listed, "src/transactions/meters.rs");
    let page = read("docs/metrics.md");
    let section = page.split("### Alarms").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: BTreeSet<String> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| code(line).into_iter().next())
        .filter(|word| word != "kind")
        .collect();
    assert_eq!(alarms, rows, "docs/metrics.md");
}
