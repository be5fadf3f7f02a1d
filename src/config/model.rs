//! The configuration as every other room sees it: read, overridden and validated. Nothing here is a default of last resort:
//! each field has been decided by the time this type exists.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use url::Url;
use zeroize::Zeroizing;

/// One process: what it listens on, its journal, and the environments, configurations and services it serves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The JSON-RPC listener.
    pub server: Server,
    /// The listener for operators.
    pub admin: Admin,
    /// The durable store.
    pub journal: Journal,
    /// What is logged.
    pub log: Log,
    /// Chains and the nodes that reach them; names and chain ids are unique.
    pub environments: Vec<Environment>,
    /// Access to key sources; names are unique.
    pub configurations: Vec<Configuration>,
    /// What clients connect to; names are unique, references resolve.
    pub services: Vec<Service>,
}

/// `[server]`: JSON-RPC over HTTP and WebSocket on one port.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address to listen on; anything but loopback needs `token_file`, and `tls` or `plaintext`.
    pub listen: SocketAddr,
    /// Certificate and key, for https and wss.
    pub tls: Option<Tls>,
    /// Says that something in front of Sluice terminates TLS.
    pub plaintext: bool,
    /// File with the one bearer token that every request must carry.
    pub token_file: Option<PathBuf>,
    /// `Origin` values that are let in; requests with any other `Origin` are refused, requests without one are not.
    pub origins: Vec<String>,
    /// Connections open at the same time.
    pub max_connections: u32,
    /// Largest request (or batch), in bytes.
    pub max_request_bytes: u32,
    /// Largest response (or batch of responses), in bytes.
    pub max_response_bytes: u32,
    /// Items in one JSON-RPC batch.
    pub max_batch_items: u32,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// Subscriptions of one principal, over all its connections to a service.
    pub max_principal_subscriptions: u32,
    /// Calls of one connection that are not answered yet; a batch of `max_batch_items` always fits.
    pub max_calls_in_flight: u32,
    /// Calls per second of one service, over all its connections; none is no limit.
    pub max_requests_per_second: Option<NonZeroU32>,
    /// Name of the service that `/` is. Without it, the only service, or none of several.
    pub default_service: Option<String>,
    /// What clients reach the listener by, if that is not `listen`: for the URLs of /status. It has no `/` at its end.
    pub public_url: Option<Url>,
    /// How long SIGTERM waits for what is in flight.
    pub drain: Duration,
    /// How often a WebSocket client is pinged.
    pub ping_interval: Duration,
    /// How long a WebSocket client may be silent, pongs counted, before its connection is ended; longer than `ping_interval`.
    pub idle_timeout: Duration,
    /// How long a client that does not read holds up one write before its connection is ended.
    pub write_timeout: Duration,
    /// Bytes of notifications that wait for a client that does not keep up; with more, its connection is ended.
    pub max_backlog_bytes: u32,
    /// Frames per second of one WebSocket that carry no call (pings, pongs, small fragments, messages too short for one); more are read as slowly as that.
    pub max_small_frames_per_second: u32,
}

impl Server {
    /// The limits of a service that has none of its own.
    pub fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            max_connections: self.max_connections,
            max_subscriptions: self.max_subscriptions,
            max_principal_subscriptions: self.max_principal_subscriptions,
            max_batch_items: self.max_batch_items,
            max_calls_in_flight: self.max_calls_in_flight,
            max_requests_per_second: self.max_requests_per_second,
        }
    }
}

/// `tls = { certificate, key }`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// `[admin]`: /metrics, /status, /livez, /readyz.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Address to listen on; the rule of `server.listen` holds here too.
    pub listen: SocketAddr,
    /// Certificate and key, for https.
    pub tls: Option<Tls>,
    /// Says that something in front of Sluice terminates TLS.
    pub plaintext: bool,
    /// File with the bearer token for /metrics and /status.
    pub token_file: Option<PathBuf>,
}

/// `[journal]`: the durable store of transactions, slots, attempts and events.
#[derive(Debug, Clone)]
pub struct Journal {
    /// SQLite file; its directory must exist.
    pub path: PathBuf,
}

/// `[log]`: what is logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// A level, or levels by target, as in the variable `RUST_LOG`, which wins where it is set.
    pub level: Option<String>,
}

