//! `[server]`, `[admin]`, `[journal]` and `[log]`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::errors::Fault;
use super::kinds::{Count, FilePath, Flag, ListOf, NONEMPTY, Parsed, Time};
use super::model::{Admin, Journal, Log, Server, ServiceLimits, Tls};
use super::reader::Table;

const HOUR: Duration = Duration::from_secs(3600);
/// The shortest time that a client may be given.
const SHORTEST: Duration = Duration::from_millis(10);

/// An IP address and a port; host names are not looked up.
const ADDRESS: Parsed<SocketAddr> = Parsed {
    word: "address",
    expected: "an IP address and a port from 0 (any free one) to 65535, such as \"127.0.0.1:8545\" or \"[::1]:8545\"",
    parse: |text| text.parse().map_err(|_| "cannot be read".to_owned()),
};

/// An origin as a browser sends it (RFC 6454, 6.2): scheme, host, and the port if it is not the scheme's own.
const ORIGIN: Parsed<String> = Parsed {
    word: "origin",
    expected: "scheme://host or scheme://host:port as a browser sends it, such as \"https://app.example.org\"",
    parse: |text| {
        let url = Url::parse(text).map_err(|_| "is not an origin".to_owned())?;
        let origin = url.origin();
        let written = if origin.is_tuple() {
            origin.ascii_serialization()
        } else {
            // Of a browser extension, for one.
            format!("{}://{}", url.scheme(), url.host_str().filter(|host| !host.is_empty()).ok_or("is not an origin")?)
        };
        if written == text { Ok(written) } else { Err("has a path, credentials, capitals or the scheme's own port".to_owned()) }
    },
};

/// What clients write before a service's path. Its error does not repeat it: it may hold credentials.
const PUBLIC_URL: Parsed<Url> = Parsed {
    word: "URL",
    expected: "an http or https URL without credentials, query and fragment, such as \"https://signer.example.org\"",
    parse: |text| {
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        match url.scheme() {
            "http" | "https" if !url.username().is_empty() || url.password().is_some() => Err("holds credentials".to_owned()),
            "http" | "https" if url.query().is_some() || url.fragment().is_some() => Err("has a query or a fragment".to_owned()),
            "http" | "https" => Ok(url),
            _ => Err("has another scheme".to_owned()),
        }
    },
};

/// Directives of the log, as `RUST_LOG` takes them.
const DIRECTIVES: Parsed<String> = Parsed {
    word: "text",
    expected: "a level (\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\") or levels by target, such as \"info,sluice_gateway::node=debug\"",
    parse: |text| match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err("is none".to_owned()),
    },
};

/// What both listeners have.
struct Listener {
    listen: SocketAddr,
    tls: Option<Tls>,
    plaintext: bool,
    token_file: Option<PathBuf>,
}

fn listener(table: &mut Table<'_, '_>, default: &str) -> Option<Listener> {
    let listen = table.or("listen", ADDRESS, default);
    let tls = table.optional_section("tls", |tls| {
        let certificate = tls.required("certificate", FilePath);
        let key = tls.required("key", FilePath);
        Some(Tls { certificate: certificate?, key: key? })
    });
    let plaintext = table.or("plaintext", Flag, "false");
    let token_file = table.optional("token_file", FilePath);
    if table.has("tls") && plaintext == Some(true) {
        table.fail("plaintext", Fault::Conflict, "must not be true beside tls: it says that something else ends TLS");
    }
    // A wrong value counts as given: its own error says enough.
    let exposed = listen.filter(|address| !address.ip().to_canonical().is_loopback());
    if exposed.is_some() && !table.has("token_file") {
        let message = "is missing: an address that is not loopback needs a bearer token, so token_file too (or listen on 127.0.0.1)";
        refuse(table, "token_file", message);
    }
    if exposed.is_some() && !table.has("tls") && plaintext == Some(false) {
        let message = "is missing: an address that is not loopback needs tls = { certificate, key }, or plaintext = true if something in \
                       front of it ends TLS (or listen on 127.0.0.1)";
        refuse(table, "tls", message);
    }
    Some(Listener { listen: listen?, tls, plaintext: plaintext?, token_file })
}

/// Says that a key is missing, at the place of the address that needs it.
fn refuse(table: &Table<'_, '_>, key: &str, message: &str) {
    let mut spot = table.spot("listen");
    spot.path = table.spot.path.key(key);
    table.context.fail(&spot, Fault::Unsafe, message);
}

