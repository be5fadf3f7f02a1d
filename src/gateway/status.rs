//! What /status, /readyz and /readyz/NAME show. No secrets: addresses, names, labels of nodes, and words that repeat no URL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::Address;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, TryFutureExt as _};
use serde_json::{Value, json};

use super::build::Foundation;
use super::refresh::{ManagedKeys, refresh_all};
use crate::config::{self, Config};
use crate::journal::{Engine, JournalError};
use crate::node::EndpointState;
use crate::rpc::service::Service;
use crate::server::Generation;
use crate::server::admin::accounts::{OrderError, Wanted};
use crate::server::admin::{Overview, Readiness};

/// How long the proof that the journal can write is good for: probes that come faster make no further write.
const FRESH: Duration = Duration::from_secs(1);
/// How long the journal may take to write.
const PATIENCE: Duration = Duration::from_secs(2);

/// A write that is under way, for everybody who asks meanwhile; when it was done.
type Probing = Shared<BoxFuture<'static, Result<Instant, JournalError>>>;

/// When the journal last proved that it can write.
#[derive(Default)]
pub(super) struct WriteProbe(Mutex<Proof>);

#[derive(Default)]
struct Proof {
    at: Option<Instant>,
    /// At most one: a journal that is stuck must not collect probes.
    probing: Option<Probing>,
}

impl WriteProbe {
    /// Writes, unless that was done a moment ago; the error is for anybody to read.
    async fn check(&self, journal: &dyn Engine) -> Result<(), &'static str> {
        let Some(probing) = self.join(journal.fatal().is_cancelled(), || journal.probe()) else { return Ok(()) };
        match tokio::time::timeout(PATIENCE, probing).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the journal cannot write");
                Err("the journal cannot write")
            }
            Err(_) => Err("the journal does not write in time"),
        }
    }

    /// The write to wait for; none while the last proof is fresh, unless the journal is lost since.
    fn join(&self, lost: bool, write: impl FnOnce() -> BoxFuture<'static, Result<(), JournalError>>) -> Option<Probing> {
        let mut proof = self.proof();
        if let Some(written) = proof.probing.as_ref().and_then(Shared::peek).cloned() {
            *proof = Proof { at: written.ok(), probing: None };
        }
        if proof.at.is_some_and(|at| at.elapsed() < FRESH) && !lost {
            return None;
        }
        let begin = || {
            let probing = write().map_ok(|()| Instant::now()).boxed().shared();
            // Seen when it is done, also if nobody waits for it so long: a proof is as old as its write.
            tokio::spawn(probing.clone().map(drop));
            probing
        };
        Some(proof.probing.get_or_insert_with(begin).clone())
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reading of the configuration, as operators see it.
pub(super) struct View {
    foundation: Arc<Foundation>,
    config: Config,
    services: Vec<Arc<Service>>,
    /// The keys of the services, in the same order.
    managed: Vec<Arc<ManagedKeys>>,
}

impl View {
    pub(super) fn new(foundation: Arc<Foundation>, config: Config, services: Vec<Arc<Service>>, managed: Vec<Arc<ManagedKeys>>) -> Self {
        Self { foundation, config, services, managed }
    }

    async fn writable(&self) -> Result<(), &'static str> {
        self.foundation.probe.check(&*self.foundation.journal).await
    }

    fn service(&self, service: &Service, managed: &ManagedKeys, now: &Generation) -> Value {
        let (rpc, wss) = &service.urls;
        let fault = fault(service);
        let mut keys = BTreeMap::<String, Vec<Address>>::new();
        for key in service.keys.all() {
            keys.entry(key.state().word()).or_default().push(key.address());
        }
        let configured = self.config.services.iter().find(|configured| *configured.name == *service.name);
        json!({
            "name": &*service.name,
            "environment": service.chain.environment().name,
            "configurations": configured.map(|configured| &configured.configurations),
            "default": now.is_default(&service.name),
            "rpc": rpc,
            "wss": wss,
            "ready": fault.is_none(),
            "reason": fault,
            "connections": now.connections(&service.name),
            "limits": configured.map(|configured| limits(&configured.limits)),
            "keys": keys,
            "keyRefresh": managed.show(),
        })
    }

    fn environment(&self, environment: &config::Environment) -> Option<Value> {
        let chain = &self.foundation.environments.get(&environment.name)?.chain;
        let head = chain.pool().heads().borrow().clone();
        let newest = head.as_ref().map(|head| head.number);
        let endpoints: Vec<Value> = chain.pool().endpoints().iter().map(|state| endpoint(state, environment.chain_id, newest)).collect();
        Some(json!({
            "name": environment.name,
            "chainId": environment.chain_id,
            "ready": chain.is_open() && chain.fault().is_none(),
            "head": head.map(|head| json!({ "number": head.number, "hash": head.hash, "ageSeconds": age(head.timestamp) })),
            "endpoints": endpoints,
        }))
    }

    async fn journal(&self) -> Value {
        let journal = &self.foundation.journal;
        let written = self.writable().await;
        let status = journal.status().await;
        if let Err(error) = &status {
            tracing::warn!(%error, "the journal cannot be looked at");
        }
        let status = status.ok();
        json!({
            "engine": journal.name(),
            "path": self.config.journal.path.display().to_string(),
            "bytes": status.map(|status| status.bytes),
            "newestPosition": status.map(|status| status.newest_position),
            "writable": written.is_ok(),
            "reason": written.err(),
        })
    }
}

