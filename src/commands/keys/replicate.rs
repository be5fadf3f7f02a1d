//! `sluice keys replicate`: one more Region for a multi-Region key.

use std::path::Path;

use serde_json::json;
use sluice_gateway::config::{AwsKms as Settings, Config, Provider};
use sluice_gateway::signing::aws_kms::{AwsKms, ReplicateError};

use super::{Failure, kms_configuration, load, metrics};

pub(crate) async fn replicate(path: &Path, key: &str, region: &str, configuration: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let config = load(path)?;
    let (name, kms) = kms_configuration(&config, configuration)?;
    let (name_there, kms_there) = settings_of(&config, name, kms, region)?;
    let metrics = metrics()?;
    let here = AwsKms::connect(name, kms, metrics.clone()).await?;
    let there = AwsKms::connect(&name_there, &kms_there, metrics).await?;
    let replica = here.replicate(key, &there).await.map_err(|error| {
        let advice = match &error {
            ReplicateError::NeedsMaterial { arn } => format!(
                "\n  go on:  sluice keys import {} KEYSTORE --configuration {name_there} --key-id {arn}   (the keystore of the primary)",
                path.display()
            ),
            ReplicateError::Half { .. } => "\n  say the same command again: it goes on with this replica".to_owned(),
            ReplicateError::NotMade(_) | ReplicateError::OtherKey { .. } => String::new(),
        };
        Failure::Failed(format!("{error}{advice}"))
    })?;
    if as_json {
        println!("{}", json!({ "address": replica.address, "arn": replica.arn.to_string() }));
    } else {
        println!("{} {}", replica.address, replica.arn);
    }
    if !config.configurations.iter().any(|one| matches!(&one.provider, Provider::AwsKms(kms) if kms.region == region)) {
        eprintln!("sluice: note: no configuration of this file is in {region}; the replica signs once a service names one");
    }
    Ok(())
}

/// The way to the other Region: a configuration of the file that is there, else this one with the other Region.
fn settings_of(config: &Config, name: &str, kms: &Settings, region: &str) -> Result<(String, Settings), Failure> {
    let there = config.configurations.iter().find_map(|one| match &one.provider {
        Provider::AwsKms(kms) if kms.region == region => Some((one.name.clone(), kms.clone())),
        _ => None,
    });
    match there {
        Some(found) => Ok(found),
        None if kms.endpoint.is_some() => Err(Failure::Usage(format!(
            "configuration {name} has an endpoint of its own, and which one {region} has is not known: add a configuration of that Region"
        ))),
        None => Ok((name.to_owned(), Settings { region: region.to_owned(), ..kms.clone() })),
    }
}
