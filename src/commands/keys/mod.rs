//! `sluice keys list`, `show`, `refresh`, `create`, `import` and `replicate`.

mod chain;
mod import;
mod list;
mod password;
mod refresh;
mod replicate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use sluice_gateway::config::{Config, Configuration, KeySelection, Provider};
use sluice_gateway::signing::KeyStore as _;
use sluice_gateway::signing::aws_kms::AwsKms;
use sluice_gateway::signing::signature::PinnedKey;
use sluice_gateway::telemetry::metrics::Metrics;

pub(crate) use self::import::{ImportArguments, import};
pub(crate) use self::list::{list, show};
pub(crate) use self::password::PasswordSource;
pub(crate) use self::refresh::refresh;
pub(crate) use self::replicate::replicate;
use super::{Failure, load};

fn metrics() -> Result<Arc<Metrics>, Failure> {
    Metrics::new().map(Arc::new).map_err(|error| Failure::Failed(error.to_string()))
}

pub(crate) async fn create(
    path: &Path,
    configuration: Option<&str>,
    tags: &[String],
    alias: Option<&str>,
    as_json: bool,
) -> Result<(), Failure> {
    let config = load(path)?;
    let (name, kms) = kms_configuration(&config, configuration)?;
    let pairs = pairs(tags)?;
    let store = AwsKms::connect(name, kms, metrics()?).await?;
    let created = store.create_key(&pairs, alias).await?;
    let spki = store.public_key(&created.arn).await?;
    let key = PinnedKey::from_spki(created.arn.clone(), &spki).map_err(|error| Failure::Failed(error.to_string()))?;
    if as_json {
        println!(
            "{}",
            json!({ "address": key.address(), "arn": created.arn.to_string(), "aliases": created.aliases, "tags": created.tags })
        );
    } else {
        println!("{} {}", key.address(), created.arn);
    }
    warn_if_unused(&config, name, &pairs);
    Ok(())
}

/// `NAME=VALUE` of each `--tag`.
fn pairs(tags: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |tag: &String| {
        let (name, value) = tag.split_once('=').ok_or_else(|| Failure::Usage(format!("--tag {tag}: a tag is NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    tags.iter().map(pair).collect()
}

fn kms_configuration<'a>(config: &'a Config, wanted: Option<&str>) -> Result<(&'a str, &'a sluice_gateway::config::AwsKms), Failure> {
    let kms = |configuration: &'a Configuration| match &configuration.provider {
        Provider::AwsKms(kms) => Some((configuration.name.as_str(), kms)),
        Provider::Local(_) | Provider::Development { .. } => None,
    };
    let mut all = config.configurations.iter().filter_map(kms);
    match wanted {
        Some(wanted) => all
            .find(|(name, _)| *name == wanted)
            .ok_or_else(|| Failure::Usage(format!("--configuration {wanted}: there is no such configuration with provider aws_kms"))),
        None => match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Failure::Usage("the file has no configuration with provider aws_kms".into())),
            (Some(_), Some(_)) => Err(Failure::Usage("the file has several; say which by --configuration NAME".into())),
        },
    }
}

/// A key that no service will find is most likely a slip.
fn warn_if_unused(config: &Config, configuration: &str, tags: &BTreeMap<String, String>) {
    let used = config.services.iter().filter(|service| service.configurations.iter().any(|name| name == configuration)).any(|service| {
        match &service.keys {
            KeySelection::All => true,
            KeySelection::Tags(wanted) => wanted.iter().all(|(name, value)| tags.get(name) == Some(value)),
            KeySelection::Ids(_) => false,
        }
    });
    if !used {
        eprintln!("sluice: note: no service of this file selects the new key by its tags; name it under keys.ids, or tag it");
    }
}
