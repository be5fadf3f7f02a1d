//! `sluice account`: asks the gateway that runs with this configuration; without one, reads and writes its journal.

use std::path::Path;
use std::sync::Arc;

use alloy_primitives::Address;
use http::Method;
use serde_json::{Value, json};
use sluice_gateway::config::{Config, Environment};
use sluice_gateway::gateway::show_stored;
use sluice_gateway::journal::inspect::align;
use sluice_gateway::journal::sqlite::SqliteJournal;
use sluice_gateway::journal::{Account, Engine as _, Journal as _, PauseBy, Record};
use sluice_gateway::server::admin::accounts::{Order, check_reason};
use sluice_gateway::server::ask::{AskError, ask};
use sluice_gateway::telemetry::metrics::Metrics;

use super::{Failure, load};

pub(crate) async fn list(path: &Path, address: Option<Address>, environment: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    if let Some(name) = environment {
        find(&config, Some(name))?;
    }
    let mut answer = match ask(&config.admin, Method::GET, "/accounts", None).await {
        Ok(answer) => answer,
        Err(AskError::Nobody(_) | AskError::NoPort) => on_record(&config).await?,
        Err(other) => return Err(other.into()),
    };
    let wanted = |account: &Value| {
        let is_here = environment.is_none_or(|name| account["environment"] == name);
        is_here && address.is_none_or(|address| account["address"] == json!(address))
    };
    if let Some(accounts) = answer["accounts"].as_array_mut() {
        accounts.retain(wanted);
    }
    let accounts = answer["accounts"].as_array().cloned().unwrap_or_default();
    if let (Some(address), true) = (address, accounts.is_empty()) {
        return Err(Failure::Failed(format!("{address} is on record in no environment")));
    }
    if as_json {
        println!("{answer}");
    } else {
        for line in table(&accounts) {
            println!("{line}");
        }
    }
    Ok(())
}

pub(crate) async fn order(path: &Path, address: Address, environment: Option<&str>, order: Order, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let environment = find(&config, environment)?;
    if let Order::Pause { reason } = &order {
        check_reason(reason).map_err(Failure::Usage)?;
    }
    let account = Account { chain_id: environment.chain_id, address };
    let answer = match open_alone(&config)? {
        Some(journal) => {
            let done = carry_out(&journal, account, &order).await;
            journal.close().await;
            done?
        }
        None => {
            let (word, body) = match &order {
                Order::Pause { reason } => ("pause", json!({ "reason": reason })),
                Order::Resume => ("resume", json!({})),
                Order::Resync => ("resync", json!({})),
            };
            let path = format!("/accounts/{}/{address}/{word}", environment.chain_id);
            ask(&config.admin, Method::POST, &path, Some(&body)).await?
        }
    };
    if as_json {
        println!("{answer}");
    } else {
        println!("{}", said(&environment.name, address, &order, &answer));
    }
    Ok(())
}

/// The environment of this name; without a name the only one.
fn find<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Environment, Failure> {
    let names = || config.environments.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.environments.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::Usage(format!("--environment must say which: {}", names()))),
        (Some(name), all) => all
            .iter()
            .find(|one| one.name == name)
            .ok_or_else(|| Failure::Usage(format!("the file has no environment \"{name}\", but {}", names()))),
    }
}

/// The journal, if no gateway uses it.
fn open_alone(config: &Config) -> Result<Option<Arc<SqliteJournal>>, Failure> {
    let path = &config.journal.path;
    if !path.exists() {
        return Err(Failure::Failed(format!("no gateway runs with this configuration, and there is no journal at {}", path.display())));
    }
    if SqliteJournal::is_in_use(path)? {
        return Ok(None);
    }
    let metrics = Metrics::new().map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Some(SqliteJournal::open(path, Arc::new(metrics))?))
}

/// What a gateway would do with the rows alone.
async fn carry_out(journal: &Arc<SqliteJournal>, account: Account, order: &Order) -> Result<Value, Failure> {
    let stored = journal.account(account).await?.ok_or_else(|| {
        Failure::Failed(format!("{} is not on record; before its first transaction only a running gateway knows it", account.address))
    })?;
    let (records, answer) = match order {
        Order::Pause { reason } => {
            let record = Record::Pause { account, by: PauseBy::Operator, reason: Some(reason.clone()) };
            (vec![record], json!({ "chainId": account.chain_id, "address": account.address }))
        }
        Order::Resume => {
            let lifted: Vec<PauseBy> = stored.pauses.iter().map(|(by, _)| by).collect();
            let words: Vec<&str> = lifted.iter().map(|by| by.as_str()).collect();
            let answer = json!({ "chainId": account.chain_id, "address": account.address, "lifted": words, "slotTaken": false });
            (lifted.into_iter().map(|by| Record::Pause { account, by, reason: None }).collect(), answer)
        }
        Order::Resync => {
            return Err(Failure::Failed(
                "no gateway runs with this configuration: a resync asks its nodes, and every start of a gateway is one".into(),
            ));
        }
    };
    journal.commit(records).await?;
    Ok(answer)
}

