use super::*;

fn made(node: &str, chain_id: u64, accounts: u32, listen: &str) -> Result<Config, ConfigErrors> {
    let (listen, admin) = (listen.parse().unwrap(), "127.0.0.1:9545".parse().unwrap());
    development(node.parse().unwrap(), chain_id, accounts, listen, admin, PathBuf::from("/tmp/dev.db"))
}

#[test]
fn it_is_a_whole_configuration() {
    for chain_id in [31337, 1337] {
        let config = made("ws://127.0.0.1:8546", chain_id, 10, "127.0.0.1:8545").unwrap();
        assert_eq!((config.environments[0].name.as_str(), config.environments[0].chain_id), ("dev", chain_id));
        assert_eq!(config.environments[0].nodes[0].url.as_str(), "ws://127.0.0.1:8546/");
        assert!(matches!(config.configurations[0].provider, Provider::Development { accounts: 10 }));
        assert_eq!((config.services[0].name.as_str(), config.services[0].keys.clone()), ("dev", KeySelection::All));
        assert_eq!(config.services[0].configurations, [config.configurations[0].name.clone()]);
        assert_eq!(config.journal.path, Path::new("/tmp/dev.db"));
    }
}

#[test]
fn its_keys_sign_on_development_chains_only() {
    for chain_id in [0, 1, 1336, 1338, 31336, 11155111] {
        let errors = made("ws://127.0.0.1:8546", chain_id, 10, "127.0.0.1:8545").unwrap_err();
        assert!(errors.iter().any(|error| error.key == "environment.dev.chain_id" && error.fault == Fault::Unsafe), "{errors}");
    }
}

#[test]
fn the_rules_of_a_file_hold() {
    let errors = made("ftp://127.0.0.1:8546", 31337, 0, "0.0.0.0:8545").unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    for key in ["environment.dev.nodes[0].url", "configuration.dev.accounts", "server.token_file", "server.tls"] {
        assert!(keys.contains(&key), "{errors}");
    }
    assert_eq!(keys.len(), 4, "{errors}");
}

#[test]
fn a_file_cannot_ask_for_the_development_keys() {
    let text = with("provider = \"aws_kms\"\nregion = \"us-east-1\"", "provider = \"development\"");
    assert_faults(&text, &[], &[("configuration.kms.provider", Fault::Value)]);
}
