//! The configuration of a gateway with one environment, keys of one provider, and one service.

use std::path::{Path, PathBuf};

/// More lines for the tables of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) server: String,
    pub(crate) admin: String,
    pub(crate) environment: String,
    pub(crate) configuration: String,
    pub(crate) service: String,
    /// What stands at the end.
    pub(crate) tail: String,
}

impl Extra {
    /// More lines for the environment alone.
    pub(crate) fn environment(lines: &str) -> Self {
        Self { environment: lines.into(), ..Self::default() }
    }
}

/// Where the keys are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys<'a> {
    /// In the KMS at this URL: those with the service's name as their tag `app`.
    Kms(&'a str),
    /// In this folder of keystore files, all with the password in the environment variable of this name.
    Keystore(&'a Path, &'a str),
}

/// What differs from test to test.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Configuration<'a> {
    /// Of the environment `dev`.
    pub(crate) chain_id: u64,
    /// Its node's URL.
    pub(crate) node: &'a str,
    pub(crate) keys: Keys<'a>,
    /// Name of the service.
    pub(crate) service: &'a str,
    pub(crate) extra: &'a Extra,
}

impl Configuration<'_> {
    /// Its text. The configuration of the keys is named `kms` or `files`.
    pub(crate) fn text(&self) -> String {
        let Self { chain_id, node, service: name, .. } = self;
        let Extra { server, admin, environment, configuration, service, tail } = self.extra;
        let (holder, provider, keys) = match self.keys {
            Keys::Kms(url) => ("kms", kms(url, configuration), format!("keys = {{ tag = {{ app = \"{name}\" }} }}")),
            Keys::Keystore(folder, password) => ("files", keystore(folder, password), String::new()),
        };
        format!(
            r#"[server]
listen = "127.0.0.1:0"
{server}
[admin]
listen = "127.0.0.1:0"
{admin}
[journal]
path = "sluice.db"
[[environment]]
name = "dev"
chain_id = {chain_id}
nodes = [{{ url = "{node}" }}]
{environment}
[[configuration]]
name = "{holder}"
{provider}
{configuration}
[[service]]
name = "{name}"
environment = "dev"
configurations = ["{holder}"]
{keys}
{service}
{tail}
"#
        )
    }

    /// Writes it to `sluice.toml` in this folder, and says where that is.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("sluice.toml");
        std::fs::write(&path, self.text()).unwrap();
        path
    }
}

fn kms(url: &str, more: &str) -> String {
    // An emulator is slow where much else runs: only a test of deadlines is to meet one, and says its own.
    let deadline = if more.contains("sign_deadline") { "" } else { "sign_deadline = \"1m\"" };
    format!(
        r#"provider = "aws_kms"
region = "us-east-1"
endpoint = "{url}"
access_key_id = {{ env = "TEST_ACCESS_KEY_ID" }}
secret_access_key = {{ env = "TEST_SECRET_ACCESS_KEY" }}
{deadline}"#
    )
}

fn keystore(folder: &Path, password: &str) -> String {
    format!("provider = \"local\"\nkeystore = \"{}\"\npassword = {{ env = \"{password}\" }}", folder.display())
}
