//! The endpoints of an environment with their roles, and the times by which they are judged.

use std::time::Duration;

use url::Url;

use super::errors::Fault;
use super::kinds::{Choice, ListOf, Parsed, Time};
use super::model::{Node, NodeClocks, Roles};
use super::reader::Table;

/// The URL of a node. Its error does not repeat it: providers put their keys into it.
const NODE_URL: Parsed<Url> = Parsed {
    word: "URL",
    expected: "the URL of a node, such as \"ws://127.0.0.1:8546\", \"https://node.example.org\" or \"ipc:///run/geth.ipc\"",
    parse: |text| {
        let url = Url::parse(text).map_err(|error| format!("is not a URL ({error})"))?;
        match url.scheme() {
            "ipc" => ipc(&url).map(|()| url),
            "ws" | "wss" | "http" | "https" if url.fragment().is_some() => Err("has a fragment, which no node is ever told".to_owned()),
            "ws" | "wss" | "http" | "https" => Ok(url),
            _ => Err("has another scheme".to_owned()),
        }
    },
};

/// An `ipc` URL is the absolute path of a Unix socket, and nothing else.
fn ipc(url: &Url) -> Result<(), String> {
    if !cfg!(unix) {
        return Err("is that of a Unix socket, which this system does not have".to_owned());
    }
    let more = url.has_host() || url.query().is_some() || url.fragment().is_some();
    if more || url.path().len() < 2 {
        return Err("is not the path of a Unix socket, with three slashes in front".to_owned());
    }
    Ok(())
}

const fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Bounds of a clock.
const CLOCK: Time = Time(milliseconds(20)..=milliseconds(600_000));

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Read,
    Send,
    Private,
}

/// The roles of an endpoint.
const ROLES: ListOf<Choice<Role>> =
    ListOf { element: Choice(&[("read", Role::Read), ("send", Role::Send), ("private", Role::Private)]), filled: true };

/// Reads `nodes`.
pub(super) fn nodes(table: &mut Table<'_, '_>) -> Option<Vec<Node>> {
    let mut urls = Vec::new();
    let nodes = table.tables("nodes", "at least one { url = \"ws://…\" }", |node| {
        let url = node.required("url", NODE_URL);
        let roles = node.or("roles", ROLES, r#"["read", "send"]"#);
        let url = url?;
        if urls.contains(&url) {
            node.fail("url", Fault::Duplicate, "is the URL of a node above");
        }
        urls.push(url.clone());
        let roles = roles?;
        let has = |role| roles.contains(&role);
        Some(Node { url, roles: Roles { read: has(Role::Read), send: has(Role::Send), private: has(Role::Private) } })
    })?;
    for (fault, why) in misfits(&nodes) {
        table.fail("nodes", fault, why);
    }
    Some(nodes)
}

/// What is wrong with the roles of the endpoints together.
fn misfits(nodes: &[Node]) -> Vec<(Fault, &'static str)> {
    let any = |has: fn(&Roles) -> bool| nodes.iter().any(|node| has(&node.roles));
    let mut misfits = Vec::new();
    if !any(|roles| roles.read) {
        misfits.push((Fault::Value, "has no node with the role \"read\": heads, balances and receipts come from one"));
    }
    if !any(|roles| roles.takes_transactions()) {
        misfits.push((Fault::Value, "has no node with the role \"send\" or \"private\": no transaction could go anywhere"));
    }
    if any(|roles| roles.send) && any(|roles| roles.private) {
        let why = "has the roles \"send\" and \"private\": every transaction goes to every node that takes them, so none would be private; \
                   give each node roles without one of the two";
        misfits.push((Fault::Conflict, why));
    }
    misfits
}

/// Reads `clocks`.
pub(super) fn clocks(table: &mut Table<'_, '_>) -> Option<NodeClocks> {
    let connect = table.or("connect", CLOCK, "10s");
    let ping = table.or("ping", CLOCK, "10s");
    let pong = table.or("pong", CLOCK, "20s");
    let silence = table.or("silence", CLOCK, "30s");
    let head_silence = table.or("head_silence", CLOCK, "15s");
    let poll = table.or("poll", CLOCK, "1s");
    let reconnect_max = table.or("reconnect_max", CLOCK, "5s");
    if let (Some(ping), Some(silence)) = (ping, silence)
        && silence <= ping
    {
        table.fail("silence", Fault::Value, "is not longer than ping: a connection that is quiet would end between two pings");
    }
    Some(NodeClocks {
        connect: connect?,
        ping: ping?,
        pong: pong?,
        silence: silence?,
        head_silence: head_silence?,
        poll: poll?,
        reconnect_max: reconnect_max?,
    })
}
