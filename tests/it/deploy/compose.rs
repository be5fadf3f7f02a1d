//! The compose file, read by the loader of `docker compose` itself: it checks the schema and every reference within the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{configuration, deploy, docker, longest_drain, parsers, texts};
use crate::support::gateway::{run, words};
use crate::support::parts::{Part, have};

fn project() -> Value {
    docker("compose", &deploy("compose.yaml"))
}

#[test]
fn every_container_is_locked_down() {
    if !have("every_container_is_locked_down", &[Part::Deploy]) {
        return;
    }
    for (name, service) in project()["services"].as_object().unwrap() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert!(service["cap_add"].is_null() && service["privileged"].is_null() && service["user"].is_null(), "{name}");
        assert!(texts(&service["security_opt"]).contains(&"no-new-privileges:true"), "{name}");
        assert_eq!(texts(&service["healthcheck"]["test"])[0], "CMD", "{name}: there may be no shell");
        for port in service["ports"].as_array().unwrap() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: nothing is open to other machines");
        }
        for mount in service["volumes"].as_array().unwrap().iter().filter(|mount| mount["type"] == "bind") {
            assert_eq!(mount["read_only"], true, "{name}");
            // Secrets are the operator's to make: without them nothing starts, rather than with an empty folder.
            let source = mount["source"].as_str().unwrap();
            if Path::new(source).starts_with("./secrets") {
                assert_eq!(mount["bind"]["create_host_path"], false, "{name}: {source}");
            } else {
                assert!(deploy(source).exists(), "{name}: {source}");
            }
        }
    }
}

#[test]
fn the_gateway_of_the_compose_file_has_what_its_configuration_names() {
    if !have("the_gateway_of_the_compose_file_has_what_its_configuration_names", &[Part::Deploy]) {
        return;
    }
    let (project, config) = (project(), configuration());
    let gateway = &project["services"]["gateway"];
    let mounts = gateway["volumes"].as_array().unwrap();
    let mounted = |target: &str, kind: &str| mounts.iter().any(|mount| mount["target"] == target && mount["type"] == kind);
    assert!(mounted(config.journal.path.parent().unwrap().to_str().unwrap(), "volume"), "the journal outlives the container");
    // What is read again is in a mounted folder: a mounted file would stay the one that it was when another takes its name.
    let source = |folder: &Path| {
        let mount = mounts.iter().find(|mount| mount["target"] == folder.to_str().unwrap() && mount["type"] == "bind");
        PathBuf::from(mount.unwrap_or_else(|| panic!("{} is not mounted", folder.display()))["source"].as_str().unwrap())
    };
    assert!(deploy("").join(source(Path::new("/etc/sluice"))).join("sluice.toml").is_file());
    for (listener, token) in [("server", &config.server.token_file), ("admin", &config.admin.token_file)] {
        let token = token.as_ref().unwrap();
        assert!(token.ends_with("token") && source(token.parent().unwrap()).ends_with(Path::new("secrets").join(listener)));
    }
    assert_eq!(gateway["ports"].as_array().unwrap().len(), 1, "the listener of operators is not published");
    assert_eq!(gateway["ports"][0]["target"], config.server.listen.port());
    let grace = gateway["stop_grace_period"].as_str().unwrap();
    assert!(humantime(grace) > longest_drain(&config), "{grace}");
    assert_eq!(gateway["build"]["dockerfile"], "deploy/Dockerfile");
    // Each variable for Sluice is one that Sluice knows.
    let variables = gateway["environment"].as_object().unwrap();
    let given = variables.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let text = std::fs::read_to_string(deploy("config/sluice.toml")).unwrap();
    let overridden = sluice_gateway::config::parse(&text, given.filter(|(name, _)| name.starts_with("SLUICE__"))).unwrap();
    let node = |config: &sluice_gateway::config::Config| config.environments[0].nodes[0].url.clone();
    assert_ne!(node(&overridden), node(&config), "the node's URL comes from outside");
}

/// `1m15s`, as Go writes durations.
fn humantime(text: &str) -> Duration {
    let mut total = 0;
    let mut number = 0;
    for character in text.chars() {
        match character {
            'h' => total += std::mem::take(&mut number) * 3600,
            'm' => total += std::mem::take(&mut number) * 60,
            's' => total += std::mem::take(&mut number),
            digit => number = number * 10 + u64::from(digit.to_digit(10).unwrap()),
        }
    }
    Duration::from_secs(total)
}

#[test]
fn without_a_node_the_compose_file_says_what_is_missing() {
    if !have("without_a_node_the_compose_file_says_what_is_missing", &[Part::Deploy]) {
        return;
    }
    let mut command = parsers("compose", &deploy("compose.yaml"));
    command.env_remove("NODE_URL");
    let output = run(command);
    assert!(!output.status.success() && words(&output).contains("set NODE_URL"), "{}", words(&output));
}
