//! What of a configuration that was read anew can be had while the gateway runs, and what needs a restart. A pure comparison; each
//! table is taken apart whole, so that a new setting does not compile before it is decided about.

use crate::config::{AccountBounds, Admin, Bump, Config, Configuration, Environment, Journal, NodeClocks, Provider, Server, Service};

/// Compares what runs with what was read. The first answer can be put in force as a whole: it has the running value wherever a
/// restart is needed. The second names the key paths that need one.
pub(super) fn applicable(running: &Config, read: &Config) -> (Config, Vec<String>) {
    let mut restart = Vec::new();
    let server = server(&running.server, &read.server, &mut restart);
    let admin = admin(&running.admin, &read.admin, &mut restart);
    let journal = journal(&running.journal, &read.journal, &mut restart);
    let name = |environment: &Environment| environment.name.clone();
    named("environment", &running.environments, &read.environments, name, environment, &mut restart);
    let name = |configuration: &Configuration| configuration.name.clone();
    named("configuration", &running.configurations, &read.configurations, name, configuration, &mut restart);
    let services = services(running, &read.services, &mut restart);
    let config = Config {
        server,
        admin,
        journal,
        log: read.log.clone(),
        environments: running.environments.clone(),
        configurations: running.configurations.clone(),
        services,
    };
    (config, restart)
}

fn note(restart: &mut Vec<String>, table: &str, differences: &[(&str, bool)]) {
    restart.extend(differences.iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("{table}.{key}")));
}

fn server(running: &Server, read: &Server, restart: &mut Vec<String>) -> Server {
    let Server {
        listen,
        // These go with a new connection, or with the next call.
        tls: _,
        plaintext: _,
        token_file: _,
        origins: _,
        max_connections: _,
        max_request_bytes: _,
        max_response_bytes: _,
        max_batch_items: _,
        max_subscriptions: _,
        max_principal_subscriptions: _,
        max_calls_in_flight: _,
        max_requests_per_second: _,
        default_service: _,
        public_url: _,
        drain: _,
        ping_interval: _,
        idle_timeout: _,
        write_timeout: _,
        max_backlog_bytes: _,
        max_small_frames_per_second: _,
    } = running;
    note(restart, "server", &[("listen", *listen != read.listen)]);
    Server { listen: *listen, ..read.clone() }
}

fn admin(running: &Admin, read: &Admin, restart: &mut Vec<String>) -> Admin {
    let Admin { listen, tls: _, plaintext: _, token_file: _ } = running;
    note(restart, "admin", &[("listen", *listen != read.listen)]);
    Admin { listen: *listen, ..read.clone() }
}

fn journal(running: &Journal, read: &Journal, restart: &mut Vec<String>) -> Journal {
    let Journal { path } = running;
    note(restart, "journal", &[("path", *path != read.path)]);
    running.clone()
}

