//! One TOML file, environment overrides, and errors that name the key path and what would be right.
//!
//! The file becomes a tree in which every value knows its place (`tree`), variables are put into it (`overrides`), and a
//! `reader` takes the keys out of it, table by table. No error ends the reading: all are told at once.

mod configuration;
mod environment;
mod errors;
mod kinds;
mod listeners;
mod model;
mod nodes;
mod overrides;
mod reader;
mod secret;
mod service;
mod tree;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use url::Url;

pub use errors::{ConfigError, ConfigErrors, Fault, Place};
pub use model::*;

use kinds::{Count, Kind as _};
use reader::{Context, KeyPath, Spot, Table, advice};
use service::{Known, NAME, SERVICE_NAME};
use tree::{Item, Origin, Value};

/// Chain ids on which the development keys, which everybody has, may sign: of anvil and hardhat, and of `geth --dev`.
const DEVELOPMENT_CHAINS: [u64; 2] = [31337, 1337];

/// The variables of this process, for [`load`]. Names that are not Unicode are none of ours; what is not Unicode in a value is
/// replaced, and then refused wherever it matters.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

/// Reads a file, with the overrides and secrets that are in `variables`. Relative paths, in the file and in variables, are
/// relative to the folder of the file.
pub fn load(path: &Path, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("{} cannot be read: {error}", path.display());
        ConfigErrors(vec![ConfigError { key: String::new(), place: Place::Absent, fault: Fault::Unreadable, message }])
    })?;
    parse_in(path.parent().unwrap_or(Path::new("")), &text, variables)
}

/// Reads a text as [`load`] reads a file; relative paths stay as they are.
pub fn parse(text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    parse_in(Path::new(""), text, variables)
}

fn parse_in(base: &Path, text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigErrors> {
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let context = Context::new(&variables, base);
    let config = read(&context, text);
    finish(context, text, config)
}

fn read(context: &Context<'_>, text: &str) -> Option<Config> {
    match tree::read(text) {
        Ok(mut root) => {
            overrides::apply(context, &mut root);
            let spot = Spot { path: KeyPath::default(), origin: root.origin.clone() };
            context.table(&spot, root, |table| config(table, None))
        }
        Err(errors) => {
            for (origin, message) in errors {
                context.fail(&Spot { path: KeyPath::default(), origin }, Fault::Syntax, format!("is not TOML: {message}"));
            }
            None
        }
    }
}

/// The configuration of `sluice dev`: environment, configuration and service are called `dev`, and the keys are those of the
/// development mnemonic. Every rule of a file holds; chain ids other than 31337 and 1337 are refused, since everybody has the keys.
pub fn development(
    node: Url,
    chain_id: u64,
    accounts: u32,
    listen: SocketAddr,
    admin: SocketAddr,
    journal: PathBuf,
) -> Result<Config, ConfigErrors> {
    let at = Origin::Arguments;
    let text = |text: &str| Value::Text(text.to_owned());
    let list = |item: Item| Value::List(vec![item]);
    let environment = Item::table(
        [
            ("name", text("dev")),
            ("chain_id", Value::Integer(chain_id.into())),
            ("nodes", list(Item::table([("url", text(node.as_str()))], &at))),
        ],
        &at,
    );
    let service = Item::table(
        [("name", text("dev")), ("environment", text("dev")), ("configurations", list(Item::new(text("dev"), at.clone())))],
        &at,
    );
    let root = Item::table(
        [
            ("server", Item::table([("listen", text(&listen.to_string()))], &at).value),
            ("admin", Item::table([("listen", text(&admin.to_string()))], &at).value),
            ("journal", Item::table([("path", text("sluice.db"))], &at).value),
            ("environment", list(environment)),
            ("service", list(service)),
        ],
        &at,
    );
    let variables = BTreeMap::new();
    let context = Context::new(&variables, Path::new(""));
    let spot = Spot { path: KeyPath::default(), origin: at };
    if !DEVELOPMENT_CHAINS.contains(&chain_id) {
        let spot = Spot { path: KeyPath::default().key("environment").name("dev").key("chain_id"), ..spot.clone() };
        let message = format!("is {chain_id}, and everybody has the development keys: they sign on chain ids 31337 and 1337 only");
        context.fail(&spot, Fault::Unsafe, message);
    }
    let accounts_spot = Spot { path: KeyPath::default().key("configuration").name("dev").key("accounts"), ..spot.clone() };
    Count(1..=1000_u32).read(&context, &accounts_spot, Item::new(Value::Integer(accounts.into()), Origin::Arguments));
    let keys = Configuration { name: "dev".to_owned(), provider: Provider::Development { accounts } };
    // The path is put in afterwards: it need not be Unicode.
    let config =
        context.table(&spot, root, |table| config(table, Some(keys))).map(|config| Config { journal: Journal { path: journal }, ..config });
    finish(context, "", config)
}

/// Reads the whole; `development` stands for the `[[configuration]]` tables if it is there.
fn config(table: &mut Table<'_, '_>, development: Option<Configuration>) -> Option<Config> {
    let server = table.section("server", listeners::server);
    let admin = table.section("admin", listeners::admin);
    let journal = table.section("journal", listeners::journal);
    let log = table.section("log", listeners::log);
    if let (Some(server), Some(admin)) = (&server, &admin)
        && server.listen == admin.listen
        && admin.listen.port() != 0
    {
        let spot = Spot { path: KeyPath::default().key("admin").key("listen"), ..table.spot("admin") };
        table.context.fail(&spot, Fault::Conflict, "is the address of server.listen: each listener needs its own");
    }
    let mut known = Known::default();
    let mut chains = BTreeMap::new();
    let environments = table.named("environment", NAME, |table, name| {
        known.environments.push(name.clone());
        environment::environment(table, name, &mut chains)
    });
    let configurations = match development {
        Some(configuration) => {
            known.configurations.push((configuration.name.clone(), false));
            vec![configuration]
        }
        None => table.named("configuration", NAME, |table, name| {
            let configuration = configuration::configuration(table, name.clone());
            let local = matches!(&configuration, Some(Configuration { provider: Provider::Local(_), .. }));
            known.configurations.push((name, local));
            configuration
        }),
    };
    let limits = server.as_ref().map(Server::limits);
    let mut names = Vec::new();
    let services = table.named("service", SERVICE_NAME, |table, name| {
        names.push(name.clone());
        service::service(table, name, &known, limits)
    });
    if let Some(default) = server.as_ref().and_then(|server| server.default_service.as_ref()).filter(|name| !names.contains(name)) {
        let advice = advice(default, names.iter().map(String::as_str));
        let spot = Spot { path: KeyPath::default().key("server").key("default_service"), ..table.spot("server") };
        table.context.fail(&spot, Fault::Reference, format!("there is no service of this name{advice}"));
    }
    Some(Config { server: server?, admin: admin?, journal: journal?, log: log?, environments, configurations, services })
}

/// The configuration, unless there was any error.
fn finish(context: Context<'_>, text: &str, config: Option<Config>) -> Result<Config, ConfigErrors> {
    if let Some(errors) = context.finish(text) {
        return Err(errors);
    }
    config.ok_or_else(|| {
        // A reader that gives nothing reports why; this keeps a slip in one from ending the process.
        let message = "cannot be read".to_owned();
        ConfigErrors(vec![ConfigError { key: String::new(), place: Place::Absent, fault: Fault::Value, message }])
    })
}

#[cfg(test)]
mod tests;
