//! `sluice keys import`: an address of a keystore file moves into AWS KMS.

use std::path::{Path, PathBuf};

use serde_json::json;
use sluice_gateway::signing::aws_kms::{AwsKms, Import, ImportError, Material};

use super::password::{PasswordSource, read};
use super::{Failure, kms_configuration, load, metrics, pairs, warn_if_unused};

/// What the command line says.
pub(crate) struct ImportArguments {
    pub(crate) keystore: PathBuf,
    pub(crate) configuration: Option<String>,
    pub(crate) password: PasswordSource,
    pub(crate) tags: Vec<String>,
    pub(crate) description: Option<String>,
    pub(crate) multi_region: bool,
    pub(crate) alias: Option<String>,
    pub(crate) key_id: Option<String>,
    pub(crate) json: bool,
}

pub(crate) async fn import(path: &Path, arguments: &ImportArguments) -> Result<(), Failure> {
    let config = load(path)?;
    let (name, kms) = kms_configuration(&config, arguments.configuration.as_deref())?;
    let tags = pairs(&arguments.tags)?;
    let source = arguments.password.clone();
    // Beside the runtime: a terminal takes its time.
    let password = tokio::task::spawn_blocking(move || read(&source)).await.map_err(|error| Failure::Failed(error.to_string()))??;
    // Before anything is made: what is wrong here costs nothing.
    let material = Material::open(&arguments.keystore, password).await?;
    let store = AwsKms::connect(name, kms, metrics()?).await?;
    let target = match &arguments.key_id {
        Some(id) => Import::Resume(id.clone()),
        None => {
            let description = arguments.description.clone();
            Import::Create { tags: tags.clone(), description, multi_region: arguments.multi_region }
        }
    };
    let key = store.import(&material, &target, arguments.alias.as_deref()).await;
    let key = key.map_err(|error| Failure::Failed(format!("{error}{}", advice(&error, path, &arguments.keystore, name, &kms.region))))?;
    if arguments.json {
        println!("{}", json!({ "address": material.address(), "arn": key.arn.to_string(), "aliases": key.aliases, "tags": key.tags }));
    } else {
        println!("{} {}", material.address(), key.arn);
    }
    if arguments.key_id.is_none() {
        warn_if_unused(&config, name, &tags);
    }
    Ok(())
}

/// How to go on, and how to clean up.
fn advice(error: &ImportError, file: &Path, keystore: &Path, configuration: &str, region: &str) -> String {
    let again =
        |id: &str| format!("sluice keys import {} {} --configuration {configuration} --key-id {id}", file.display(), keystore.display());
    let delete = |id: &str| format!("aws kms schedule-key-deletion --region {region} --key-id {id}");
    match error {
        ImportError::Nothing(_) => String::new(),
        ImportError::Unknown { .. } => {
            format!("\n  if there is one, go on:  {}\n  or remove it:            {}", again("ID"), delete("ID"))
        }
        ImportError::Half { arn, .. } => format!("\n  go on:      {}\n  or remove:  {}", again(&arn.0), delete(&arn.0)),
        ImportError::Foreign { arn, .. } => format!("\n  if nobody uses it, remove it:  {}", delete(&arn.0)),
        ImportError::Unnamed { arn, alias, .. } => {
            let alias = if alias.starts_with("alias/") { alias.clone() } else { format!("alias/{alias}") };
            format!("\n  name it:  aws kms create-alias --region {region} --alias-name {alias} --target-key-id {}", arn.0)
        }
    }
}
