//! `[[configuration]]`.

use std::num::NonZeroU32;
use std::time::Duration;

use url::Url;

use super::errors::Fault;
use super::kinds::{Choice, Count, FilePath, Flag, Parsed, Time};
use super::model::{AssumedRole, AwsCredentials, AwsKms, Configuration, Local, Provider};
use super::reader::Table;
use super::secret::SecretSource;

/// The providers that a file can name.
#[derive(Debug, Clone, Copy)]
enum ProviderName {
    AwsKms,
    Local,
}

const PROVIDERS: Choice<ProviderName> = Choice(&[("aws_kms", ProviderName::AwsKms), ("local", ProviderName::Local)]);

const AWS_KEYS: [&str; 21] = [
    "region",
    "endpoint",
    "sts_endpoint",
    "use_fips",
    "use_dual_stack",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "role_arn",
    "external_id",
    "session_name",
    "web_identity_token_file",
    "account_id",
    "warm_connections",
    "sign_rate",
    "sign_rate_per_key",
    "sign_window",
    "sign_window_per_key",
    "sign_hedge",
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

const ROLE_ARN: Parsed<String> = Parsed {
    word: "text",
    expected: "the ARN of a role, such as \"arn:aws:iam::111122223333:role/sluice\"",
    parse: |text| {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", partition, "iam", "", account, role]
                if partition.starts_with("aws")
                    && is_account(account)
                    && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()) =>
            {
                Ok(text.to_owned())
            }
            _ => Err("is not the ARN of a role".to_owned()),
        }
    },
};

const ACCOUNT: Parsed<String> = Parsed {
    word: "text",
    expected: "the 12 digits of an AWS account",
    parse: |text| if is_account(text) { Ok(text.to_owned()) } else { Err("is not an AWS account".to_owned()) },
};

/// STS's own rules for what names a session and for an external id.
const SESSION_NAME: Parsed<String> = Parsed {
    word: "text",
    expected: "2 to 64 letters, digits and characters of _+=,.@-",
    parse: |text| if is_sts_word(text, 64, "_+=,.@-") { Ok(text.to_owned()) } else { Err("is not a session name".to_owned()) },
};

const EXTERNAL_ID: Parsed<String> = Parsed {
    word: "text",
    expected: "2 to 1224 letters, digits and characters of _+=,.@:/-",
    parse: |text| if is_sts_word(text, 1224, "_+=,.@:/-") { Ok(text.to_owned()) } else { Err("is not an external id".to_owned()) },
};

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.chars().all(|c| c.is_ascii_digit())
}

fn is_sts_word(text: &str, longest: usize, signs: &str) -> bool {
    (2..=longest).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

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
    let sts_endpoint = table.optional("sts_endpoint", ENDPOINT);
    let use_fips = table.or("use_fips", Flag, "false");
    let use_dual_stack = table.or("use_dual_stack", Flag, "false");
    for (key, given) in [("use_fips", use_fips), ("use_dual_stack", use_dual_stack)] {
        if given == Some(true) && (table.has("endpoint") || table.has("sts_endpoint")) {
            table.fail(key, Fault::Conflict, "chooses AWS's own endpoints: not beside endpoint or sts_endpoint, which say their own");
        }
    }
    let credentials = credentials(table);
    let role = role(table);
    let account_id = table.optional("account_id", ACCOUNT);
    let warm_connections = table.or("warm_connections", Count(0..=512), "16");
    let sign_rate = rate(table, "sign_rate");
    let sign_rate_per_key = rate(table, "sign_rate_per_key");
    let sign_window = table.or("sign_window", Count(1..=10_000), "512");
    let sign_window_per_key = table.or("sign_window_per_key", Count(1..=10_000), "256");
    let sign_hedge = table.or("sign_hedge", Flag, "true");
    let sign_deadline = table.or("sign_deadline", Time(Duration::from_millis(10)..=Duration::from_secs(600)), "10s");
    let refresh = table.or("refresh", Time(Duration::ZERO..=Duration::from_secs(86_400)), "5m");
    let is_too_often = |refresh: &Duration| !refresh.is_zero() && *refresh < Duration::from_secs(1);
    if refresh.as_ref().is_some_and(is_too_often) {
        table.fail("refresh", Fault::Value, "must be 1s or more, or 0s for never");
    }
    Some(AwsKms {
        region: region?,
        endpoint,
        sts_endpoint,
        use_fips: use_fips?,
        use_dual_stack: use_dual_stack?,
        credentials,
        role,
        account_id,
        warm_connections: warm_connections?,
        sign_rate: sign_rate?,
        sign_rate_per_key: sign_rate_per_key?,
        sign_window: sign_window?,
        sign_window_per_key: sign_window_per_key?,
        sign_hedge: sign_hedge?,
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

fn role(table: &mut Table<'_, '_>) -> Option<AssumedRole> {
    let arn = table.optional("role_arn", ROLE_ARN);
    let external_id = table.optional("external_id", EXTERNAL_ID);
    let session_name = table.or("session_name", SESSION_NAME, "sluice");
    let web_identity_token_file = table.optional("web_identity_token_file", FilePath);
    if !table.has("role_arn") {
        for key in ["external_id", "session_name", "web_identity_token_file"].iter().filter(|key| table.has(key)) {
            table.fail(key, Fault::Missing, "says how a role is assumed, and role_arn, which says which, is missing");
        }
    }
    if table.has("web_identity_token_file") {
        for key in ["external_id", "access_key_id"].iter().filter(|key| table.has(key)) {
            table.fail(key, Fault::Conflict, "has no place beside web_identity_token_file: the token alone assumes the role");
        }
    }
    Some(AssumedRole { arn: arn?, external_id, session_name: session_name?, web_identity_token_file })
}

fn local(table: &mut Table<'_, '_>) -> Option<Local> {
    let keystore = table.required("keystore", FilePath);
    let password = table.required("password", SecretSource);
    Some(Local { keystore: keystore?, password: password? })
}