/// `[[environment]]`: one chain and the node endpoints that reach it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Unique name.
    pub name: String,
    /// EIP-155 chain id; unique.
    pub chain_id: u64,
    /// At least one endpoint.
    pub nodes: Vec<Node>,
    /// The times by which a connection to a node is judged.
    pub clocks: NodeClocks,
    /// Bounds per account.
    pub account: AccountBounds,
    /// How long `eth_sendTransaction` waits for a node's answer after the commit before it answers with the hash (2 s).
    pub answer_after: Duration,
    /// How requests of one account go to an endpoint.
    pub broadcast: Broadcast,
    /// When an inclusion is confirmed (12 blocks).
    pub confirmations: Confirmations,
    /// Blocks that count instead of the `finalized` block where the nodes have none (64).
    pub finalized_fallback: u64,
    /// Deadline of one request to a node (10 s).
    pub node_deadline: Duration,
    /// How long a call waits for a receipt or a state, if its client does not say (20 s).
    pub sync_timeout: Duration,
    /// And at most (5 min).
    pub sync_timeout_max: Duration,
    /// Estimated gas is multiplied by this, in percent (100 leaves it as it is). A given gas is never changed.
    pub gas_percent: u64,
    /// Time after which bytes that are broadcast and not mined are sent again (30 s).
    pub rebroadcast: Duration,
    /// How long bytes of `eth_signTransaction` hold their slot (10 min).
    pub hold: Duration,
    /// Blocks in a row for which every endpoint says the same of an account's nonces, before one of a restored journal sends (12).
    pub reconcile_blocks: u64,
    /// How transactions pay for gas.
    pub fees: FeeMode,
    /// When a payload that is not mined is replaced by one that pays more.
    pub bump: Bump,
    /// What is answered for a hash that was superseded.
    pub superseded: Superseded,
    /// Where streams of logs come from.
    pub logs: LogSource,
}

/// Where streams of logs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogSource {
    /// The blocks whose bloom says that they may have one.
    #[default]
    Chain,
    /// What a node says of each block, whatever its bloom.
    Node,
}

/// How the transactions of an environment pay for gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeeMode {
    /// maxFeePerGas and maxPriorityFeePerGas (types 2 and 4) where the client does not ask for one price, and the chain has a base fee.
    Eip1559,
    /// One price, `gasPrice` (types 0 and 1), always.
    Legacy,
    /// The price is 0 unless the client gives one, and is never raised.
    Free,
}

/// When the lowest payload of an account that is not mined is replaced by one that pays more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bump {
    /// Time since its newest payload was sent first (60 s).
    pub after: Duration,
    /// New heads since then (3).
    pub blocks: u64,
    /// Replacements of one slot, at most; 0: none is made (5).
    pub times: u32,
}

impl Default for Bump {
    fn default() -> Self {
        Self { after: Duration::from_secs(60), blocks: 3, times: 5 }
    }
}

/// What receipt and transaction are answered for a hash that another attempt of the same transaction superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Superseded {
    /// Those of the attempt that was mined, its own hash inside.
    Mined,
    /// What the node has of the hash itself: nothing.
    Own,
}

impl Environment {
    /// Blocks, the including one counted, after which an inclusion is confirmed where no finalized block says so.
    pub fn depth(&self) -> u64 {
        match self.confirmations {
            Confirmations::Blocks(blocks) => blocks,
            Confirmations::Finalized => self.finalized_fallback,
        }
    }
}

/// How the transactions of one account go to an endpoint; docs/nodes.md says which nodes need what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broadcast {
    /// Each as a request of its own, at once.
    #[default]
    Pipelined,
    /// What waits as one JSON-RPC batch, the next when that is answered.
    Batched,
    /// The next one when the endpoint has taken the one before.
    Sequential,
}

/// When an inclusion is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmations {
    /// So many blocks deep, the including one counted.
    Blocks(u64),
    /// At or below the block that the nodes call `finalized`.
    Finalized,
}

/// One endpoint of an environment. Its debug output is the label: the URL may hold credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// By WebSocket, HTTP or a Unix socket. May hold credentials: never shown whole, see [`Node::label`].
    pub url: Url,
    /// What it is asked.
    pub roles: Roles,
}

/// What an endpoint is asked. In an environment at least one reads, and what takes transactions is `send` everywhere or `private`
/// everywhere: what is sent privately never goes anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Reads, subscriptions, heads.
    pub read: bool,
    /// Transactions, in public.
    pub send: bool,
    /// Transactions, in private.
    pub private: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { read: true, send: true, private: false }
    }
}

