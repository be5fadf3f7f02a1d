use std::time::Duration;

use super::*;

#[test]
fn the_least_file_has_the_documented_defaults() {
    let config = parse(MINIMAL, no_variables()).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:8545".parse().unwrap());
    assert_eq!(config.admin.listen, "127.0.0.1:9545".parse().unwrap());
    assert_eq!(config.server.max_connections, 4096);
    assert_eq!(config.server.max_request_bytes, 5 * 1024 * 1024);
    assert_eq!(config.server.max_response_bytes, 25 * 1024 * 1024);
    assert_eq!(config.server.max_batch_items, 1000);
    assert_eq!((config.server.max_subscriptions, config.server.max_principal_subscriptions), (1024, 100_000));
    assert_eq!((config.server.ping_interval, config.server.idle_timeout), (Duration::from_secs(20), Duration::from_secs(60)));
    assert_eq!((config.server.write_timeout, config.server.max_backlog_bytes), (Duration::from_secs(10), 4 << 20));
    assert_eq!(config.server.max_small_frames_per_second, 100);
    assert_eq!((config.server.max_calls_in_flight, config.server.max_requests_per_second), (4096, None));
    assert!(config.server.default_service.is_none() && config.server.public_url.is_none() && config.log.level.is_none());
    assert_eq!(config.services[0].limits, config.server.limits());
    assert_eq!(config.server.drain, Duration::from_secs(30));
    assert!(config.server.tls.is_none() && config.server.token_file.is_none() && !config.server.plaintext);
    let environment = &config.environments[0];
    assert_eq!((environment.account, environment.clocks), (AccountBounds::default(), NodeClocks::default()));
    assert_eq!(environment.answer_after, Duration::from_secs(2));
    assert_eq!((environment.confirmations, environment.finalized_fallback), (Confirmations::Blocks(12), 64));
    assert_eq!(environment.broadcast, Broadcast::Pipelined);
    assert_eq!(environment.node_deadline, Duration::from_secs(10));
    assert_eq!(environment.gas_percent, 100);
    assert_eq!(environment.rebroadcast, Duration::from_secs(30));
    assert_eq!(environment.hold, Duration::from_secs(600));
    let Provider::AwsKms(kms) = &config.configurations[0].provider else { panic!("aws_kms expected") };
    assert_eq!((kms.sign_rate.get(), kms.sign_rate_per_key.get()), (1000, 1000));
    assert_eq!((kms.sign_window, kms.sign_window_per_key, kms.sign_hedge), (512, 256, true));
    assert_eq!(kms.refresh, Duration::from_secs(300));
    assert_eq!(kms.sign_deadline, Duration::from_secs(10));
    assert!(kms.credentials.is_none() && kms.endpoint.is_none() && kms.sts_endpoint.is_none());
    assert!(kms.role.is_none() && kms.account_id.is_none() && !kms.use_fips && !kms.use_dual_stack);
    assert_eq!(kms.warm_connections, 16);
    assert_eq!(config.services[0].keys, KeySelection::All);
    assert_eq!(config.services[0].sign_transaction_result, SignTransactionResult::Object);
    assert!(config.services[0].pass_through.is_empty());
}