impl Overview for View {
    fn status<'a>(&'a self, now: &'a Generation) -> BoxFuture<'a, Value> {
        async move {
            let services = self.services.iter().zip(&self.managed);
            let services: Vec<Value> = services.map(|(service, managed)| self.service(service, managed, now)).collect();
            let environments: Vec<Value> = self.config.environments.iter().filter_map(|one| self.environment(one)).collect();
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "uptimeSeconds": self.foundation.started.elapsed().as_secs(),
                "configuration": self.foundation.reports.show(),
                "services": services,
                "environments": environments,
                "journal": self.journal().await,
            })
        }
        .boxed()
    }

    fn readiness(&self) -> BoxFuture<'_, Readiness> {
        async move {
            let mut reasons: Vec<String> = self.writable().await.err().map(str::to_owned).into_iter().collect();
            let writable = reasons.is_empty();
            let faults: Vec<String> =
                self.services.iter().filter_map(|service| Some(format!("service {}: {}", service.name, fault(service)?))).collect();
            let accepts = faults.len() < self.services.len();
            reasons.extend(faults);
            Readiness { ready: accepts && writable, reasons }
        }
        .boxed()
    }

    fn service_readiness<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Readiness>> {
        async move {
            let service = self.services.iter().find(|service| &*service.name == name)?;
            let reasons: Vec<String> = self.writable().await.err().map(str::to_owned).into_iter().chain(fault(service)).collect();
            Some(Readiness { ready: reasons.is_empty(), reasons })
        }
        .boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Value, OrderError>> {
        super::accounts::accounts(&self.foundation).boxed()
    }

    fn refresh_keys(&self) -> BoxFuture<'_, Value> {
        refresh_all(&self.foundation).boxed()
    }

    fn order(&self, wanted: Wanted) -> BoxFuture<'_, Result<Value, OrderError>> {
        super::accounts::order(&self.foundation, wanted).boxed()
    }
}

/// Why the service can accept no send now, if so.
fn fault(service: &Service) -> Option<String> {
    if let Some(fault) = service.chain.fault() {
        Some(fault.to_string())
    } else if !service.chain.is_open() {
        Some("its chain is not open yet".to_owned())
    } else if service.keys.addresses().is_empty() {
        Some("no key can sign".to_owned())
    } else {
        None
    }
}

/// What clients connect to: over HTTP and over WebSocket.
pub(super) fn urls(server: &config::Server, listen: SocketAddr, service: &str) -> (String, String) {
    let base = match &server.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("{}://{listen}", if server.tls.is_some() { "https" } else { "http" }),
    };
    // http becomes ws and https wss.
    let socket = base.replacen("http", "ws", 1);
    (format!("{base}/{service}"), format!("{socket}/{service}"))
}

fn limits(limits: &config::ServiceLimits) -> Value {
    json!({
        "maxConnections": limits.max_connections,
        "maxSubscriptions": limits.max_subscriptions,
        "maxPrincipalSubscriptions": limits.max_principal_subscriptions,
        "maxBatchItems": limits.max_batch_items,
        "maxCallsInFlight": limits.max_calls_in_flight.max(limits.max_batch_items),
        "maxRequestsPerSecond": limits.max_requests_per_second,
    })
}