impl Roles {
    /// Whether transactions go to it.
    pub fn takes_transactions(self) -> bool {
        self.send || self.private
    }

    /// The names of those that it has.
    pub fn names(self) -> Vec<&'static str> {
        let all = [("read", self.read), ("send", self.send), ("private", self.private)];
        all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
    }
}

/// How an endpoint is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `ws://`, `wss://`.
    WebSocket,
    /// `http://`, `https://`: it can be asked, and tells nothing by itself.
    Http,
    /// `ipc://`: a Unix socket.
    Ipc,
}

impl Transport {
    /// Its name on /status.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
            Self::Ipc => "ipc",
        }
    }

    /// Whether there are subscriptions.
    pub fn pushes(self) -> bool {
        !matches!(self, Self::Http)
    }
}

impl Node {
    /// How it is talked to.
    pub fn transport(&self) -> Transport {
        match self.url.scheme() {
            "http" | "https" => Transport::Http,
            "ipc" => Transport::Ipc,
            _ => Transport::WebSocket,
        }
    }

    /// Scheme, host and port, or the path of a Unix socket: what logs, metrics and /status may show.
    pub fn label(&self) -> String {
        if self.transport() == Transport::Ipc {
            return format!("ipc://{}", self.url.path());
        }
        let host = self.url.host_str().unwrap_or("?");
        match self.url.port() {
            Some(port) => format!("{}://{host}:{port}", self.url.scheme()),
            None => format!("{}://{host}", self.url.scheme()),
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.label()).finish()
    }
}

/// The times by which a connection to a node is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeClocks {
    /// For one try to connect and to prove the chain (10 s).
    pub connect: Duration,
    /// Between two pings (10 s).
    pub ping: Duration,
    /// A ping that is not answered in this time ends the connection (20 s).
    pub pong: Duration,
    /// So long without any frame ends the connection (30 s); longer than `ping`.
    pub silence: Duration,
    /// The least time without a new head after which the head is asked for (15 s).
    pub head_silence: Duration,
    /// Between two questions for the head of a node that announces none (1 s).
    pub poll: Duration,
    /// The longest pause before the next try to connect (5 s).
    pub reconnect_max: Duration,
}

impl Default for NodeClocks {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            ping: Duration::from_secs(10),
            pong: Duration::from_secs(20),
            silence: Duration::from_secs(30),
            head_silence: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(5),
        }
    }
}

/// Bounds per account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountBounds {
    /// Requests that wait in memory, without a nonce (1,024).
    pub queue: usize,
    /// From a request's arrival to the start of its Sign (30 s).
    pub queue_deadline: Duration,
    /// Signs in flight (64).
    pub sign_window: usize,
    /// Attempts committed and not yet sent (64).
    pub sign_ahead: usize,
    /// Attempts sent and not mined (64).
    pub broadcast_window: usize,
    /// Transactions that are acknowledged and have no attempt yet, on disk (10,000).
    pub acknowledged: u64,
}

impl Default for AccountBounds {
    fn default() -> Self {
        Self {
            queue: 1024,
            queue_deadline: Duration::from_secs(30),
            sign_window: 64,
            sign_ahead: 64,
            broadcast_window: 64,
            acknowledged: 10_000,
        }
    }
}

/// `[[configuration]]`: the access to one key source.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Unique name.
    pub name: String,
    /// Which key source, and how to reach it.
    pub provider: Provider,
}

/// A key source.
#[derive(Debug, Clone)]
pub enum Provider {
    /// `provider = "aws_kms"`.
    AwsKms(Box<AwsKms>),
    /// `provider = "local"`: encrypted V3 keystore files.
    Local(Local),
    /// The well-known development mnemonic; only `sluice dev` makes it, only on chain ids 31337 and 1337.
    Development {
        /// How many addresses are derived (m/44'/60'/0'/0/i).
        accounts: u32,
    },
}

