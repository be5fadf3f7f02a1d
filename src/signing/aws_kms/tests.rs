use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::{AwsCredentials, Secret};
use crate::signing::testing::{arn, signing_key, spki};

/// What the server answers to one call: status and body.
pub(super) type Answer = (u16, Value);
type Script = Box<dyn Fn(&str, &Value, usize) -> Answer + Send + Sync>;

/// A KMS endpoint on loopback that follows a script by operation, request and number of that operation's call.
pub(super) struct Server {
    pub(super) kms: AwsKms,
    metrics: Arc<Metrics>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    /// Connections that were accepted.
    connections: Arc<AtomicUsize>,
    /// Ends every connection that is open.
    ending: watch::Sender<()>,
    _accepting: AbortOnDropHandle<()>,
}

pub(super) async fn serve(script: impl Fn(&str, &Value, usize) -> Answer + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let script: Arc<Script> = Arc::new(Box::new(script));
    let calls = Arc::<Mutex<Vec<(String, Value)>>>::default();
    let (connections, ending) = (Arc::<AtomicUsize>::default(), watch::Sender::new(()));
    let accepting = tokio::spawn({
        let (calls, connections, ending) = (calls.clone(), connections.clone(), ending.clone());
        async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (script, calls, mut ending) = (script.clone(), calls.clone(), ending.subscribe());
                let service = service_fn(move |request| answer(request, script.clone(), calls.clone()));
                let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = serving => {}
                        _ = ending.changed() => {}
                    }
                });
            }
        }
    });
    let metrics = Arc::new(Metrics::new().unwrap());
    let kms = AwsKms::connect("kms", &configuration(&url), metrics.clone()).await.unwrap();
    Server { kms, metrics, calls, connections, ending, _accepting: AbortOnDropHandle::new(accepting) }
}

pub(super) fn configuration(url: &str) -> config::AwsKms {
    config::AwsKms {
        region: "us-east-1".to_owned(),
        endpoint: Some(url.parse().unwrap()),
        sts_endpoint: None,
        use_fips: false,
        use_dual_stack: false,
        credentials: Some(AwsCredentials {
            access_key_id: Secret::new("AKIDEXAMPLE".to_owned()),
            secret_access_key: Secret::new("very-secret".to_owned()),
            session_token: None,
        }),
        role: None,
        account_id: None,
        warm_connections: 2,
        sign_rate: NonZeroU32::new(1000).unwrap(),
        sign_rate_per_key: NonZeroU32::new(1000).unwrap(),
        sign_window: 512,
        sign_window_per_key: 256,
        sign_hedge: true,
        sign_deadline: Duration::from_secs(10),
        refresh: Duration::ZERO,
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Script>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
    let operation = target.strip_prefix("TrentService.").unwrap().to_owned();
    let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let number = {
        let mut calls = calls.lock().unwrap();
        calls.push((operation.clone(), body.clone()));
        calls.iter().filter(|(other, _)| *other == operation).count() - 1
    };
    let (status, body) = script(&operation, &body, number);
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
    Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
}

impl Server {
    pub(super) fn count(&self, operation: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|(other, _)| other == operation).count()
    }

    pub(super) fn request(&self, operation: &str) -> Value {
        self.calls.lock().unwrap().iter().find(|(other, _)| other == operation).unwrap().1.clone()
    }
}

pub(super) fn fails(code: &str, message: &str) -> Answer {
    (400, json!({ "__type": code, "message": message }))
}

pub(super) fn key_arn(id: &str) -> String {
    format!("arn:aws:kms:us-east-1:111122223333:key/{id}")
}

fn metadata(id: &str, spec: &str, usage: &str, state: &str) -> Answer {
    (200, json!({ "KeyMetadata": { "KeyId": id, "Arn": key_arn(id), "KeySpec": spec, "KeyUsage": usage, "KeyState": state } }))
}

/// Standard base64, for blobs.
pub(super) fn base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}

fn class<T: std::fmt::Debug>(result: Result<T, KeyStoreError>) -> SignClass {
    result.unwrap_err().class
}