pub(super) fn server(table: &mut Table<'_, '_>) -> Option<Server> {
    let listener = listener(table, "127.0.0.1:8545");
    let origins = table.or("origins", ListOf { element: ORIGIN, filled: false }, "[]");
    let max_connections = table.or("max_connections", Count(1..=1_000_000), "4096");
    let max_request_bytes = table.or("max_request_bytes", Count(1024..=1 << 30), "5242880");
    let max_response_bytes = table.or("max_response_bytes", Count(1024..=1 << 30), "26214400");
    let max_batch_items = table.or("max_batch_items", Count(1..=100_000), "1000");
    let max_subscriptions = table.or("max_subscriptions", Count(1..=1_000_000), "1024");
    let max_principal_subscriptions = table.or("max_principal_subscriptions", Count(1..=10_000_000), "100000");
    let max_calls_in_flight = table.or("max_calls_in_flight", Count(1..=1_000_000), "4096");
    let max_requests_per_second = table.optional("max_requests_per_second", Count(1..=1_000_000));
    let default_service = table.optional("default_service", NONEMPTY);
    let public_url = table.optional("public_url", PUBLIC_URL);
    let drain = table.or("drain", Time(Duration::ZERO..=HOUR), "30s");
    let ping_interval = table.or("ping_interval", Time(SHORTEST..=HOUR), "20s");
    let idle_timeout = table.or("idle_timeout", Time(SHORTEST..=HOUR), "60s");
    let write_timeout = table.or("write_timeout", Time(SHORTEST..=HOUR), "10s");
    let max_backlog_bytes = table.or("max_backlog_bytes", Count(65_536..=1 << 30), "4194304");
    let max_small_frames_per_second = table.or("max_small_frames_per_second", Count(1..=1_000_000), "100");
    if ping_interval.zip(idle_timeout).is_some_and(|(ping, idle)| idle <= ping) {
        table.fail("idle_timeout", Fault::Conflict, "must be longer than ping_interval: a client is heard of when it answers a ping");
    }
    let Listener { listen, tls, plaintext, token_file } = listener?;
    Some(Server {
        listen,
        tls,
        plaintext,
        token_file,
        origins: origins?,
        max_connections: max_connections?,
        max_request_bytes: max_request_bytes?,
        max_response_bytes: max_response_bytes?,
        max_batch_items: max_batch_items?,
        max_subscriptions: max_subscriptions?,
        max_principal_subscriptions: max_principal_subscriptions?,
        max_calls_in_flight: max_calls_in_flight?,
        max_requests_per_second: max_requests_per_second.and_then(NonZeroU32::new),
        default_service,
        public_url,
        drain: drain?,
        ping_interval: ping_interval?,
        idle_timeout: idle_timeout?,
        write_timeout: write_timeout?,
        max_backlog_bytes: max_backlog_bytes?,
        max_small_frames_per_second: max_small_frames_per_second?,
    })
}

pub(super) fn admin(table: &mut Table<'_, '_>) -> Option<Admin> {
    let Listener { listen, tls, plaintext, token_file } = listener(table, "127.0.0.1:9545")?;
    Some(Admin { listen, tls, plaintext, token_file })
}

/// The limits of one service; what its table leaves out is the server's.
pub(super) fn limits(table: &mut Table<'_, '_>, server: ServiceLimits) -> Option<ServiceLimits> {
    let max_connections = table.optional("max_connections", Count(1..=1_000_000));
    let max_subscriptions = table.optional("max_subscriptions", Count(1..=1_000_000));
    let max_principal_subscriptions = table.optional("max_principal_subscriptions", Count(1..=10_000_000));
    let max_batch_items = table.optional("max_batch_items", Count(1..=100_000));
    let max_calls_in_flight = table.optional("max_calls_in_flight", Count(1..=1_000_000));
    let max_requests_per_second = table.optional("max_requests_per_second", Count(1..=1_000_000));
    Some(ServiceLimits {
        max_connections: max_connections.unwrap_or(server.max_connections),
        max_subscriptions: max_subscriptions.unwrap_or(server.max_subscriptions),
        max_principal_subscriptions: max_principal_subscriptions.unwrap_or(server.max_principal_subscriptions),
        max_batch_items: max_batch_items.unwrap_or(server.max_batch_items),
        max_calls_in_flight: max_calls_in_flight.unwrap_or(server.max_calls_in_flight),
        max_requests_per_second: max_requests_per_second.and_then(NonZeroU32::new).or(server.max_requests_per_second),
    })
}

pub(super) fn log(table: &mut Table<'_, '_>) -> Option<Log> {
    Some(Log { level: table.optional("level", DIRECTIVES) })
}

pub(super) fn journal(table: &mut Table<'_, '_>) -> Option<Journal> {
    let path = table.required("path", FilePath);
    Some(Journal { path: path? })
}
