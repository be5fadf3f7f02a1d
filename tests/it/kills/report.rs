//! Every kill on record, one JSON line each, in `.parts/soak/kills.jsonl`; `scripts/soak` adds them up.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::plan::Moment;
use super::run::{Done, Kill, Wanted};
use crate::support::parts;

/// Appends the run's kills and violations.
pub(super) fn write(wanted: &Wanted, done: &Done) {
    let folder = parts::folder().join("soak");
    std::fs::create_dir_all(&folder).unwrap();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let run = |more: Value| {
        let mut line = json!({ "time": time, "environment": wanted.environment.name(), "seed": wanted.seed, "world": wanted.world });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let mut lines: String = done.kills.iter().enumerate().map(|(number, kill)| run(line(number, kill))).collect();
    lines.extend(done.violations.iter().map(|violation| run(json!({ "violation": violation.to_string() }))));
    let file = std::fs::File::options().create(true).append(true).open(folder.join("kills.jsonl"));
    file.unwrap().write_all(lines.as_bytes()).unwrap();
}

fn line(number: usize, kill: &Kill) -> Value {
    let (edge, passing) = match kill.planned {
        Moment::Edge(edge, passing) => (edge.to_string(), json!(passing)),
        Moment::Random(_) => ("random".to_owned(), Value::Null),
    };
    if kill.hit {
        json!({ "kill": number, "edge": edge, "passing": passing })
    } else {
        json!({ "kill": number, "edge": "random", "planned": edge, "passing": passing })
    }
}