/// The part of an ARN, key id or alias that names the key.
fn short(request: &Value) -> String {
    request["KeyId"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn sign_asks_for_the_digest_and_gives_what_kms_said() {
    let key = signing_key(1);
    let digest = B256::repeat_byte(7);
    let der = key.sign_prehash_recoverable(digest.as_slice()).unwrap().0.to_der();
    let encoded = base64(der.as_bytes());
    let server = serve(move |_, _, _| (200, json!({ "KeyId": key_arn("b"), "Signature": encoded }))).await;
    let answer = server.kms.sign_digest(&arn(&key_arn("a")), digest).await.unwrap();
    assert_eq!(&*answer.arn.0, key_arn("b"), "the key that KMS says, not the one that was asked for");
    assert!(matches!(answer.signature, RawSignature::Der(bytes) if bytes == der.as_bytes()));
    let expected = json!({ "KeyId": key_arn("a"), "Message": base64(digest.as_slice()), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256" });
    assert_eq!(server.request("Sign"), expected);
}

#[tokio::test]
async fn sign_is_one_attempt_and_its_error_has_a_class() {
    let table = [
        (fails("ThrottlingException", "Rate exceeded"), SignClass::Throttled),
        ((500, json!({ "__type": "KMSInternalException" })), SignClass::Transient),
        ((503, json!({})), SignClass::Transient),
        (fails("KMSInvalidStateException", "x is creating."), SignClass::Transient),
        (fails("KMSInvalidStateException", "x is pending deletion."), SignClass::KeyDown),
        (fails("com.amazonaws.kms#DisabledException", "x is disabled."), SignClass::KeyDown),
        (fails("NotFoundException", "no key"), SignClass::Configuration),
        (fails("LimitExceededException", ""), SignClass::Configuration),
        (fails("AccessDeniedException", "not authorized to perform: kms:Sign"), SignClass::Credentials),
        (fails("ExpiredTokenException", "expired"), SignClass::Credentials),
        ((200, json!({})), SignClass::Transient),
    ];
    let rows = table.clone();
    let server = serve(move |_, _, number| rows[number].0.clone()).await;
    for (answer, expected) in &table {
        let result = server.kms.sign_digest(&arn("a"), B256::ZERO).await;
        assert_eq!(result.unwrap_err().class, *expected, "{answer:?}");
    }
    assert_eq!(server.count("Sign"), table.len());
}

#[tokio::test]
async fn errors_repeat_nothing_of_the_request() {
    let answers = [
        fails("IncompleteSignatureException", "Authorization=AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/…"),
        fails("UnrecognizedClientException", "AKIDEXAMPLE"),
    ];
    let server = serve(move |_, _, number| answers[number].clone()).await;
    for _ in 0..2 {
        let error = server.kms.sign_digest(&arn("a"), B256::ZERO).await.unwrap_err();
        assert_eq!(error.class, SignClass::Credentials);
        assert!(!error.detail.contains("AKIDEXAMPLE"), "{}", error.detail);
    }
    let shown = format!("{:?}", server.kms);
    assert!(!shown.contains("AKIDEXAMPLE") && !shown.contains("very-secret"), "{shown}");
}

#[tokio::test]
async fn no_connection_is_transient() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let kms = AwsKms::connect("kms", &configuration(&url), Arc::new(Metrics::new().unwrap())).await.unwrap();
    let error = kms.sign_digest(&arn("a"), B256::ZERO).await.unwrap_err();
    assert_eq!(error.class, SignClass::Transient);
    assert!(error.detail.starts_with("AWS KMS Sign: no answer: "), "{}", error.detail);
}

#[tokio::test]
async fn the_public_key_is_asked_again_after_a_throttle_and_counted() {
    let der = spki(&signing_key(1));
    let encoded = base64(&der);
    let server = serve(move |_, _, number| match number {
        0 => fails("ThrottlingException", "Rate exceeded"),
        _ => (200, json!({ "PublicKey": encoded })),
    })
    .await;
    assert_eq!(server.kms.public_key(&arn("a")).await.unwrap(), der);
    assert_eq!((server.count("GetPublicKey"), server.metrics.signing.public_keys.get()), (2, 2));
}

/// Five keys on three pages; of two keys the tags are on two pages.
fn account(operation: &str, request: &Value, _: usize) -> Answer {
    let marker = request["Marker"].as_str().unwrap_or_default().to_owned();
    let entries = |ids: &[&str]| Value::from(ids.iter().map(|id| json!({ "KeyId": id, "KeyArn": key_arn(id) })).collect::<Vec<_>>());
    match (operation, marker.as_str()) {
        ("ListKeys", "") => (200, json!({ "Keys": entries(&["k1", "aes"]), "Truncated": true, "NextMarker": "2" })),
        ("ListKeys", "2") => (200, json!({ "Keys": [], "Truncated": true, "NextMarker": "3" })),
        // Truncated without a marker: the end.
        ("ListKeys", "3") => (200, json!({ "Keys": entries(&["k2", "k3", "foreign", "p256"]), "Truncated": true })),
        ("DescribeKey", _) => match short(request).as_str() {
            "aes" => metadata("aes", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "Enabled"),
            "p256" => metadata("p256", "ECC_NIST_P256", "SIGN_VERIFY", "Enabled"),
            "foreign" => fails("AccessDeniedException", "not authorized"),
            "k3" => metadata("k3", "ECC_SECG_P256K1", "SIGN_VERIFY", "PendingDeletion"),
            "one" => metadata("k1", "ECC_SECG_P256K1", "SIGN_VERIFY", "Enabled"),
            id @ ("k1" | "k2") => metadata(id, "ECC_SECG_P256K1", "SIGN_VERIFY", "Enabled"),
            id => fails("NotFoundException", &format!("no {id}")),
        },
        ("ListResourceTags", "") => {
            (200, json!({ "Tags": [{ "TagKey": "app", "TagValue": "payments" }], "Truncated": true, "NextMarker": "t" }))
        }
        ("ListResourceTags", "t") => {
            let tier = if short(request) == "k1" { "hot" } else { "cold" };
            (200, json!({ "Tags": [{ "TagKey": "tier", "TagValue": tier }], "Truncated": false }))
        }
        _ => panic!("{operation} {request}"),
    }
}

fn arns(found: &[FoundKey]) -> Vec<String> {
    found.iter().map(|key| key.arn.to_string()).collect()
}

#[tokio::test]
async fn everything_is_paged_to_the_end_and_only_secp256k1_signers_are_found() {
    let server = serve(account).await;
    let found = server.kms.discover(&KeySelection::All).await.unwrap();
    assert_eq!(arns(&found), ["k1", "k2", "k3"].map(key_arn));
    assert_eq!(found[2].state, KeyState::Unusable("PendingDeletion".to_owned()));
    assert_eq!((server.count("ListKeys"), server.count("DescribeKey"), server.count("ListResourceTags")), (3, 6, 0));
}

#[tokio::test]
async fn tags_have_to_match_all() {
    let server = serve(account).await;
    let tags = |pairs: &[(&str, &str)]| KeySelection::Tags(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    let found = server.kms.discover(&tags(&[("app", "payments"), ("tier", "hot")])).await.unwrap();
    assert_eq!(arns(&found), [key_arn("k1")]);
    assert_eq!(found[0].tags.len(), 2);
    assert_eq!(server.kms.discover(&tags(&[("app", "payments")])).await.unwrap().len(), 3);
    assert!(server.kms.discover(&tags(&[("app", "other")])).await.unwrap().is_empty());
}

#[tokio::test]
async fn names_are_resolved_to_arns_once() {
    let server = serve(account).await;
    let ids = |names: &[&str]| KeySelection::Ids(names.iter().map(|name| (*name).to_owned()).collect());
    let found = server.kms.discover(&ids(&["alias/one", &key_arn("k1"), "k2"])).await.unwrap();
    assert_eq!(arns(&found), ["k1", "k2"].map(key_arn));
    assert_eq!(found[0].aliases, ["alias/one"]);
    assert_eq!(server.count("ListKeys"), 0);

    let missing = server.kms.discover(&ids(&["k1", "alias/none"])).await.unwrap_err();
    assert_eq!(missing.class, SignClass::Configuration);
    assert!(missing.detail.starts_with("alias/none: AWS KMS DescribeKey: NotFoundException"), "{}", missing.detail);
    let wrong = server.kms.discover(&ids(&["p256"])).await.unwrap_err();
    assert!(wrong.detail.ends_with("is ECC_NIST_P256 for SIGN_VERIFY, not ECC_SECG_P256K1 for SIGN_VERIFY"), "{}", wrong.detail);
    assert_eq!(class(server.kms.discover(&ids(&["foreign"])).await), SignClass::Credentials);
}

#[tokio::test]
async fn a_right_that_is_denied_for_every_key_is_an_error_and_for_one_it_is_not() {
    let only = |readable: &'static str| {
        move |operation: &str, request: &Value, number: usize| match operation {
            "ListResourceTags" if short(request) != readable => fails("AccessDeniedException", "not authorized"),
            _ => account(operation, request, number),
        }
    };
    let tags = KeySelection::Tags(BTreeMap::from([("app".to_owned(), "payments".to_owned())]));
    let server = serve(only("k2")).await;
    assert_eq!(arns(&server.kms.discover(&tags).await.unwrap()), [key_arn("k2")]);
    let server = serve(only("none")).await;
    assert_eq!(class(server.kms.discover(&tags).await), SignClass::Credentials);
    assert_eq!(server.kms.discover(&KeySelection::All).await.unwrap().len(), 3, "without tags they need not be read");
}

#[tokio::test]
async fn throttled_calls_of_a_discovery_are_asked_again() {
    let server = serve(|operation, request, number| match operation {
        "DescribeKey" | "ListKeys" if number < 8 => fails("ThrottlingException", "Rate exceeded"),
        _ => account(operation, request, number),
    })
    .await;
    assert_eq!(server.kms.discover(&KeySelection::All).await.unwrap().len(), 3);
    assert_eq!((server.count("ListKeys"), server.count("DescribeKey")), (8 + 3, 8 + 6));
}

#[tokio::test]
async fn a_listing_that_goes_round_is_an_error() {
    let server = serve(|_, _, _| (200, json!({ "Keys": [], "Truncated": true, "NextMarker": "again" }))).await;
    assert_eq!(class(server.kms.discover(&KeySelection::All).await), SignClass::Configuration);
    assert_eq!(server.count("ListKeys"), 2);
}

#[tokio::test]
async fn a_probe_tells_the_state() {
    let server = serve(account).await;
    server.kms.probe(&arn(&key_arn("k1"))).await.unwrap();
    assert_eq!(class(server.kms.probe(&arn(&key_arn("k3"))).await), SignClass::KeyDown);
    assert_eq!(class(server.kms.probe(&arn(&key_arn("gone"))).await), SignClass::Configuration);
    assert_eq!(server.count("Sign"), 0);
}

#[tokio::test]
async fn a_key_is_created_with_its_tags_and_alias() {
    let server = serve(|operation, _, number| match (operation, number) {
        ("CreateKey", _) => metadata("new", "ECC_SECG_P256K1", "SIGN_VERIFY", "Enabled"),
        ("CreateAlias", 0 | 1) => (200, json!({})),
        _ => fails("AlreadyExistsException", "taken"),
    })
    .await;
    let tags = BTreeMap::from([("app".to_owned(), "payments".to_owned())]);
    let key = server.kms.create_key(&tags, Some("one")).await.unwrap();
    assert_eq!((key.arn.to_string(), key.aliases, key.tags), (key_arn("new"), vec!["alias/one".to_owned()], tags));
    let expected =
        json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY", "Tags": [{ "TagKey": "app", "TagValue": "payments" }] });
    assert_eq!(server.request("CreateKey"), expected);
    assert_eq!(server.request("CreateAlias"), json!({ "AliasName": "alias/one", "TargetKeyId": key_arn("new") }));

    let prefixed = server.kms.create_key(&BTreeMap::new(), Some("alias/two")).await.unwrap();
    assert_eq!(prefixed.aliases, ["alias/two"]);
    let lost = server.kms.create_key(&BTreeMap::new(), Some("one")).await.unwrap_err();
    assert!(lost.detail.contains(&key_arn("new")), "{}", lost.detail);
    assert!(server.kms.create_key(&BTreeMap::new(), None).await.unwrap().aliases.is_empty());
}

#[tokio::test]
async fn aliases_are_told_by_key() {
    let server = serve(|_, request, _| {
        let alias = |name: &str, target: Option<&str>| {
            json!({ "AliasName": format!("alias/{name}"), "AliasArn": format!("arn:aws:kms:us-east-1:111122223333:alias/{name}"), "TargetKeyId": target })
        };
        match request["Marker"].as_str() {
            None => (200, json!({ "Aliases": [alias("a", Some("k1")), alias("aws/ebs", None)], "Truncated": true, "NextMarker": "2" })),
            Some(_) => (200, json!({ "Aliases": [alias("b", Some("k1")), alias("c", Some("k2"))], "Truncated": false })),
        }
    })
    .await;
    let aliases: HashMap<_, _> = server.kms.describe_aliases().await.unwrap().into_iter().collect();
    assert_eq!(aliases.len(), 2);
    assert_eq!(aliases[&arn(&key_arn("k1"))], ["alias/a", "alias/b"]);
    assert_eq!(aliases[&arn(&key_arn("k2"))], ["alias/c"]);
}

#[tokio::test]
async fn a_quota_belongs_to_the_callers_account_in_a_region() {
    let mut server = serve(account).await;
    let group = |server: &Server, text: &str| server.kms.quota_group(&arn(text)).0.to_string();
    // Nobody has said which account calls.
    assert_eq!(group(&server, &key_arn("k1")), "111122223333/us-east-1");
    assert_eq!(group(&server, "arn:aws-cn:kms:cn-north-1:1:key/mrk-2"), "1/cn-north-1");
    assert_eq!(group(&server, "k1"), "k1");
    let config = config::AwsKms { account_id: Some("444455556666".to_owned()), ..configuration("http://127.0.0.1:9") };
    server.kms = AwsKms::connect("kms", &config, server.metrics.clone()).await.unwrap();
    assert_eq!(group(&server, &key_arn("k1")), "444455556666/us-east-1", "AWS counts cross-account use against the caller");
}

#[tokio::test]
async fn refused_credentials_are_read_again_once() {
    let mut server = serve(|_, _, _| fails("ExpiredTokenException", "expired")).await;
    let key = arn("a");
    assert_eq!(class(server.kms.sign_digest(&key, B256::ZERO).await), SignClass::Credentials, "static ones cannot be read again");
    server.kms.renewing = Some(server.kms.credentials.renew());
    // Both were sent with the old credentials: one reads them again, and both may try the new ones.
    let (first, second) = tokio::join!(server.kms.sign_digest(&key, B256::ZERO), server.kms.sign_digest(&key, B256::ZERO));
    assert_eq!((class(first), class(second)), (SignClass::Transient, SignClass::Transient));
    assert_eq!(class(server.kms.sign_digest(&key, B256::ZERO).await), SignClass::Credentials);
    assert_eq!(server.kms.credentials.generation().await.unwrap(), 2);
}

/// Lets this thread's other tasks run until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < patience);
        tokio::task::yield_now().await;
    }
}

/// What was answered is put back into the SDK's pool, and what ended is taken out of it, by tasks of this same thread.
async fn settled() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_burst_meets_connections_that_are_open() {
    const WANTED: usize = 8;
    let mut server = serve(|operation, request, number| match operation {
        "Sign" => (200, json!({ "KeyId": request["KeyId"], "Signature": "" })),
        _ => account(operation, request, number),
    })
    .await;
    let connections = |server: &Server| server.connections.load(Ordering::Relaxed);
    let key = arn(&key_arn("k1"));
    server.kms.warm_connections = WANTED;
    server.kms.keep_ready(&key);
    server.kms.keep_ready(&key);
    until(|| server.count("DescribeKey") == WANTED && connections(&server) == WANTED).await;
    settled().await;
    futures_util::future::join_all((0..WANTED).map(|_| server.kms.sign_digest(&key, B256::ZERO))).await;
    assert_eq!((server.count("Sign"), connections(&server)), (WANTED, WANTED), "no Sign had to connect");
    assert_eq!(server.count("DescribeKey"), WANTED, "wanted twice, kept once");
    server.kms.warm_connections = 0;
    server.kms.warming = OnceLock::new();
    server.kms.keep_ready(&key);
    assert!(server.kms.warming.get().is_none());
}

#[tokio::test]
async fn connections_that_ended_while_nothing_was_signed_are_opened_again() {
    const WANTED: usize = 4;
    let server = serve(account).await;
    let (client, key, traffic) = (server.kms.client.clone(), arn(&key_arn("k1")), Traffic::default());
    let connections = || server.connections.load(Ordering::Relaxed);
    warm::look(&client, &traffic, &key, WANTED).await;
    until(|| connections() == WANTED).await;
    server.ending.send_replace(());
    settled().await;
    warm::look(&client, &traffic, &key, WANTED).await;
    until(|| connections() == 2 * WANTED).await;
    // As many Signs keep as many connections open by themselves, and say so once.
    drop((0..WANTED).map(|_| traffic.enter()).collect::<Vec<_>>());
    let described = server.count("DescribeKey");
    warm::look(&client, &traffic, &key, WANTED).await;
    assert_eq!(server.count("DescribeKey"), described);
    warm::look(&client, &traffic, &key, WANTED).await;
    assert_eq!(server.count("DescribeKey"), described + WANTED);
}
