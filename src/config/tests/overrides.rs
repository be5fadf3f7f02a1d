use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn scalars_of_every_kind_are_overridden_and_added() {
    let pairs = [
        ("SLUICE__SERVER__LISTEN", "127.0.0.1:1"),
        ("SLUICE__SERVER__ORIGINS", "[\"https://a.example\"]"),
        ("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "1337"),
        ("SLUICE__ENVIRONMENT__DEV__ACCOUNT__QUEUE_DEADLINE", "10s"),
        ("SLUICE__ENVIRONMENT__DEV__ACCOUNT__QUEUE", "7"),
        ("SLUICE__ENVIRONMENT__DEV__NODES__0__URL", "ws://127.0.0.1:2"),
        ("SLUICE__SERVICE__PAYMENTS__KEYS", "{ tag = { app = \"payments\" } }"),
        ("SLUICE__SERVICE__PAYMENTS__SIGN_TRANSACTION_RESULT", "raw"),
        ("SLUICE__JOURNAL__PATH", "4"),
        ("SLUICE_PORT", "tcp://10.0.0.1:8545"),
        ("SLUICE_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let config = parse(MINIMAL, variables(&pairs)).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.server.origins, ["https://a.example"]);
    assert_eq!(config.environments[0].chain_id, 1337);
    assert_eq!(config.environments[0].account.queue_deadline, Duration::from_secs(10));
    assert_eq!(config.environments[0].account, AccountBounds { queue: 7, queue_deadline: Duration::from_secs(10), ..Default::default() });
    assert_eq!(config.environments[0].nodes[0].url.as_str(), "ws://127.0.0.1:2/");
    assert_eq!(config.services[0].keys, KeySelection::Tags([("app".to_owned(), "payments".to_owned())].into()));
    assert_eq!(config.services[0].sign_transaction_result, SignTransactionResult::Raw);
    // A text that looks like a number is a text where a text is wanted.
    assert_eq!(config.journal.path, Path::new("4"));
}

#[test]
fn an_override_replaces_what_was_wrong() {
    let text = with("chain_id = 31337", "chain_id = \"x\"");
    assert_eq!(parse(&text, variables(&[("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "5")])).unwrap().environments[0].chain_id, 5);
}

#[test]
fn a_whole_value_comes_before_its_parts_and_a_new_name_last() {
    let pairs = [
        ("SLUICE__ENVIRONMENT__DEV__ACCOUNT", "{ queue = 5, sign_window = 6 }"),
        ("SLUICE__ENVIRONMENT__DEV__ACCOUNT__QUEUE", "7"),
        ("SLUICE__ENVIRONMENT__DEV__NAME", "staging"),
        ("SLUICE__ENVIRONMENT__DEV__NODES__0__URL", "ws://127.0.0.1:2"),
        ("SLUICE__SERVICE__PAYMENTS__ENVIRONMENT", "staging"),
    ];
    let config = parse(MINIMAL, variables(&pairs)).unwrap();
    assert_eq!(config.environments[0].name, "staging");
    assert_eq!((config.environments[0].account.queue, config.environments[0].account.sign_window), (7, 6));
    assert_eq!(config.services[0].environment, "staging");
}

#[test]
fn what_means_nothing_is_an_error() {
    let cases: &[(&str, &str, &str, Fault)] = &[
        ("SLUICE__SERVER__LISTN", "127.0.0.1:1", "server.listn", Fault::Unknown),
        ("SLUICE__SEVER__LISTEN", "127.0.0.1:1", "sever", Fault::Unknown),
        ("SLUICE__", "x", "", Fault::Unknown),
        ("SLUICE__SERVER__", "x", "", Fault::Unknown),
        ("SLUICE__SERVER____LISTEN", "x", "", Fault::Unknown),
        ("SLUICE__ENVIRONMENT__PROD__CHAIN_ID", "1", "environment.prod", Fault::Reference),
        ("SLUICE__ENVIRONMENT__DEV__NODES__1__URL", "ws://a", "environment.dev.nodes.1", Fault::Reference),
        ("SLUICE__ENVIRONMENT__DEV__CHAIN_ID__X", "1", "environment.dev.chain_id", Fault::Unknown),
        ("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "one", "environment.dev.chain_id", Fault::Type),
        ("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "", "environment.dev.chain_id", Fault::Type),
        ("SLUICE__ENVIRONMENT__DEV__CHAIN_ID", "0", "environment.dev.chain_id", Fault::Value),
        ("SLUICE__ENVIRONMENT__DEV__HOLD", "600", "environment.dev.hold", Fault::Type),
        ("SLUICE__SERVER__PLAINTEXT", "yes", "server.plaintext", Fault::Type),
        ("SLUICE__SERVICE__PAYMENTS__CONFIGURATIONS", "kms", "service.payments.configurations", Fault::Type),
        ("SLUICE__SERVICE__PAYMENTS__CONFIGURATIONS__0", "kmz", "service.payments.configurations[0]", Fault::Reference),
    ];
    for (name, value, key, fault) in cases {
        assert_faults(MINIMAL, &[(name, value)], &[(key, *fault)]);
        // A part of a list stands where the list stands.
        let place = &errors_of(MINIMAL, &[(name, value)])[0].place;
        assert!(*place == Place::Variable((*name).into()) || key.ends_with(']'), "{name}: {place}");
    }
    assert_faults(
        "",
        &[("SLUICE__SERVICE__A__NAME", "b")],
        &[
            ("journal.path", Fault::Missing),
            ("environment", Fault::Missing),
            ("configuration", Fault::Missing),
            ("service", Fault::Missing),
            ("service", Fault::Reference),
        ],
    );
}

#[test]
fn two_variables_for_one_key_are_an_error() {
    let pairs = [("SLUICE__SERVER__DRAIN", "1s"), ("SLUICE__server__drain", "2s")];
    assert_faults(MINIMAL, &pairs, &[("", Fault::Duplicate)]);
}

proptest! {
    /// Any right name of an environment is reached by its name in capitals, and only that one is.
    #[test]
    fn every_name_can_be_addressed(
        name in "[a-zA-Z0-9]{1,6}([-_][a-zA-Z0-9]{1,6}){0,3}",
        other in "[a-z]{1,6}x",
        chain_id in 1_u64..u64::MAX / 2 - 36,
    ) {
        prop_assume!(!name.eq_ignore_ascii_case(&other) && chain_id != 31337);
        let text = MINIMAL.replace("\"dev\"", &format!("\"{other}\""));
        let text = format!("{text}\n[[environment]]\nname = \"{name}\"\nchain_id = 2\nnodes = [{{ url = \"ws://a\" }}]\n");
        let variable = format!("SLUICE__ENVIRONMENT__{}__CHAIN_ID", name.to_uppercase().replace('-', "_"));
        let config = parse(&text, [(variable, chain_id.to_string())]).unwrap();
        prop_assert_eq!(config.environments[1].chain_id, chain_id);
        prop_assert_eq!(config.environments[0].chain_id, 31337);
    }

    /// No text and no variable makes the reader panic, and what it refuses has a reason.
    #[test]
    fn nothing_panics(text in "\\PC{0,80}", name in "SLUICE__[A-Z_0-9]{0,24}", value in "\\PC{0,24}") {
        for text in [text.as_str(), MINIMAL] {
            if let Err(errors) = parse(text, [(name.clone(), value.clone())]) {
                prop_assert!(errors.iter().len() > 0);
                prop_assert!(errors.iter().all(|error| !error.message.is_empty()));
            }
        }
    }
}