#[test]
fn every_given_value_arrives() {
    let text = r#"
        server = { listen = "[::1]:1", origins = ["https://a.example", "http://localhost:3000"], drain = "1m 30s" }
        admin.listen = "127.0.0.1:2"
        journal.path = "/var/lib/sluice.db"
        [[environment]]
        name = "main"
        chain_id = 1
        nodes = [{ url = "wss://user:pass@node.example/key" }, { url = "ws://127.0.0.1:8546", roles = ["read"] }]
        account = { queue = 1, queue_deadline = "250ms", sign_window = 2, sign_ahead = 3, broadcast_window = 16, acknowledged = 5 }
        clocks = { connect = "1s", ping = "20ms", pong = "50ms", silence = "80ms", head_silence = "60ms", poll = "30ms", reconnect_max = "40ms" }
        gas_percent = 120
        [[configuration]]
        name = "kms-eu"
        provider = "aws_kms"
        region = "eu-west-1"
        endpoint = "http://127.0.0.1:4566"
        sign_rate = 300
        sign_window = 2000
        sign_hedge = false
        [[service]]
        name = "pay_1"
        environment = "main"
        configurations = ["kms-eu"]
        keys = { ids = ["alias/a", "arn:aws:kms:eu-west-1:1:key/b"] }
        sign_transaction_result = "raw"
        pass_through = ["txpool", "debug"]
    "#;
    let config = parse(text, no_variables()).unwrap();
    assert_eq!(config.server.origins, ["https://a.example", "http://localhost:3000"]);
    assert_eq!(config.server.drain, Duration::from_secs(90));
    let environment = &config.environments[0];
    let account = AccountBounds {
        queue: 1,
        queue_deadline: Duration::from_millis(250),
        sign_window: 2,
        sign_ahead: 3,
        broadcast_window: 16,
        acknowledged: 5,
    };
    assert_eq!(environment.account, account);
    let clocks = NodeClocks {
        connect: Duration::from_secs(1),
        ping: Duration::from_millis(20),
        pong: Duration::from_millis(50),
        silence: Duration::from_millis(80),
        head_silence: Duration::from_millis(60),
        poll: Duration::from_millis(30),
        reconnect_max: Duration::from_millis(40),
    };
    assert_eq!(environment.clocks, clocks);
    let roles: Vec<_> = environment.nodes.iter().map(|node| node.roles).collect();
    assert_eq!(roles, [Roles::default(), Roles { read: true, send: false, private: false }]);
    assert_eq!(environment.gas_percent, 120);
    assert!(!format!("{config:?}").contains("pass@") && !format!("{config:?}").contains("/key\""));
    assert_eq!(config.services[0].keys, KeySelection::Ids(vec!["alias/a".to_owned(), "arn:aws:kms:eu-west-1:1:key/b".to_owned()]));
    assert_eq!(config.services[0].sign_transaction_result, SignTransactionResult::Raw);
    assert_eq!(config.services[0].pass_through, ["txpool", "debug"]);
}

#[test]
fn all_errors_are_told_in_the_order_of_the_file() {
    let text = r#"
[server]
listn = "127.0.0.1:1"
drain = 30
[[environment]]
name = "dev"
chain_id = "31337"
nodes = [{ url = "ftp://127.0.0.1:8546" }]
account = { sign_window = 0 }
[[configuration]]
name = "kms"
provider = "aws_kms"
[[service]]
name = "payments"
environment = "dve"
configurations = ["kms", "kmz"]
"#;
    assert_faults(
        text,
        &[("SLUICE__ADMIN__COLOUR", "red")],
        &[
            ("server.listn", Fault::Unknown),
            ("server.drain", Fault::Type),
            ("environment.dev.chain_id", Fault::Type),
            ("environment.dev.nodes[0].url", Fault::Value),
            ("environment.dev.account.sign_window", Fault::Value),
            ("configuration.kms.region", Fault::Missing),
            ("service.payments.environment", Fault::Reference),
            ("service.payments.configurations[1]", Fault::Reference),
            ("journal.path", Fault::Missing),
            ("admin.colour", Fault::Unknown),
        ],
    );
    let lines = parse(text, no_variables()).unwrap_err().to_string();
    assert!(lines.starts_with("server.listn (line 3, column 1): is not a known key; did you mean `listen`?\n"), "{lines}");
    assert!(lines.contains("server.drain (line 4, column 1): 30 has no unit: must be a duration from 0s to 1h"), "{lines}");
    assert!(lines.contains("did you mean `dev`?") && lines.contains("did you mean `kms`?"), "{lines}");
}

#[test]
fn syntax_errors_have_line_and_column() {
    let errors = errors_of("[server]\nlisten = \n[admin]\nlisten = \"x\"\nlisten = \"y\"\n", &[]);
    assert!(errors.iter().all(|error| error.fault == Fault::Syntax));
    assert!(matches!(errors[0].place, Place::File { line: 2, .. }), "{errors:?}");
    assert_eq!(errors[1].place, Place::File { line: 5, column: 1 }, "{errors:?}");
    assert_eq!(errors.len(), 2);
}

