//! The example and the reference name every key that the reader knows, and no other, with the code's types, defaults and bounds.

use reader::KeyFacts;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/sluice.example.toml");
const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// The example with everything that is off switched on.
fn whole_example() -> String {
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ");
    EXAMPLE.lines().map(|line| if is_setting(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

fn read_whole_example() -> (Option<Config>, BTreeMap<String, KeyFacts>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("secrets")).unwrap();
    std::fs::write(folder.path().join("secrets/keystore.password"), "p\n").unwrap();
    let variables: BTreeMap<String, String> =
        ["SIGNER_ACCESS_KEY_ID", "SIGNER_SECRET_ACCESS_KEY", "SIGNER_SESSION_TOKEN"].map(|name| (name.to_owned(), "x".to_owned())).into();
    let context = Context::new(&variables, folder.path());
    let text = whole_example();
    let config = read(&context, &text);
    // Where a secret comes from is told once, not for each secret.
    let mut facts = context.facts.take();
    facts.retain(|key, _| !key.ends_with(".env") && !key.ends_with(".file"));
    (finish(context, &text, config).map_err(|errors| errors.to_string()).map(Some).unwrap(), facts)
}

#[test]
fn the_example_is_right_as_it_stands_and_as_a_whole() {
    let config = parse(EXAMPLE, no_variables()).unwrap();
    assert_eq!((config.environments.len(), config.configurations.len(), config.services.len()), (1, 1, 1));
    let (config, _) = read_whole_example();
    let config = config.unwrap();
    assert_eq!((config.environments.len(), config.configurations.len(), config.services.len()), (1, 3, 2));
}

#[test]
fn the_example_shows_every_key_and_the_defaults() {
    let (whole, facts) = read_whole_example();
    let absent: Vec<&String> = facts.iter().filter(|(_, facts)| !facts.given).map(|(key, _)| key).collect();
    assert!(absent.is_empty(), "not in the example: {absent:?}");
    // What is off shows its default, where it has one.
    let (whole, plain) = (whole.unwrap(), parse(EXAMPLE, no_variables()).unwrap());
    let shown = |config: &Config| {
        let (mut server, mut environment) = (config.server.clone(), config.environments[0].clone());
        (server.tls, server.token_file, server.origins) = (None, None, Vec::new());
        (server.max_requests_per_second, server.default_service, server.public_url) = (None, None, None);
        environment.nodes.clear();
        format!("{server:?} {environment:?}")
    };
    assert_eq!(shown(&whole), shown(&plain));
}

#[test]
fn the_reference_is_the_code() {
    let (_, facts) = read_whole_example();
    let code: BTreeMap<String, [String; 3]> = facts
        .into_iter()
        .map(|(key, facts)| {
            let default = match facts.default.as_str() {
                word @ ("none" | "required") => word.to_owned(),
                value => format!("`{value}`"),
            };
            (key, [facts.word, default, facts.bounds])
        })
        .collect();
    let rows: Vec<Vec<&str>> = REFERENCE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut reference = BTreeMap::new();
    for row in rows {
        let [key, word, default, bounds, _meaning] = row.as_slice() else { panic!("not five columns: {row:?}") };
        let facts = [(*word).to_owned(), (*default).to_owned(), (*bounds).to_owned()];
        assert!(reference.insert(key.trim_matches('`').to_owned(), facts).is_none(), "{key} is there twice");
    }
    assert_eq!(reference, code);
}

/// Examples in the prose: every variable of the section on overrides is one.
#[test]
fn the_overrides_of_the_reference_work() {
    let lines: Vec<(String, String)> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("    SLUICE__"))
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            (format!("SLUICE__{name}"), value.trim_matches('\'').to_owned())
        })
        .collect();
    assert!(lines.len() >= 7);
    let secrets = [("SLUICE__CONFIGURATION__KMS__SECRET_ACCESS_KEY__ENV", "KEY"), ("SIGNER_ACCESS_KEY_ID", "id"), ("KEY", "key")];
    let config = parse(EXAMPLE, lines.into_iter().chain(variables(&secrets))).unwrap();
    assert_eq!(config.environments[0].chain_id, 1337);
    assert_eq!(config.environments[0].nodes.len(), 2);
}