/// Access to AWS KMS.
#[derive(Debug, Clone)]
pub struct AwsKms {
    /// AWS Region of the keys.
    pub region: String,
    /// Another endpoint of KMS (a VPC endpoint or an emulator).
    pub endpoint: Option<Url>,
    /// Another endpoint of STS.
    pub sts_endpoint: Option<Url>,
    /// Whether AWS's FIPS endpoints are used.
    pub use_fips: bool,
    /// Whether AWS's dual-stack endpoints (IPv4 and IPv6) are used.
    pub use_dual_stack: bool,
    /// Static credentials; without them AWS's own chain is used.
    pub credentials: Option<AwsCredentials>,
    /// The role that is assumed with those credentials.
    pub role: Option<AssumedRole>,
    /// The account that Signs count against, where it is not to be asked.
    pub account_id: Option<String>,
    /// Connections that are kept open for a burst of Signs; 0: none.
    pub warm_connections: u32,
    /// Signs per second of one (AWS account, Region); AWS's own quota is 1,000.
    pub sign_rate: NonZeroU32,
    /// Signs per second of one key in one (AWS account, Region).
    pub sign_rate_per_key: NonZeroU32,
    /// Signs in flight of one (AWS account, Region) (512).
    pub sign_window: usize,
    /// Signs in flight of one key (256).
    pub sign_window_per_key: usize,
    /// Whether a Sign that takes long is asked a second time (true).
    pub sign_hedge: bool,
    /// Time for one transaction's signature, retries included (10 s).
    pub sign_deadline: Duration,
    /// How often the keys are found again (5 min); 0 is never.
    pub refresh: Duration,
}

/// Static AWS credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// Access key id.
    pub access_key_id: Secret,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token of temporary credentials.
    pub session_token: Option<Secret>,
}

/// A role whose temporary credentials are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssumedRole {
    /// Its ARN.
    pub arn: String,
    /// What its trust policy asks for as `sts:ExternalId`.
    pub external_id: Option<String>,
    /// Names the session in AWS's logs.
    pub session_name: String,
    /// File with the token of a web identity: the role is assumed with it instead of credentials.
    pub web_identity_token_file: Option<PathBuf>,
}

/// Encrypted V3 keystore files.
#[derive(Debug, Clone)]
pub struct Local {
    /// Directory of keystore files, or one such file.
    pub keystore: PathBuf,
    /// The one password of them all.
    pub password: Secret,
}

/// `[[service]]`: what a client connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique name; its path is `/NAME`.
    pub name: String,
    /// Name of its environment.
    pub environment: String,
    /// Names of its configurations, at least one.
    pub configurations: Vec<String>,
    /// Which keys of those configurations it may use.
    pub keys: KeySelection,
    /// Shape of the answer of `eth_signTransaction`.
    pub sign_transaction_result: SignTransactionResult,
    /// Namespaces that pass through to the node beside `eth_`, `net_` and `web3_`, without the underscore.
    pub pass_through: Vec<String>,
    /// What its transactions may pay at most.
    pub ceilings: FeeCeilings,
    /// Its limits: its own where it has any, else those of `[server]`.
    pub limits: ServiceLimits,
}

/// What one transaction of a service may pay at most, in wei; none is no ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeeCeilings {
    /// `max_fee_per_gas`: for one unit of gas.
    pub per_gas: Option<u128>,
    /// `max_total_fee`: for all its gas, that is gas limit × highest price. The value that it transfers does not count.
    pub total: Option<u128>,
}

/// Limits of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceLimits {
    /// WebSocket connections to it, open at the same time.
    pub max_connections: u32,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// Subscriptions of one principal, over all its connections.
    pub max_principal_subscriptions: u32,
    /// Items in one JSON-RPC batch.
    pub max_batch_items: u32,
    /// Calls of one connection that are not answered yet; a batch of `max_batch_items` always fits.
    pub max_calls_in_flight: u32,
    /// Calls per second over all its connections, items of batches counted; none is no limit.
    pub max_requests_per_second: Option<NonZeroU32>,
}

/// Which keys of its configurations a service may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySelection {
    /// Every ECC_SECG_P256K1 key for SIGN_VERIFY.
    All,
    /// Those of them that carry all these tags.
    Tags(BTreeMap<String, String>),
    /// These ARNs, key ids or aliases (for `local`: addresses).
    Ids(Vec<String>),
}

/// Shape of the answer of `eth_signTransaction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignTransactionResult {
    /// `{raw, tx}`, as geth and the specification.
    Object,
    /// The raw bytes as one hex string, as web3signer and ethers.
    Raw,
}

/// A value that no log, error or debug output shows.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret value.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself: for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// In constant time: only a length can be told from how long it takes.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
