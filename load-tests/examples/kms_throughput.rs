//! How many Signs one core of a simulated KMS makes in a second over HTTP: by the processor time of its thread, so that what else
//! the machine does counts little.
//!
//!     cargo run --release -p sluice-load-tests --example kms_throughput
// A program for people: what fails may stop it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use data_encoding::BASE64;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use sluice_load_tests::sim_kms::{Settings, SimKms};

/// Signs in flight.
const WINDOW: u64 = 32;
/// Signs in all.
const SIGNS: u64 = 20_000;

/// Processor time of this thread.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Asks for Signs until it has asked for its share.
async fn caller(client: Client<HttpConnector, Full<Bytes>>, url: String, key: String, first: u64) {
    for number in (first..SIGNS).step_by(WINDOW as usize) {
        let digest = BASE64.encode(alloy_primitives::keccak256(number.to_be_bytes()).as_slice());
        let body = format!(r#"{{"KeyId":"{key}","Message":"{digest}","MessageType":"DIGEST","SigningAlgorithm":"ECDSA_SHA_256"}}"#);
        let request = Request::post(&url).header("x-amz-target", "TrentService.Sign").body(Full::new(Bytes::from(body))).unwrap();
        let answer = client.request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    }
}

fn main() {
    let (told, tell) = (std::sync::mpsc::channel(), tokio::sync::oneshot::channel::<()>());
    let server = std::thread::spawn(move || {
        runtime().block_on(async move {
            let kms = SimKms::new(Settings::new(1, 1));
            let listener = kms.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
            told.0.send((listener.url(), kms.with(|kms, _| kms.keys()[0].arn.clone()))).unwrap();
            let begin = processor_time();
            let _ = tell.1.await;
            (processor_time() - begin, kms.with(|kms, _| kms.signed().len()))
        })
    });
    let (url, key) = told.1.recv().unwrap();
    let begin = Instant::now();
    runtime().block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let callers = (0..WINDOW).map(|first| tokio::spawn(caller(client.clone(), url.clone(), key.clone(), first)));
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
    });
    let took = begin.elapsed();
    tell.0.send(()).unwrap();
    let (busy, signs) = server.join().unwrap();
    println!(
        "{signs} Signs, {WINDOW} in flight: {:.0} a second of one core, {:.0} a second as the machine was",
        signs as f64 / busy.as_secs_f64(),
        signs as f64 / took.as_secs_f64()
    );
}