#[test]
fn columns_count_characters() {
    let errors = errors_of(&with("path = \"sluice.db\"", "path = \"ä\"\n\"ö\" = 1"), &[]);
    assert_eq!((errors[0].key.as_str(), &errors[0].place), ("journal.\"ö\"", &Place::File { line: 4, column: 1 }));
    let errors = errors_of(&with("nodes = [{ url = \"ws://127.0.0.1:8546\" }]", "nodes = [{ \"ö\" = 1, url = 5 }]"), &[]);
    assert_eq!((errors[1].key.as_str(), &errors[1].place), ("environment.dev.nodes[0].url", &Place::File { line: 7, column: 21 }));
}

#[test]
fn an_empty_file_misses_everything_that_is_needed() {
    let missing = ["journal.path", "environment", "configuration", "service"].map(|key| (key, Fault::Missing));
    assert_faults("", &[], &missing);
    let text = "journal.path = \"j\"\nenvironment = []\nconfiguration = []\nservice = []";
    assert_faults(text, &[], &missing[1..]);
}

/// One wrong line each: what is replaced in `MINIMAL`, by what, and the one error.
#[test]
fn each_mistake_has_its_error() {
    let nodes = "nodes = [{ url = \"ws://127.0.0.1:8546\" }]";
    let chain = "chain_id = 31337";
    let region = "region = \"us-east-1\"";
    let service = "configurations = [\"kms\"]";
    let cases: &[(&str, &str, &str, Fault)] = &[
        (nodes, "nodes = []", "environment.dev.nodes", Fault::Missing),
        (nodes, "", "environment.dev.nodes", Fault::Missing),
        (nodes, "nodes = [\"ws://127.0.0.1\"]", "environment.dev.nodes[0]", Fault::Type),
        (nodes, "nodes = [{ url = \"ftp://a\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a#b\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"https://a#b\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"ipc://host/geth.ipc\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"ipc:///\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"ipc:///geth.ipc?a\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"a\" }]", "environment.dev.nodes[0].url", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a\" }, { url = \"ws://a/\" }]", "environment.dev.nodes[1].url", Fault::Duplicate),
        (chain, "", "environment.dev.chain_id", Fault::Missing),
        (chain, "chain_id = 0", "environment.dev.chain_id", Fault::Value),
        (chain, "chain_id = -1", "environment.dev.chain_id", Fault::Value),
        (chain, "chain_id = 9223372036854775772", "environment.dev.chain_id", Fault::Value),
        (chain, "chain_id = 1.5", "environment.dev.chain_id", Fault::Type),
        (chain, "chain_id = 1\nconfirmations = 0", "environment.dev.confirmations", Fault::Value),
        (chain, "chain_id = 1\nconfirmations = \"final\"", "environment.dev.confirmations", Fault::Value),
        (chain, "chain_id = 1\nconfirmations = true", "environment.dev.confirmations", Fault::Type),
        (chain, "chain_id = 1\nbroadcast = \"parallel\"", "environment.dev.broadcast", Fault::Value),
        (chain, "chain_id = 1\ngas_percent = 99", "environment.dev.gas_percent", Fault::Value),
        (chain, "chain_id = 1\nanswer_after = 2", "environment.dev.answer_after", Fault::Type),
        (chain, "chain_id = 1\nanswer_after = \"2\"", "environment.dev.answer_after", Fault::Type),
        (chain, "chain_id = 1\nanswer_after = \"0\"", "environment.dev.answer_after", Fault::Type),
        (chain, "chain_id = 1\nanswer_after = \"2 parsecs\"", "environment.dev.answer_after", Fault::Type),
        (chain, "chain_id = 1\nhold = \"0s\"", "environment.dev.hold", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [] }]", "environment.dev.nodes[0].roles", Fault::Missing),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [\"write\"] }]", "environment.dev.nodes[0].roles[0]", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [\"read\", \"read\"] }]", "environment.dev.nodes[0].roles[1]", Fault::Duplicate),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [\"read\"] }]", "environment.dev.nodes", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [\"send\"] }]", "environment.dev.nodes", Fault::Value),
        (nodes, "nodes = [{ url = \"ws://a\", roles = [\"read\", \"send\", \"private\"] }]", "environment.dev.nodes", Fault::Conflict),
        (nodes, "nodes = [{ url = \"ws://a\" }, { url = \"ws://b\", roles = [\"private\"] }]", "environment.dev.nodes", Fault::Conflict),
        (chain, "chain_id = 1\nclocks = { ping = \"19ms\" }", "environment.dev.clocks.ping", Fault::Value),
        (chain, "chain_id = 1\nclocks = { poll = \"11m\" }", "environment.dev.clocks.poll", Fault::Value),
        (chain, "chain_id = 1\nclocks = { pings = \"1s\" }", "environment.dev.clocks.pings", Fault::Unknown),
        (chain, "chain_id = 1\nclocks = { ping = \"30s\" }", "environment.dev.clocks.silence", Fault::Value),
        (chain, "chain_id = 1\nclocks = { ping = \"1s\", silence = \"1s\" }", "environment.dev.clocks.silence", Fault::Value),
        (chain, "chain_id = 1\naccount = 5", "environment.dev.account", Fault::Type),
        (chain, "chain_id = 1\naccount = { queue = 0 }", "environment.dev.account.queue", Fault::Value),
        (chain, "chain_id = 1\naccount = { sign_ahead = 0 }", "environment.dev.account.sign_ahead", Fault::Value),
        (chain, "chain_id = 1\naccount = { broadcast_window = 0 }", "environment.dev.account.broadcast_window", Fault::Value),
        (region, "", "configuration.kms.region", Fault::Missing),
        (region, "region = \"US East\"", "configuration.kms.region", Fault::Value),
        (region, "region = \"a\"\nendpoint = \"https://u:p@a\"", "configuration.kms.endpoint", Fault::Value),
        (region, "region = \"a\"\nsign_rate = 0", "configuration.kms.sign_rate", Fault::Value),
        (region, "region = \"a\"\nsign_window = 10001", "configuration.kms.sign_window", Fault::Value),
        (region, "region = \"a\"\nsign_window_per_key = 0", "configuration.kms.sign_window_per_key", Fault::Value),
        (region, "region = \"a\"\nkeystore = \"k\"", "configuration.kms.keystore", Fault::Conflict),
        ("provider = \"aws_kms\"", "provider = \"gcp\"", "configuration.kms.provider", Fault::Value),
        ("provider = \"aws_kms\"", "", "configuration.kms.provider", Fault::Missing),
        (service, "configurations = []", "service.payments.configurations", Fault::Missing),
        (service, "configurations = \"kms\"", "service.payments.configurations", Fault::Type),
        (service, "configurations = [\"kms\", \"kms\"]", "service.payments.configurations[1]", Fault::Duplicate),
        (service, "configurations = [\"kms\"]\nkeys = {}", "service.payments.keys", Fault::Conflict),
        (service, "configurations = [\"kms\"]\nkeys = { tag = { a = \"b\" }, ids = [\"c\"] }", "service.payments.keys", Fault::Conflict),
        (service, "configurations = [\"kms\"]\nkeys = { tag = {} }", "service.payments.keys.tag", Fault::Missing),
        (service, "configurations = [\"kms\"]\nkeys = { tag = { a = 1 } }", "service.payments.keys.tag.a", Fault::Type),
        (service, "configurations = [\"kms\"]\nkeys = { ids = [] }", "service.payments.keys.ids", Fault::Missing),
        (
            service,
            "configurations = [\"kms\"]\nsign_transaction_result = \"Raw\"",
            "service.payments.sign_transaction_result",
            Fault::Value,
        ),
        (service, "configurations = [\"kms\"]\npass_through = [\"txpool_\"]", "service.payments.pass_through[0]", Fault::Value),
        (service, "configurations = [\"kms\"]\npass_through = [\"personal\"]", "service.payments.pass_through[0]", Fault::Value),
        ("environment = \"dev\"", "environment = \"prod\"", "service.payments.environment", Fault::Reference),
        ("name = \"payments\"", "name = \"Payments\"", "service.Payments.name", Fault::Value),
        ("name = \"payments\"", "name = \"metrics\"", "service.metrics.name", Fault::Value),
        ("name = \"payments\"", "name = \"a/b\"", "service.\"a/b\".name", Fault::Value),
        ("name = \"payments\"", "name = \"a__b\"", "service.a__b.name", Fault::Value),
        ("name = \"payments\"", "name = \"\"", "service[0].name", Fault::Value),
        ("name = \"payments\"", "", "service[0].name", Fault::Missing),
        ("[journal]", "[server]\nlisten = \"localhost:8545\"\n[journal]", "server.listen", Fault::Value),
        ("[journal]", "[server]\nlisten = \"127.0.0.1:70000\"\n[journal]", "server.listen", Fault::Value),
        ("[journal]", "[server]\nlisten = \"127.0.0.1\"\n[journal]", "server.listen", Fault::Value),
        ("[journal]", "[server]\nmax_connections = 0\n[journal]", "server.max_connections", Fault::Value),
        ("[journal]", "[server]\nmax_request_bytes = \"5MB\"\n[journal]", "server.max_request_bytes", Fault::Type),
        ("[journal]", "[server]\norigins = [\"https://a.example/\"]\n[journal]", "server.origins[0]", Fault::Value),
        ("[journal]", "[server]\norigins = [\"*\"]\n[journal]", "server.origins[0]", Fault::Value),
        ("[journal]", "[server]\norigins = [\"null\"]\n[journal]", "server.origins[0]", Fault::Value),
        ("[journal]", "[server]\ntls = { certificate = \"c\" }\n[journal]", "server.tls.key", Fault::Missing),
        ("[journal]", "[admin]\nlisten = \"127.0.0.1:8545\"\n[journal]", "admin.listen", Fault::Conflict),
        ("[journal]", "[server]\nping_interval = \"60s\"\n[journal]", "server.idle_timeout", Fault::Conflict),
        ("path = \"sluice.db\"", "path = \"\"", "journal.path", Fault::Value),
        ("path = \"sluice.db\"", "path = 1979-05-27", "journal.path", Fault::Type),
    ];
    for (old, new, key, fault) in cases {
        assert_faults(&with(old, new), &[], &[(key, *fault)]);
    }
}

#[test]
fn local_needs_its_keys_and_selects_by_address() {
    let configuration = "provider = \"aws_kms\"\nregion = \"us-east-1\"";
    let missing = [("configuration.kms.keystore", Fault::Missing), ("configuration.kms.password", Fault::Missing)];
    assert_faults(&with(configuration, "provider = \"local\""), &[], &missing);
    let local = with(configuration, "provider = \"local\"\nkeystore = \"k\"\npassword = { env = \"P\" }");
    let select = |keys: &str| local.replace("configurations = [\"kms\"]", &format!("configurations = [\"kms\"]\nkeys = {keys}"));
    let password = [("P", "secret")];
    assert_faults(&select("{ tag = { a = \"b\" } }"), &password, &[("service.payments.keys.tag", Fault::Conflict)]);
    let ids = "{ ids = [\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\", \"alias/a\"] }";
    assert_faults(&select(ids), &password, &[("service.payments.keys.ids[1]", Fault::Value)]);
    parse(&select("{ ids = [\"0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266\"] }"), variables(&password)).unwrap();
}

#[test]
fn names_and_chain_ids_are_unique() {
    let twins = format!(
        "{MINIMAL}\n[[environment]]\nname = \"DEV\"\nchain_id = 31337\nnodes = [{{ url = \"ws://a\" }}]\n[[configuration]]\nname = \"kms\"\n\
         provider = \"aws_kms\"\nregion = \"a\"\n[[service]]\nname = \"payments\"\nenvironment = \"dev\"\nconfigurations = [\"kms\"]\n"
    );
    assert_faults(
        &twins,
        &[],
        &[
            ("environment[1].name", Fault::Duplicate),
            ("environment[1].chain_id", Fault::Duplicate),
            ("configuration[1].name", Fault::Duplicate),
            ("service[1].name", Fault::Duplicate),
        ],
    );
}

#[test]
fn a_broken_table_can_still_be_referred_to() {
    assert_faults(&with("chain_id = 31337", "chain_id = 0"), &[], &[("environment.dev.chain_id", Fault::Value)]);
    assert_faults(
        &with("name = \"dev\"", "name = \"d ev\"").replace("\"dev\"", "\"d ev\""),
        &[],
        &[("environment.\"d ev\".name", Fault::Value)],
    );
}

#[test]
fn files_are_read_and_relative_paths_start_at_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, MINIMAL.replace("[journal]", "[server]\ntoken_file = \"/run/token\"\n[journal]")).unwrap();
    let config = load(&file, no_variables()).unwrap();
    assert_eq!(config.journal.path, folder.path().join("sluice.db"));
    assert_eq!(config.server.token_file, Some(PathBuf::from("/run/token")));
    let errors = load(&folder.path().join("absent.toml"), no_variables()).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.fault).collect::<Vec<_>>(), [Fault::Unreadable]);
    assert!(errors.to_string().contains("absent.toml"));
}

