//! `[[configuration]]`.

use std::num::NonZeroU32;
use std::time::Duration;

use url::Url;

use super::errors::Fault;
use super::kinds::{Choice, Count, FilePath, Parsed, Time};
use super::model::{AwsCredentials, AwsKms, Configuration, Local, Provider};
use super::reader::Table;
use super::secret::SecretSource;

/// The providers that a file can name.
#[derive(Debug, Clone, Copy)]
enum ProviderName {
    AwsKms,
    Local,
}

const PROVIDERS: Choice<ProviderName> = Choice(&[("aws_kms", ProviderName::AwsKms), ("local", ProviderName::Local)]);

const AWS_KEYS: [&str; 9] = [
    "region",
    "endpoint",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "sign_rate",
    "sign_rate_per_key",
    "sign_deadline",
    "refresh",
];

const LOCAL_KEYS: [&str; 2] = ["keystore", "password"];

const REGION: Parsed<String> = Parsed {
    word: "text",
    expected: "the name of an AWS Region, such as \"us-east-1\"",
    parse: |text| {
        let right = !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if right { Ok(text.to_owned()) } else { Err("is not a Region".to_owned()) }
    },
};

const ENDPOINT: Parsed<Url> = Parsed {
    word: "URL",
    expected: "an http or https URL without credentials, such as \"https://vpce-….kms.us-east-1.vpce.amazonaws.com\"",
    parse: |text| {
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        match url.scheme() {
            "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(url),
            "http" | "https" => Err("holds credentials".to_owned()),
            _ => Err("has another scheme".to_owned()),
        }
    },
};

pub(super) fn configuration(table: &mut Table<'_, '_>, name: String) -> Option<Configuration> {
    let provider = match table.required("provider", PROVIDERS) {
        Some(ProviderName::AwsKms) => {
            table.foreign(&LOCAL_KEYS, "to provider = \"local\"");
            aws_kms(table).map(Provider::AwsKms)
        }
        Some(ProviderName::Local) => {
            table.foreign(&AWS_KEYS, "to provider = \"aws_kms\"");
            local(table).map(Provider::Local)
        }
        None => {
            table.ignore(&AWS_KEYS);
            table.ignore(&LOCAL_KEYS);
            None
        }
    };
    Some(Configuration { name, provider: provider? })
}

fn aws_kms(table: &mut Table<'_, '_>) -> Option<AwsKms> {
    let region = table.required("region", REGION);
    let endpoint = table.optional("endpoint", ENDPOINT);
    let credentials = credentials(table);
    let sign_rate = rate(table, "sign_rate");
    let sign_rate_per_key = rate(table, "sign_rate_per_key");
    let sign_deadline = table.or("sign_deadline", Time(Duration::from_millis(10)..=Duration::from_secs(600)), "10s");
    let refresh = table.or("refresh", Time(Duration::ZERO..=Duration::from_secs(86_400)), "5m");
    let is_too_often = |refresh: &Duration| !refresh.is_zero() && *refresh < Duration::from_secs(1);
    if refresh.as_ref().is_some_and(is_too_often) {
        table.fail("refresh", Fault::Value, "must be 1s or more, or 0s for never");
    }
    Some(AwsKms {
        region: region?,
        endpoint,
        credentials,
        sign_rate: sign_rate?,
        sign_rate_per_key: sign_rate_per_key?,
        sign_deadline: sign_deadline?,
        refresh: refresh?,
    })
}

/// Signs per second; the default is AWS's own quota for an account in a Region.
fn rate(table: &mut Table<'_, '_>, key: &'static str) -> Option<NonZeroU32> {
    table.or(key, Count(1..=1_000_000), "1000").and_then(NonZeroU32::new)
}

fn credentials(table: &mut Table<'_, '_>) -> Option<AwsCredentials> {
    let access_key_id = table.optional("access_key_id", SecretSource);
    let secret_access_key = table.optional("secret_access_key", SecretSource);
    let session_token = table.optional("session_token", SecretSource);
    let given = |key: &&&str| table.has(key);
    let needed = ["access_key_id", "secret_access_key"];
    if needed.iter().chain(&["session_token"]).any(|key| given(&key)) {
        for key in needed.iter().filter(|key| !given(key)) {
            let message = "is missing: static credentials are access_key_id and secret_access_key; without any, AWS's own chain is used";
            table.fail(key, Fault::Missing, message);
        }
    }
    Some(AwsCredentials { access_key_id: access_key_id?, secret_access_key: secret_access_key?, session_token })
}

fn local(table: &mut Table<'_, '_>) -> Option<Local> {
    let keystore = table.required("keystore", FilePath);
    let password = table.required("password", SecretSource);
    Some(Local { keystore: keystore?, password: password? })
}
