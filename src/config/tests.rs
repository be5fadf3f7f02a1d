mod development;
mod overrides;
mod reference;
mod safety;
mod secrets;
mod validation;

use super::*;

/// The shape that the reference promises, and the least that is needed.
const MINIMAL: &str = r#"
[journal]
path = "sluice.db"
[[environment]]
name = "dev"
chain_id = 31337
nodes = [{ url = "ws://127.0.0.1:8546" }]
[[configuration]]
name = "kms"
provider = "aws_kms"
region = "us-east-1"
[[service]]
name = "payments"
environment = "dev"
configurations = ["kms"]
"#;

fn no_variables() -> Vec<(String, String)> {
    Vec::new()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// `MINIMAL` with a line replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(MINIMAL.matches(old).count(), 1, "{old}");
    MINIMAL.replace(old, new)
}

fn errors_of(text: &str, pairs: &[(&str, &str)]) -> Vec<ConfigError> {
    match parse(text, variables(pairs)) {
        Ok(_) => panic!("no error in:\n{text}"),
        Err(errors) => errors.iter().cloned().collect(),
    }
}

/// Key paths and faults, in order.
fn faults(text: &str, pairs: &[(&str, &str)]) -> Vec<(String, Fault)> {
    errors_of(text, pairs).into_iter().map(|error| (error.key, error.fault)).collect()
}

#[track_caller]
fn assert_faults(text: &str, pairs: &[(&str, &str)], expected: &[(&str, Fault)]) {
    let expected: Vec<_> = expected.iter().map(|(key, fault)| ((*key).to_owned(), *fault)).collect();
    assert_eq!(faults(text, pairs), expected, "{:#?}", errors_of(text, pairs));
}