/// `MINIMAL` with lines in `[server]`.
fn serving(lines: &str) -> String {
    MINIMAL.replace("[journal]", &format!("[server]\n{lines}\n[journal]"))
}

#[test]
fn a_service_has_the_servers_limits_but_for_its_own() {
    let server = serving("max_connections = 9\nmax_batch_items = 8\nmax_requests_per_second = 7");
    let config = parse(&server, no_variables()).unwrap();
    assert_eq!(config.services[0].limits, config.server.limits());
    let own = server
        .replace("configurations = [\"kms\"]", "configurations = [\"kms\"]\nlimits = { max_batch_items = 1, max_calls_in_flight = 2 }");
    let limits = parse(&own, no_variables()).unwrap().services[0].limits;
    assert_eq!((limits.max_connections, limits.max_batch_items, limits.max_calls_in_flight), (9, 1, 2));
    assert_eq!((limits.max_subscriptions, limits.max_requests_per_second.map(|rate| rate.get())), (1024, Some(7)));
    let wrong = server.replace(
        "configurations = [\"kms\"]",
        "configurations = [\"kms\"]\nlimits = { max_connections = 0, max_subscription = 1, max_requests_per_second = \"many\" }",
    );
    assert_faults(
        &wrong,
        &[],
        &[
            ("service.payments.limits.max_connections", Fault::Value),
            ("service.payments.limits.max_subscription", Fault::Unknown),
            ("service.payments.limits.max_requests_per_second", Fault::Type),
        ],
    );
    let variable = [("SLUICE__SERVICE__PAYMENTS__LIMITS__MAX_CONNECTIONS", "3")];
    assert_eq!(parse(MINIMAL, variables(&variable)).unwrap().services[0].limits.max_connections, 3);
}