/// Tables of an array: those that came, went, or differ.
fn named<T>(
    kind: &str,
    running: &[T],
    read: &[T],
    name: impl Fn(&T) -> String,
    differences: impl Fn(&T, &T) -> Vec<(&'static str, bool)>,
    restart: &mut Vec<String>,
) {
    for old in running {
        match read.iter().find(|new| name(new) == name(old)) {
            Some(new) => note(restart, &format!("{kind}.{}", name(old)), &differences(old, new)),
            None => restart.push(format!("{kind}.{} (removed)", name(old))),
        }
    }
    let is_new = |new: &&T| !running.iter().any(|old| name(old) == name(new));
    restart.extend(read.iter().filter(is_new).map(|new| format!("{kind}.{} (added)", name(new))));
}

fn environment(old: &Environment, new: &Environment) -> Vec<(&'static str, bool)> {
    let Environment {
        name: _,
        chain_id,
        nodes,
        clocks,
        account,
        answer_after,
        broadcast,
        confirmations,
        finalized_fallback,
        node_deadline,
        sync_timeout,
        sync_timeout_max,
        gas_percent,
        rebroadcast,
        hold,
        reconcile_blocks,
        fees,
        bump,
        superseded,
        logs,
    } = old;
    let NodeClocks { connect, ping, pong, silence, head_silence, poll, reconnect_max } = clocks;
    let Bump { after, blocks, times } = bump;
    let AccountBounds { queue, queue_deadline, sign_window, sign_ahead, broadcast_window, acknowledged } = account;
    vec![
        ("chain_id", *chain_id != new.chain_id),
        ("nodes", *nodes != new.nodes),
        ("clocks.connect", *connect != new.clocks.connect),
        ("clocks.ping", *ping != new.clocks.ping),
        ("clocks.pong", *pong != new.clocks.pong),
        ("clocks.silence", *silence != new.clocks.silence),
        ("clocks.head_silence", *head_silence != new.clocks.head_silence),
        ("clocks.poll", *poll != new.clocks.poll),
        ("clocks.reconnect_max", *reconnect_max != new.clocks.reconnect_max),
        ("account.queue", *queue != new.account.queue),
        ("account.queue_deadline", *queue_deadline != new.account.queue_deadline),
        ("account.sign_window", *sign_window != new.account.sign_window),
        ("account.sign_ahead", *sign_ahead != new.account.sign_ahead),
        ("account.broadcast_window", *broadcast_window != new.account.broadcast_window),
        ("account.acknowledged", *acknowledged != new.account.acknowledged),
        ("answer_after", *answer_after != new.answer_after),
        ("broadcast", *broadcast != new.broadcast),
        ("finalized_fallback", *finalized_fallback != new.finalized_fallback),
        ("confirmations", *confirmations != new.confirmations),
        ("node_deadline", *node_deadline != new.node_deadline),
        ("sync_timeout", *sync_timeout != new.sync_timeout),
        ("sync_timeout_max", *sync_timeout_max != new.sync_timeout_max),
        ("gas_percent", *gas_percent != new.gas_percent),
        ("rebroadcast", *rebroadcast != new.rebroadcast),
        ("hold", *hold != new.hold),
        ("reconcile_blocks", *reconcile_blocks != new.reconcile_blocks),
        ("fees", *fees != new.fees),
        ("bump.after", *after != new.bump.after),
        ("bump.blocks", *blocks != new.bump.blocks),
        ("bump.times", *times != new.bump.times),
        ("superseded", *superseded != new.superseded),
        ("logs", *logs != new.logs),
    ]
}

fn configuration(old: &Configuration, new: &Configuration) -> Vec<(&'static str, bool)> {
    match (&old.provider, &new.provider) {
        (Provider::AwsKms(old), Provider::AwsKms(new)) => {
            let crate::config::AwsKms {
                region,
                endpoint,
                sts_endpoint,
                use_fips,
                use_dual_stack,
                credentials,
                role,
                account_id,
                warm_connections,
                sign_rate,
                sign_rate_per_key,
                sign_window,
                sign_window_per_key,
                sign_hedge,
                sign_deadline,
                refresh,
            } = &**old;
            vec![
                ("region", *region != new.region),
                ("endpoint", *endpoint != new.endpoint),
                ("sts_endpoint", *sts_endpoint != new.sts_endpoint),
                ("use_fips", *use_fips != new.use_fips),
                ("use_dual_stack", *use_dual_stack != new.use_dual_stack),
                ("access_key_id", *credentials != new.credentials),
                ("role_arn", *role != new.role),
                ("account_id", *account_id != new.account_id),
                ("warm_connections", *warm_connections != new.warm_connections),
                ("sign_rate", *sign_rate != new.sign_rate),
                ("sign_rate_per_key", *sign_rate_per_key != new.sign_rate_per_key),
                ("sign_window", *sign_window != new.sign_window),
                ("sign_window_per_key", *sign_window_per_key != new.sign_window_per_key),
                ("sign_hedge", *sign_hedge != new.sign_hedge),
                ("sign_deadline", *sign_deadline != new.sign_deadline),
                ("refresh", *refresh != new.refresh),
            ]
        }
        (Provider::Local(old), Provider::Local(new)) => {
            let crate::config::Local { keystore, password } = old;
            vec![("keystore", *keystore != new.keystore), ("password", *password != new.password)]
        }
        (Provider::Development { accounts: old }, Provider::Development { accounts: new }) => vec![("accounts", old != new)],
        _ => vec![("provider", true)],
    }
}

/// The services that can be served over the running environments and configurations. One that cannot stays as it is, if it runs.
fn services(running: &Config, read: &[Service], restart: &mut Vec<String>) -> Vec<Service> {
    let mut services = Vec::new();
    for new in read {
        let environment = running.environments.iter().any(|environment| environment.name == new.environment);
        let configuration = |name: &String| running.configurations.iter().any(|configuration| configuration.name == *name);
        if environment && new.configurations.iter().all(configuration) {
            services.push(new.clone());
            continue;
        }
        let what = if environment { "configurations" } else { "environment" };
        restart.push(format!("service.{}.{what}", new.name));
        services.extend(running.services.iter().find(|old| old.name == new.name).cloned());
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const RUNNING: &str = r#"
[server]
listen = "127.0.0.1:1"
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

    fn parse(text: &str) -> Config {
        config::parse(text, [("A".to_owned(), "one".to_owned()), ("B".to_owned(), "two".to_owned())]).unwrap()
    }

    fn with(old: &str, new: &str) -> Config {
        assert_eq!(RUNNING.matches(old).count(), 1, "{old}");
        parse(&RUNNING.replace(old, new))
    }

    #[test]
    fn nothing_differs_from_itself() {
        let (config, restart) = applicable(&parse(RUNNING), &parse(RUNNING));
        assert_eq!((format!("{config:?}"), restart), (format!("{:?}", parse(RUNNING)), Vec::new()));
    }

    #[test]
    fn what_needs_a_restart_is_named_and_keeps_its_value() {
        let cases = [
            ("127.0.0.1:1\"", "127.0.0.1:2\"", "server.listen"),
            ("[journal]", "[admin]\nlisten = \"127.0.0.1:3\"\n[journal]", "admin.listen"),
            ("sluice.db", "other.db", "journal.path"),
            ("31337", "1", "environment.dev.chain_id"),
            ("8546", "8547", "environment.dev.nodes"),
            ("chain_id = 31337", "chain_id = 31337\naccount = { sign_window = 2 }", "environment.dev.account.sign_window"),
            ("chain_id = 31337", "chain_id = 31337\nclocks = { ping = \"1s\" }", "environment.dev.clocks.ping"),
            ("chain_id = 31337", "chain_id = 31337\nconfirmations = 2", "environment.dev.confirmations"),
            ("us-east-1", "eu-west-1", "configuration.kms.region"),
            (
                "region = \"us-east-1\"",
                "region = \"us-east-1\"\naccess_key_id = { env = \"A\" }\nsecret_access_key = { env = \"B\" }",
                "configuration.kms.access_key_id",
            ),
            ("region = \"us-east-1\"", "region = \"us-east-1\"\nsign_rate = 7", "configuration.kms.sign_rate"),
            ("region = \"us-east-1\"", "region = \"us-east-1\"\nwarm_connections = 0", "configuration.kms.warm_connections"),
            (
                "region = \"us-east-1\"",
                "region = \"us-east-1\"\nrole_arn = \"arn:aws:iam::111122223333:role/signer\"",
                "configuration.kms.role_arn",
            ),
            ("region = \"us-east-1\"", "region = \"us-east-1\"\nsign_window = 7", "configuration.kms.sign_window"),
            ("region = \"us-east-1\"", "region = \"us-east-1\"\nsign_hedge = false", "configuration.kms.sign_hedge"),
        ];
        for (old, new, key) in cases {
            let (config, restart) = applicable(&parse(RUNNING), &with(old, new));
            assert_eq!((format!("{config:?}"), restart), (format!("{:?}", parse(RUNNING)), vec![key.to_owned()]));
        }
    }

    #[test]
    fn everything_else_goes_at_once() {
        let text = RUNNING
            .replace("[server]", "[server]\ntoken_file = \"t\"\norigins = [\"https://a.example\"]\nmax_batch_items = 7\ndrain = \"1s\"")
            .replace(
                "configurations = [\"kms\"]",
                "configurations = [\"kms\"]\nkeys = { tag = { a = \"b\" } }\nlimits = { max_connections = 3 }",
            );
        let text =
            format!("{text}\n[[service]]\nname = \"more\"\nenvironment = \"dev\"\nconfigurations = [\"kms\"]\n[log]\nlevel = \"debug\"");
        let (config, restart) = applicable(&parse(RUNNING), &parse(&text));
        assert_eq!((format!("{config:?}"), restart), (format!("{:?}", parse(&text)), Vec::new()));
    }

    #[test]
    fn a_service_over_what_does_not_run_waits_or_stays_as_it_is() {
        let more = "\n[[environment]]\nname = \"main\"\nchain_id = 1\nnodes = [{ url = \"ws://a\" }]\n[[configuration]]\nname = \"eu\"\n\
                    provider = \"aws_kms\"\nregion = \"eu-west-1\"\n[[service]]\nname = \"new\"\nenvironment = \"main\"\n\
                    configurations = [\"kms\"]\n";
        let moved = RUNNING.replace("configurations = [\"kms\"]", "configurations = [\"kms\", \"eu\"]\nlimits = { max_connections = 3 }");
        let (config, restart) = applicable(&parse(RUNNING), &parse(&format!("{moved}{more}")));
        let named = ["environment.main (added)", "configuration.eu (added)", "service.payments.configurations", "service.new.environment"];
        assert_eq!(restart, named);
        assert_eq!(format!("{config:?}"), format!("{:?}", parse(RUNNING)));
        let running = parse(&format!("{RUNNING}{more}"));
        let (config, restart) = applicable(&running, &parse(RUNNING));
        assert_eq!(restart, ["environment.main (removed)", "configuration.eu (removed)"]);
        assert_eq!(config.services, parse(RUNNING).services, "the service goes, its environment lives on");
    }
}
