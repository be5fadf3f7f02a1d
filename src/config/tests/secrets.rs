use proptest::prelude::*;

use super::*;

const REGION: &str = "region = \"us-east-1\"";
const HIDDEN: &str = "hunter2hidden";

fn credentials(config: &Config) -> &AwsCredentials {
    match &config.configurations[0].provider {
        Provider::AwsKms(kms) => kms.credentials.as_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn secrets_come_from_variables_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.toml");
    for (content, secret) in [("a b\n", "a b"), ("a b\r\n", "a b"), ("a b\n\n", "a b\n"), (" a b", " a b")] {
        let keys = format!("{REGION}\naccess_key_id = {{ env = \"ID\" }}\nsecret_access_key = {{ file = \"key\" }}");
        std::fs::write(folder.path().join("key"), content).unwrap();
        std::fs::write(&file, with(REGION, &keys)).unwrap();
        let config = load(&file, variables(&[("ID", HIDDEN)])).unwrap();
        assert_eq!(credentials(&config).access_key_id.reveal(), HIDDEN);
        assert_eq!(credentials(&config).secret_access_key.reveal(), secret);
        assert!(credentials(&config).session_token.is_none());
        assert!(!format!("{config:?}").contains(HIDDEN));
    }
}

#[test]
fn a_secret_in_the_file_or_an_override_is_refused_and_not_repeated() {
    let text = with(REGION, &format!("{REGION}\naccess_key_id = \"{HIDDEN}\"\nsecret_access_key = {{ env = \"KEY\" }}"));
    let pairs = [("KEY", "k"), ("SLUICE__CONFIGURATION__KMS__SESSION_TOKEN", HIDDEN)];
    let keys = [("configuration.kms.access_key_id", Fault::Secret), ("configuration.kms.session_token", Fault::Secret)];
    assert_faults(&text, &pairs, &keys);
    let errors = parse(&text, variables(&pairs)).unwrap_err();
    assert!(!errors.to_string().contains(HIDDEN) && !format!("{errors:?}").contains(HIDDEN));
}

#[test]
fn overrides_name_secrets_too() {
    let pairs = [
        ("SLUICE__CONFIGURATION__KMS__ACCESS_KEY_ID__ENV", "ID"),
        ("SLUICE__CONFIGURATION__KMS__SECRET_ACCESS_KEY", "{ env = \"KEY\" }"),
        ("ID", "id"),
        ("KEY", "key"),
    ];
    let config = parse(MINIMAL, variables(&pairs)).unwrap();
    assert_eq!(credentials(&config).access_key_id.reveal(), "id");
    assert_eq!(credentials(&config).secret_access_key.reveal(), "key");
}

#[test]
fn a_source_is_one_that_is_there_and_not_empty() {
    let source = |source: &str| with(REGION, &format!("{REGION}\nsecret_access_key = {{ env = \"KEY\" }}\naccess_key_id = {source}"));
    let pairs = [("KEY", "k"), ("EMPTY", "")];
    let key = "configuration.kms.access_key_id";
    assert_faults(&source("{ env = \"ABSENT\" }"), &pairs, &[(key, Fault::Secret)]);
    assert_faults(&source("{ env = \"EMPTY\" }"), &pairs, &[(key, Fault::Secret)]);
    assert_faults(&source("{ file = \"/nonexistent/file\" }"), &pairs, &[(key, Fault::Secret)]);
    assert_faults(&source("{}"), &pairs, &[(key, Fault::Conflict)]);
    assert_faults(&source("{ env = \"KEY\", file = \"f\" }"), &pairs, &[(key, Fault::Conflict)]);
    let unknown = [("configuration.kms.access_key_id.value", Fault::Unknown)];
    assert_faults(&source("{ env = \"KEY\", value = \"f\" }"), &pairs, &unknown);
}

#[test]
fn static_credentials_are_whole() {
    let one = with(REGION, &format!("{REGION}\naccess_key_id = {{ env = \"KEY\" }}"));
    assert_faults(&one, &[("KEY", "k")], &[("configuration.kms.secret_access_key", Fault::Missing)]);
    let token = with(REGION, &format!("{REGION}\nsession_token = {{ env = \"KEY\" }}"));
    let missing = [("configuration.kms.access_key_id", Fault::Missing), ("configuration.kms.secret_access_key", Fault::Missing)];
    assert_faults(&token, &[("KEY", "k")], &missing);
}

proptest! {
    /// Whatever stands where a URL, a secret or a source belongs: errors do not repeat it.
    #[test]
    fn errors_repeat_nothing_that_may_be_secret(value in "[a-z0-9:/@#?%]{0,12}hunter2[a-z0-9:/@#?%]{0,12}") {
        let nodes = "nodes = [{ url = \"ws://127.0.0.1:8546\" }]";
        for text in [
            with(nodes, &format!("nodes = [{{ url = \"{value}\" }}]")),
            with(nodes, &format!("nodes = [{{ url = \"http://{value}\" }}]")),
            with(REGION, &format!("{REGION}\nendpoint = \"ftp://{value}\"")),
            with(REGION, &format!("{REGION}\naccess_key_id = \"{value}\"\nsecret_access_key = {{ env = \"{value}\" }}")),
            with(REGION, &format!("{REGION}\nsession_token = {{ file = \"/nonexistent/{value}\" }}")),
        ] {
            if let Err(errors) = parse(&text, no_variables()) {
                prop_assert!(!errors.to_string().contains("hunter2"), "{}", errors);
            }
        }
    }
}