#[test]
fn the_default_service_is_one_of_them() {
    assert_eq!(parse(&serving("default_service = \"payments\""), no_variables()).unwrap().server.default_service.unwrap(), "payments");
    let errors = errors_of(&serving("default_service = \"payment\""), &[]);
    assert_eq!((errors[0].key.as_str(), errors[0].fault), ("server.default_service", Fault::Reference));
    assert!(errors[0].message.contains("did you mean `payments`?"), "{}", errors[0].message);
}

#[test]
fn the_public_url_is_what_paths_can_be_added_to() {
    for right in ["https://signer.example.org", "http://10.0.0.1:8080/sluice/"] {
        parse(&serving(&format!("public_url = \"{right}\"")), no_variables()).unwrap();
    }
    for wrong in
        ["signer.example.org", "wss://a.example", "https://user:pass@a.example", "https://a.example/?key=1", "https://a.example/#a"]
    {
        let errors = errors_of(&serving(&format!("public_url = \"{wrong}\"")), &[]);
        assert_eq!((errors[0].key.as_str(), errors[0].fault), ("server.public_url", Fault::Value), "{wrong}");
        assert!(!errors[0].message.contains("pass@"), "{}", errors[0].message);
    }
}

#[test]
fn levels_of_the_log_are_checked() {
    let logging = |level: &str| MINIMAL.replace("[journal]", &format!("[log]\nlevel = \"{level}\"\n[journal]"));
    assert_eq!(
        parse(&logging("warn,sluice_gateway::node=debug"), no_variables()).unwrap().log.level.unwrap(),
        "warn,sluice_gateway::node=debug"
    );
    for wrong in ["", "sluice_gateway=loud", "a=b=c"] {
        assert_faults(&logging(wrong), &[], &[("log.level", Fault::Value)]);
    }
}

