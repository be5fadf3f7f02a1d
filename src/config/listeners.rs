//! `[server]`, `[admin]` and `[journal]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::errors::Fault;
use super::kinds::{Count, FilePath, Flag, ListOf, Parsed, Time};
use super::model::{Admin, Journal, Server, Tls};
use super::reader::Table;

const HOUR: Duration = Duration::from_secs(3600);

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
    let drain = table.or("drain", Time(Duration::ZERO..=HOUR), "30s");
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
        drain: drain?,
    })
}

pub(super) fn admin(table: &mut Table<'_, '_>) -> Option<Admin> {
    let Listener { listen, tls, plaintext, token_file } = listener(table, "127.0.0.1:9545")?;
    Some(Admin { listen, tls, plaintext, token_file })
}

pub(super) fn journal(table: &mut Table<'_, '_>) -> Option<Journal> {
    let path = table.required("path", FilePath);
    Some(Journal { path: path? })
}