/// The accounts of the journal's file, where no gateway listens.
async fn on_record(config: &Config) -> Result<Value, Failure> {
    if !config.journal.path.exists() {
        return Err(Failure::Failed(format!(
            "no gateway listens on {}, and there is no journal at {}",
            config.admin.listen,
            config.journal.path.display()
        )));
    }
    let journal = SqliteJournal::open_read_only(&config.journal.path)?;
    let mut accounts = Vec::new();
    for environment in &config.environments {
        let stored = journal.accounts(environment.chain_id).await?;
        accounts.extend(stored.iter().map(|stored| show_stored(&environment.name, stored)));
    }
    Ok(json!({ "accounts": accounts }))
}

fn table(accounts: &[Value]) -> Vec<String> {
    let heads = ["ENVIRONMENT", "ACCOUNT", "NEXT NONCE", "QUEUED", "SIGNING", "UNSENT", "IN FLIGHT", "WINDOW", "LOWEST UNMINED", "STOPPED"];
    let mut rows = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    for account in accounts {
        let number = |name: &str| account[name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut row: Vec<String> = ["environment", "address"].iter().map(|name| account[name].as_str().unwrap_or("-").to_owned()).collect();
        row.extend(["nextNonce", "queued", "signing", "unsent", "inFlight", "window"].iter().map(|name| number(name)));
        row.push(lowest(&account["lowestUnmined"]));
        row.push(stopped(account));
        rows.push(row);
    }
    align(&rows)
}

fn lowest(slot: &Value) -> String {
    let (Some(nonce), Some(state)) = (slot["nonce"].as_u64(), slot["state"].as_str()) else { return "-".to_owned() };
    let age = slot["ageSeconds"].as_u64().map_or_else(String::new, |age| format!(", {age}s"));
    format!("{nonce} ({state}{age})")
}

fn stopped(account: &Value) -> String {
    let pause = |pause: &Value| format!("{}: {}", pause["by"].as_str().unwrap_or("?"), one_line(pause["reason"].as_str().unwrap_or("")));
    let mut reasons: Vec<String> = account["pauses"].as_array().into_iter().flatten().map(pause).collect();
    if account["slotTaken"] == true {
        reasons.push("a slot has another payload on record".to_owned());
    }
    if account["onHold"] == true {
        reasons.push("its key is used outside of Sluice".to_owned());
    }
    if let (Some(blocks), Some(wanted)) = (account["reconcile"]["blocks"].as_u64(), account["reconcile"]["wanted"].as_u64()) {
        reasons.push(format!("the chain has settled for {blocks} of {wanted} blocks"));
    }
    if reasons.is_empty() { "no".to_owned() } else { reasons.join("; ") }
}

/// A reason may have come from outside.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What was done, for people.
fn said(environment: &str, address: Address, order: &Order, answer: &Value) -> String {
    let account = format!("{address} of environment \"{environment}\"");
    let taken = |is: bool| if is { "; another payload of a slot is on record: resync it" } else { "" };
    match order {
        Order::Pause { reason } => format!("{account} is paused: {reason}"),
        Order::Resume => {
            let lifted: Vec<&str> = answer["lifted"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let still = taken(answer["slotTaken"] == true);
            if lifted.is_empty() {
                format!("{account} was not paused{still}")
            } else {
                format!("{account} goes on; lifted: {}{still}", lifted.join(", "))
            }
        }
        Order::Resync => {
            let number = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string());
            let mut lines = vec![format!(
                "{account} was opened again: next nonce {}, {} slots on record not mined{}",
                number(&answer["nextNonce"]),
                number(&answer["unmined"]),
                taken(answer["slotTaken"]["now"] == true),
            )];
            for endpoint in answer["endpoints"].as_array().into_iter().flatten() {
                let label = endpoint["label"].as_str().unwrap_or("?");
                lines.push(match endpoint["error"].as_str() {
                    Some(error) => format!("{label}: {error}"),
                    None => format!("{label}: latest {}, pending {}", number(&endpoint["latest"]), number(&endpoint["pending"])),
                });
            }
            lines.join("\n")
        }
    }
}