#[test]
fn a_role_is_assumed_one_way_and_endpoints_are_of_one_kind() {
    const ROLE: &str = "role_arn = \"arn:aws:iam::111122223333:role/team/signer\"";
    let lines = |lines: &str| with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\n{lines}"));
    let config = parse(&lines(&format!("{ROLE}\nexternal_id = \"a:1\"")), no_variables()).unwrap();
    let Provider::AwsKms(kms) = &config.configurations[0].provider else { panic!("aws_kms expected") };
    let role = kms.role.as_ref().unwrap();
    assert_eq!((role.arn.as_str(), role.external_id.as_deref()), ("arn:aws:iam::111122223333:role/team/signer", Some("a:1")));
    assert_eq!((role.session_name.as_str(), &role.web_identity_token_file), ("sluice", &None));
    let cases = [
        ("role_arn = \"arn:aws:iam::111122223333:user/a\"".to_owned(), "role_arn", Fault::Value),
        ("role_arn = \"arn:aws:iam::1:role/a\"".to_owned(), "role_arn", Fault::Value),
        ("external_id = \"a1\"".to_owned(), "external_id", Fault::Missing),
        ("session_name = \"blue\"".to_owned(), "session_name", Fault::Missing),
        ("web_identity_token_file = \"token\"".to_owned(), "web_identity_token_file", Fault::Missing),
        (format!("{ROLE}\nsession_name = \"a b\""), "session_name", Fault::Value),
        (format!("{ROLE}\nexternal_id = \"1\""), "external_id", Fault::Value),
        (format!("{ROLE}\nexternal_id = \"a1\"\nweb_identity_token_file = \"token\""), "external_id", Fault::Conflict),
        ("endpoint = \"https://a.example\"\nuse_fips = true".to_owned(), "use_fips", Fault::Conflict),
        ("sts_endpoint = \"https://a.example\"\nuse_dual_stack = true".to_owned(), "use_dual_stack", Fault::Conflict),
        ("account_id = \"1234\"".to_owned(), "account_id", Fault::Value),
        ("warm_connections = 513".to_owned(), "warm_connections", Fault::Value),
    ];
    for (text, key, fault) in cases {
        assert_faults(&lines(&text), &[], &[(&format!("configuration.kms.{key}"), fault)]);
    }
    let both =
        format!("{ROLE}\nweb_identity_token_file = \"token\"\naccess_key_id = {{ env = \"A\" }}\nsecret_access_key = {{ env = \"A\" }}");
    assert_faults(&lines(&both), &[("A", "a")], &[("configuration.kms.access_key_id", Fault::Conflict)]);
}

