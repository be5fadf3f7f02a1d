//! A load generator: one WebSocket to a gateway, transfers of nothing from all its accounts, their receipts by subscription.
//! Bounded in count and time; says throughput and latencies.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use sluice_load_tests::client::{Client, ClientError, Subscription};
use sluice_load_tests::latency::Latencies;

const USAGE: &str = "usage: sluice-load URL [--count N] [--window N] [--seconds N] [--token TOKEN_FILE]

  URL         ws:// URL of a service, such as ws://127.0.0.1:8545/payments
  --count     transactions to send (1000), at most 1000000
  --window    requests in flight (256), at most 16384
  --seconds   end after this many seconds at the latest (120)
  --token     file with a bearer token";

#[derive(Debug)]
struct Options {
    url: String,
    count: usize,
    window: usize,
    deadline: Duration,
    token: Option<String>,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { url: String::new(), count: 1000, window: 256, deadline: Duration::from_secs(120), token: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--count" => options.count = number(&argument, &value()?, 1_000_000)?,
            "--window" => options.window = number(&argument, &value()?, 16_384)?,
            "--seconds" => options.deadline = Duration::from_secs(number(&argument, &value()?, 86_400)? as u64),
            "--token" => {
                let path = value()?;
                let token = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
                options.token = Some(format!("Bearer {}", token.trim()));
            }
            url if options.url.is_empty() && url.starts_with("ws://") => options.url = argument,
            _ => return Err(format!("{argument} is not understood")),
        }
    }
    if options.url.is_empty() { Err("a ws:// URL is missing".into()) } else { Ok(options) }
}

fn number(name: &str, text: &str, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} takes a number from 1 to {most}")),
    }
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Run {
    answers: Latencies,
    receipts: Latencies,
    errors: HashMap<String, usize>,
    /// Start of each transaction that has a hash and no receipt.
    waiting: HashMap<String, Instant>,
    /// Receipts that came before the answer that told the hash.
    early: HashMap<String, Instant>,
}

impl Run {
    fn answered(&mut self, started: Instant, answer: Result<Value, ClientError>) {
        match answer {
            Ok(hash) => {
                self.answers.add(started.elapsed());
                let hash = hash.as_str().unwrap_or_default().to_owned();
                match self.early.remove(&hash) {
                    Some(at) => self.receipts.add(at.duration_since(started)),
                    None => drop(self.waiting.insert(hash, started)),
                }
            }
            Err(error) => {
                let name = error.reason().map_or_else(|| error.to_string(), str::to_owned);
                *self.errors.entry(name).or_default() += 1;
            }
        }
    }

    fn received(&mut self, receipt: &Value) {
        let hash = receipt["transactionHash"].as_str().unwrap_or_default().to_owned();
        match self.waiting.remove(&hash) {
            Some(started) => self.receipts.add(started.elapsed()),
            None => drop(self.early.insert(hash, Instant::now())),
        }
    }

    fn failed(&self) -> usize {
        self.errors.values().sum()
    }
}

/// The receipts of one notification: an array in geth's shape, one object elsewhere.
fn receipts_of(notification: &Value) -> &[Value] {
    match notification {
        Value::Array(receipts) => receipts,
        one => std::slice::from_ref(one),
    }
}

async fn drive(client: &Client, receipts: &mut Subscription, options: &Options, accounts: &[String], run: &mut Run) {
    let mut flying = FuturesUnordered::new();
    let mut sent = 0;
    while run.receipts.len() + run.failed() < options.count {
        while sent < options.count && flying.len() < options.window {
            let from = &accounts[sent % accounts.len()];
            let started = Instant::now();
            let answer = client.start("eth_sendTransaction", json!([{ "from": from, "to": from, "value": "0x0" }]));
            flying.push(async move { (started, answer.await) });
            sent += 1;
        }
        tokio::select! {
            Some((started, answer)) = flying.next() => run.answered(started, answer),
            notification = receipts.next() => match notification {
                Some(notification) => receipts_of(&notification).iter().for_each(|receipt| run.received(receipt)),
                None => return,
            },
        }
    }
}

fn row(name: &str, latencies: &Latencies) -> String {
    let ms = |percent| latencies.percentile(percent).map_or_else(|| "-".into(), |d| format!("{:.1}", d.as_secs_f64() * 1000.0));
    format!("{name:<22} {:>8} {:>10} {:>10} {:>10} {:>10}", latencies.len(), ms(50), ms(90), ms(99), ms(100))
}

async fn load(options: &Options) -> Result<bool, ClientError> {
    let headers: Vec<(&'static str, &str)> = options.token.iter().map(|token| ("authorization", token.as_str())).collect();
    let client = Client::connect(&options.url, &headers).await?;
    let accounts = client.request("eth_accounts", json!([])).await?;
    let accounts: Vec<String> = accounts.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect();
    if accounts.is_empty() {
        return Err(ClientError::Connection("the service has no accounts".into()));
    }
    let mut receipts = client.subscribe(json!(["transactionReceipts"])).await?;
    let (mut run, started) = (Run::default(), Instant::now());
    let timely = tokio::time::timeout(options.deadline, drive(&client, &mut receipts, options, &accounts, &mut run)).await.is_ok();
    let seconds = started.elapsed().as_secs_f64();

    println!("{} transactions from {} accounts over one WebSocket", options.count, accounts.len());
    println!("{:<22} {:>8} {:>10} {:>10} {:>10} {:>10}", "milliseconds", "count", "p50", "p90", "p99", "max");
    println!("{}", row("request to answer", &run.answers));
    println!("{}", row("request to receipt", &run.receipts));
    println!("{:.1} receipts per second in {seconds:.1} s", run.receipts.len() as f64 / seconds);
    for (error, count) in &run.errors {
        println!("{count} errors: {error}");
    }
    if !timely {
        println!("the time was over before all receipts were there");
    } else if client.is_closed() {
        println!("the connection ended before all receipts were there");
    }
    Ok(run.receipts.len() == options.count)
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sluice-load: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluice-load: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(load(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-load: {error}");
            ExitCode::FAILURE
        }
    }
}
