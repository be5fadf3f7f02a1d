//! Signatures of requests: what is let in, and what refuses the rest. That what an SDK signs is let in is a test of the protocol suite.

use ::http::request::Parts;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use data_encoding::HEXLOWER;

use super::super::sigv4::{authenticate, region};
use super::super::{AccessKey, time};
use super::*;

const BODY: &[u8] = b"{\"KeyId\":\"a\"}";
/// 1 January 2026.
const NOW: Duration = Duration::from_secs(1_767_225_600);

fn keys() -> Vec<AccessKey> {
    let session = AccessKey {
        session_token: Some("token".into()),
        expires: Some(NOW + Duration::from_secs(60)),
        ..AccessKey::new("ASIA", "s2", "444455556666")
    };
    vec![AccessKey::new("AKIA", "s1", "111122223333"), session]
}

/// What a caller signs, and may do wrong.
#[derive(Clone)]
struct Caller {
    id: &'static str,
    secret: &'static str,
    token: Option<&'static str>,
    at: Duration,
    scope_day: Option<&'static str>,
    service: &'static str,
    signed: &'static str,
}

const CALLER: Caller =
    Caller { id: "AKIA", secret: "s1", token: None, at: NOW, scope_day: None, service: "kms", signed: "host;x-amz-date;x-amz-target" };