#[test]
fn roles_are_read_and_may_be_apart() {
    let config = parse(
        &with(
            "nodes = [{ url = \"ws://127.0.0.1:8546\" }]",
            "nodes = [{ url = \"ws://a\", roles = [\"private\"] }, { url = \"ws://b\", roles = [\"read\"] }]",
        ),
        no_variables(),
    )
    .unwrap();
    let nodes: Vec<_> = config.environments[0].nodes.iter().map(|node| node.roles.names()).collect();
    assert_eq!(nodes, [["private"], ["read"]]);
}

#[test]
fn why_roles_do_not_fit_is_told() {
    let text =
        with("nodes = [{ url = \"ws://127.0.0.1:8546\" }]", "nodes = [{ url = \"ws://a\" }, { url = \"ws://b\", roles = [\"private\"] }]");
    let error = parse(&text, no_variables()).unwrap_err().to_string();
    assert!(error.contains("environment.dev.nodes") && error.contains("none would be private"), "{error}");
}

#[test]
fn nodes_are_reached_by_websocket_http_and_unix_sockets() {
    let urls = ["ws://u:p@a:1/k", "wss://b/k", "http://u:p@a:1/k", "https://b/k?x=1", "ipc:///run/a%20node/geth.ipc"];
    let nodes: Vec<_> = urls.iter().map(|url| format!("{{ url = \"{url}\" }}")).collect();
    let text = with("nodes = [{ url = \"ws://127.0.0.1:8546\" }]", &format!("nodes = [{}]", nodes.join(", ")));
    let config = parse(&text, no_variables()).unwrap();
    let seen: Vec<_> = config.environments[0].nodes.iter().map(|node| (node.transport().name(), node.label())).collect();
    let expected = [
        ("websocket", "ws://a:1"),
        ("websocket", "wss://b"),
        ("http", "http://a:1"),
        ("http", "https://b"),
        ("ipc", "ipc:///run/a%20node/geth.ipc"),
    ];
    assert_eq!(seen, expected.map(|(transport, label)| (transport, label.to_owned())));
}
