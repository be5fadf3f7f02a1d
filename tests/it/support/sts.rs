//! Where temporary credentials come from: an STS and the endpoint that a container has, by script. Credentials n are `ASIAn`.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sluice_load_tests::sim_kms::AccessKey;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

const SECRET: &str = "a-secret-for-tests";
const TOKEN: &str = "a-session-for-tests";

/// The keys that a simulated KMS knows these credentials by, as those of `account`.
pub(crate) fn access_keys(account: &str) -> Vec<AccessKey> {
    let key = |number| AccessKey { session_token: Some(TOKEN.into()), ..AccessKey::new(&format!("ASIA{number}"), SECRET, account) };
    (1..=200).map(key).collect()
}

#[derive(Debug)]
pub(crate) struct Sts {
    pub(crate) url: String,
    /// What was asked, in order: the form of a call of STS, or `container`.
    asked: Arc<Mutex<Vec<String>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Sts {
    /// Its credentials are those of `account`, and hold for `life` each.
    pub(crate) async fn start(account: &'static str, life: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let shared = asked.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let asked = shared.clone();
                let service = service_fn(move |request| answer(request, asked.clone(), account, life));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, asked, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    asked: Arc<Mutex<Vec<String>>>,
    account: &'static str,
    life: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_container = request.method() == ::http::Method::GET;
    let form = String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let number = {
        let mut asked = asked.lock().unwrap();
        asked.push(if is_container { "container".into() } else { form.clone() });
        asked.len()
    };
    let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + life);
    if is_container {
        let body = json!({ "AccessKeyId": format!("ASIA{number}"), "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": expiration.to_string() });
        return Ok(Response::new(Full::new(Bytes::from(body.to_string()))));
    }
    let action = form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap().to_owned();
    let result = match action.as_str() {
        "GetCallerIdentity" => format!("<Account>{account}</Account><Arn>arn:aws:iam::{account}:user/a</Arn><UserId>a</UserId>"),
        _ => format!(
            "<AssumedRoleUser><Arn>arn:aws:sts::{account}:assumed-role/signer/sluice</Arn><AssumedRoleId>A:sluice</AssumedRoleId>\
             </AssumedRoleUser><Credentials><AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>\
             <SessionToken>{TOKEN}</SessionToken><Expiration>{expiration}</Expiration></Credentials>"
        ),
    };
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
    );
    Ok(Response::builder().header("content-type", "text/xml").body(Full::new(Bytes::from(body))).unwrap())
}