impl Caller {
    fn request(&self) -> Parts {
        let date = time::write(self.at);
        let day = self.scope_day.map_or_else(|| date[..8].to_owned(), str::to_owned);
        let mut headers = vec![("host", "127.0.0.1:1"), ("x-amz-date", date.as_str()), ("x-amz-target", "TrentService.Sign")];
        let mut signed = self.signed.to_owned();
        if let Some(token) = self.token {
            headers.insert(2, ("x-amz-security-token", token));
            signed = "host;x-amz-date;x-amz-security-token;x-amz-target".into();
        }
        let lines: String =
            headers.iter().filter(|(name, _)| signed.contains(name)).map(|(name, value)| format!("{name}:{value}\n")).collect();
        let hash = |bytes: &[u8]| HEXLOWER.encode(digest(&SHA256, bytes).as_ref());
        let canonical = format!("POST\n/\n\n{lines}\n{signed}\n{}", hash(BODY));
        let scope = format!("{day}/eu-west-1/{}/aws4_request", self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
        let mac = |key: &[u8], text: &str| sign(&Key::new(HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
        let key = scope.split('/').fold(format!("AWS4{}", self.secret).into_bytes(), |key, part| mac(&key, part));
        let signature = HEXLOWER.encode(&mac(&key, &to_sign));
        let header = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}", self.id);
        let mut request = ::http::Request::post("/").header("authorization", header);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }
}

fn refusal(parts: &Parts, body: &[u8]) -> (String, String) {
    let error = authenticate(&keys(), parts, body, NOW).unwrap_err();
    assert_eq!(error.status, 400);
    (error.code, error.message)
}

#[test]
fn the_access_key_says_the_account_and_the_scope_the_region() {
    let parts = CALLER.request();
    assert_eq!(authenticate(&keys(), &parts, BODY, NOW), Ok(Place::new("111122223333", "eu-west-1")));
    assert_eq!(region(&parts.headers), Some("eu-west-1"));
    let session = Caller { id: "ASIA", secret: "s2", token: Some("token"), ..CALLER };
    assert_eq!(authenticate(&keys(), &session.request(), BODY, NOW), Ok(Place::new("444455556666", "eu-west-1")));
}

#[test]
fn what_was_not_signed_so_is_refused() {
    let wrong = "The request signature we calculated does not match";
    let (code, words) = refusal(&CALLER.request(), b"{}");
    assert!(code == "InvalidSignatureException" && words.starts_with(wrong), "{words}");
    let (code, words) = refusal(&Caller { secret: "s2", ..CALLER }.request(), BODY);
    assert!(code == "InvalidSignatureException" && words.starts_with(wrong), "{words}");
    let mut changed = CALLER.request();
    changed.headers.insert("x-amz-target", "TrentService.DisableKey".parse().unwrap());
    assert_eq!(refusal(&changed, BODY).0, "InvalidSignatureException");
    let (code, words) = refusal(&Caller { signed: "host;x-amz-date", ..CALLER }.request(), BODY);
    assert_eq!(
        (code.as_str(), words.as_str()),
        ("InvalidSignatureException", "'x-amz-target' must be a 'SignedHeader' in the AWS Authorization.")
    );
    assert_eq!(refusal(&Caller { service: "s3", ..CALLER }.request(), BODY).0, "InvalidSignatureException");
    assert_eq!(refusal(&Caller { scope_day: Some("20251231"), ..CALLER }.request(), BODY).0, "InvalidSignatureException");
}

#[test]
fn credentials_that_are_unknown_incomplete_or_expired_are_refused_by_their_own_codes() {
    let code = |caller: Caller| refusal(&caller.request(), BODY).0;
    assert_eq!(code(Caller { id: "AKIB", ..CALLER }), "UnrecognizedClientException");
    assert_eq!(code(Caller { id: "ASIA", secret: "s2", token: Some("other"), ..CALLER }), "UnrecognizedClientException");
    assert_eq!(code(Caller { id: "ASIA", secret: "s2", ..CALLER }), "UnrecognizedClientException");
    let session = Caller { id: "ASIA", secret: "s2", token: Some("token"), at: NOW + Duration::from_secs(60), ..CALLER };
    let expired = authenticate(&keys(), &session.request(), BODY, NOW + Duration::from_secs(60)).unwrap_err();
    assert_eq!(expired.code, "ExpiredTokenException");
    let mut parts = CALLER.request();
    for (header, expected) in [
        ("AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/kms/aws4_request, SignedHeaders=host", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=AKIA/20260101, SignedHeaders=host, Signature=0", "IncompleteSignatureException"),
        ("Basic eDp5", "IncompleteSignatureException"),
    ] {
        parts.headers.insert("authorization", header.parse().unwrap());
        assert_eq!(refusal(&parts, BODY).0, expected, "{header}");
    }
    parts.headers.remove("authorization");
    let missing = ("MissingAuthenticationTokenException".to_owned(), "Missing Authentication Token".to_owned());
    assert_eq!(refusal(&parts, BODY), missing);
}

#[test]
fn a_clock_may_be_off_by_five_minutes_and_no_more() {
    let at = |seconds: i64| {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let at = if seconds < 0 { NOW - by } else { NOW + by };
        authenticate(&keys(), &Caller { at, ..CALLER }.request(), BODY, NOW).map_err(|error| error.message)
    };
    assert!(at(-300).is_ok() && at(300).is_ok());
    assert_eq!(
        at(-301).unwrap_err(),
        "Signature expired: 20251231T235459Z is now earlier than 20251231T235500Z (20260101T000000Z - 5 min.)"
    );
    assert_eq!(
        at(301).unwrap_err(),
        "Signature not yet current: 20260101T000501Z is still later than 20260101T000500Z (20260101T000000Z + 5 min.)"
    );
}

#[tokio::test]
async fn over_http_nobody_unsigned_is_served_once_access_keys_are_known() {
    let kms = SimKms::new(Settings { access_keys: keys(), ..Settings::new(7, 1) });
    let listener = kms.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let (status, body) = post(listener.address(), "TrentService.ListKeys", json!({})).await.unwrap();
    assert_eq!((status, &body["__type"]), (400, &json!("MissingAuthenticationTokenException")));
    assert_eq!(kms.with(|kms, _| kms.calls_of("ListKeys")), 0);
    // Who steers it needs none.
    assert_eq!(post(listener.address(), "Simulator.Calls", json!({})).await.unwrap(), (200, json!({})));
}

#[tokio::test]
async fn everything_can_be_steered_and_read_from_another_process() {
    let kms = SimKms::new(Settings::new(7, 1));
    let listener = kms.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let steer = async |operation: &str, body: Value| {
        let (status, answer) = post(listener.address(), &format!("Simulator.{operation}"), body).await.unwrap();
        assert_eq!(status, 200, "{operation} {answer}");
        answer
    };
    let arn = kms.with(|kms, _| kms.keys()[0].arn.clone());
    let keys = steer("Keys", json!({})).await;
    assert_eq!(keys["Keys"][0]["Address"], json!(Wallet::new(7, 0).address()));
    steer("SetAlias", json!({ "AliasName": "alias/hot", "TargetKeyId": arn })).await;
    steer("SetAlias", json!({ "AliasName": "alias/aws/ebs" })).await;
    let (_, aliases) = post(listener.address(), "TrentService.ListAliases", json!({})).await.unwrap();
    assert_eq!((aliases["Aliases"].as_array().unwrap().len(), &aliases["Aliases"][1]["AliasName"]), (2, &json!("alias/hot")));
    steer("SetQuotas", json!({ "Sign": { "perSecond": 1, "burst": 1 } })).await;
    for expected in [200, 400] {
        assert_eq!(post(listener.address(), "TrentService.Sign", sign_body("alias/hot", B256::ZERO)).await.unwrap().0, expected);
    }
    let quotas = steer("Quotas", json!({})).await;
    let used = quotas["Used"].as_array().unwrap().iter().find(|used| used["Operation"] == "Sign").unwrap();
    assert_eq!((&used["Admitted"], &used["Throttled"], &used["Account"]), (&json!(1), &json!(1), &json!("111122223333")));
    steer("SetQuotas", json!({})).await;
    steer("Storm", json!({ "Operation": "Sign", "Milliseconds": 3_600_000 })).await;
    assert_eq!(post(listener.address(), "TrentService.Sign", sign_body(&arn, B256::ZERO)).await.unwrap().0, 400);
    steer("Advance", json!({ "Milliseconds": 3_600_000 })).await;
    assert_eq!(post(listener.address(), "TrentService.Sign", sign_body(&arn, B256::ZERO)).await.unwrap().0, 200);
    assert_eq!(steer("Signed", json!({ "From": 1 })).await["Signed"].as_array().unwrap().len(), 1);
    steer("SetDelays", json!({ "p50": 1, "p99": 2, "max": 3 })).await;
    let (status, refusal) = post(listener.address(), "Simulator.No", json!({})).await.unwrap();
    assert_eq!((status, &refusal["__type"]), (400, &json!("UnknownOperationException")));
}