/// An endpoint that is up, or was found untrue after it was, has proved that it is on the chain.
fn endpoint(state: &EndpointState, chain_id: u64, newest: Option<u64>) -> Value {
    json!({
        "label": state.label,
        "roles": state.roles.names(),
        "transport": state.transport.name(),
        "up": state.up,
        "state": state.state,
        "chainId": matches!(state.state, "up" | "untrusted").then_some(chain_id),
        "head": state.head,
        "headAgeSeconds": state.head_timestamp.map(age),
        "behind": newest.zip(state.head).map(|(newest, head)| newest.saturating_sub(head)),
        "reconnects": state.reconnects,
        "strayFrames": state.stray_frames,
        "error": state.detail,
        "lastError": state.last_error.as_ref().map(|(at, why)| json!({ "at": time(*at), "message": &**why })),
    })
}

/// Whole seconds since a block's time stamp; 0 for one that is ahead of our clock.
fn age(timestamp: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(timestamp)
}

/// As RFC 3339 writes it, in UTC.
pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::SqliteJournal;

    fn server(lines: &str) -> config::Server {
        let text = format!(
            "[server]\n{lines}\n[journal]\npath = \"a\"\n[[environment]]\nname = \"a\"\nchain_id = 1\nnodes = [{{ url = \"ws://a\" }}]\n\
             [[configuration]]\nname = \"a\"\nprovider = \"aws_kms\"\nregion = \"a\"\n[[service]]\nname = \"a\"\nenvironment = \"a\"\n\
             configurations = [\"a\"]\n"
        );
        config::parse(&text, []).unwrap().server
    }

    #[tokio::test]
    async fn everybody_who_asks_waits_for_one_write_and_its_proof_is_good_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sluice.db");
        let journal = SqliteJournal::open(&path, Arc::new(crate::telemetry::metrics::Metrics::new().unwrap())).unwrap();
        let probe = WriteProbe::default();
        let join = || probe.join(false, || journal.probe());
        let (one, two) = (join().unwrap(), join().unwrap());
        assert!(one.ptr_eq(&two));
        assert_eq!(futures_util::join!(probe.check(&*journal), probe.check(&*journal)), (Ok(()), Ok(())));
        let written = one.await.unwrap();
        let third = join();
        assert!(third.is_none() || written.elapsed() >= FRESH, "no write so soon after the last");
        *probe.proof() = Proof::default();
        journal.close().await;
        assert_eq!(probe.check(&*journal).await, Err("the journal cannot write"));
        assert!(!join().unwrap().ptr_eq(&two) && probe.proof().at.is_none(), "the next one tries again");
    }

    /// A proof that is older than it looks would hide a journal that hangs.
    #[tokio::test]
    async fn a_write_that_nobody_waited_for_is_as_old_as_it_is() {
        let probe = WriteProbe::default();
        let (done, waits) = tokio::sync::oneshot::channel::<()>();
        let write = || waits.map(|_| Ok(())).boxed();
        let slow = probe.join(false, write).unwrap();
        // Whoever asked has given up; then it is written.
        done.send(()).unwrap();
        let seen = async {
            while slow.peek().is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
        let (before_anybody_asks, written) = (Instant::now(), slow.peek().unwrap().clone().unwrap());
        assert!(written <= before_anybody_asks);
        // Of a while ago, it proves nothing; of a moment ago, it does.
        for (age, asks_again) in [(FRESH * 2, true), (Duration::ZERO, false)] {
            let written = futures_util::future::ready(Ok(Instant::now() - age)).boxed().shared();
            written.clone().await.unwrap();
            *probe.proof() = Proof { at: None, probing: Some(written.clone()) };
            let joined = probe.join(false, || futures_util::future::pending().boxed());
            assert_eq!(joined.is_some_and(|joined| !joined.ptr_eq(&written)), asks_again);
        }
    }

    #[test]
    fn urls_go_by_tls_and_by_what_is_public() {
        let listen = "127.0.0.1:8545".parse().unwrap();
        let of = |lines: &str| urls(&server(lines), listen, "pay");
        let pair = |rpc: &str, wss: &str| (rpc.to_owned(), wss.to_owned());
        assert_eq!(of(""), pair("http://127.0.0.1:8545/pay", "ws://127.0.0.1:8545/pay"));
        assert_eq!(of("tls = { certificate = \"c\", key = \"k\" }"), pair("https://127.0.0.1:8545/pay", "wss://127.0.0.1:8545/pay"));
        assert_eq!(of("public_url = \"https://s.example.org\""), pair("https://s.example.org/pay", "wss://s.example.org/pay"));
        assert_eq!(
            of("public_url = \"http://s.example.org:81/http/\""),
            pair("http://s.example.org:81/http/pay", "ws://s.example.org:81/http/pay")
        );
    }
}
