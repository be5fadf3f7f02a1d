//! What a simulated node is: which client, which chain, which limits.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use alloy_primitives::{Address, U256};

use crate::random::Delays;

/// Whose pool rules and words the node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// go-ethereum.
    Geth,
    /// Reth.
    Reth,
    /// Hyperledger Besu.
    Besu,
    /// Nethermind.
    Nethermind,
    /// Erigon.
    Erigon,
    /// Foundry's development node.
    Anvil,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Geth, Self::Reth, Self::Besu, Self::Nethermind, Self::Erigon, Self::Anvil];

    /// Its name in lower case, as the command line takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Geth => "geth",
            Self::Reth => "reth",
            Self::Besu => "besu",
            Self::Nethermind => "nethermind",
            Self::Erigon => "erigon",
            Self::Anvil => "anvil",
        }
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|client| client.name() == name).ok_or_else(|| format!("{name} is no client that is simulated"))
    }
}

/// What gas costs on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseFee {
    /// From this many wei on, by the rule of EIP-1559.
    Moving(u64),
    /// Always this many wei; 0 on free chains.
    Fixed(u64),
    /// A chain from before EIP-1559: headers have no base fee, transactions of type 2 and 4 are refused.
    Absent,
}

/// Bounds of the pool. `None`: no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Transactions of one account that could be mined in a row.
    pub executable: Option<usize>,
    /// Transactions of one account behind a gap. geth answers with a hash and forgets the highest.
    pub queued: Option<usize>,
    /// Transactions of all accounts.
    pub pool: usize,
    /// How far a nonce may be beyond the account's.
    pub distance: Option<u64>,
    /// Whether nonces behind a gap are taken.
    pub gaps: bool,
    /// By how many percent both fees of a replacement must be higher; `None`: by 1 wei (anvil).
    pub bump_percent: Option<u128>,
    /// How long what is behind a gap is kept.
    pub lifetime: Option<Duration>,
}

/// Everything about one simulated node. [`Settings::new`] has the client's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Rules and words.
    pub client: Client,
    /// Chain id.
    pub chain_id: u64,
    /// Block hashes (genesis included), subscription ids, chances and delays come from it.
    pub seed: u64,
    /// Wei of each account at genesis.
    pub balances: BTreeMap<Address, U256>,
    /// What gas costs.
    pub base_fee: BaseFee,
    /// The tip that the node suggests, in wei per gas.
    pub tip: u128,
    /// The least tip (besu: price) that the pool takes, in wei per gas.
    pub least_tip: u128,
    /// The least tip that gets into a block, in wei per gas: what pays less stays in the pool.
    pub included_tip: u128,
    /// Gas of a block.
    pub gas_limit: u64,
    /// Transactions of a block at most; `None`: as many as its gas allows.
    pub block_transactions: Option<usize>,
    /// How many blocks the `finalized` one is behind the head (`safe`: half of that); `None`: the node does not know the tags.
    pub finality: Option<u64>,
    /// Unix seconds at the zero of the node's clock. The genesis block says 0, so that its hash does not depend on when it was made.
    pub genesis_time: u64,
    /// Whether every accepted transaction makes a block at once, as anvil does by default.
    pub automine: bool,
    /// geth's local tracker: a hash is answered although the pool refused for a passing reason; it is tried again every minute.
    pub local_tracker: bool,
    /// The most that a transaction may pay for gas, in wei; `None`: the node has no such cap.
    pub fee_cap: Option<U256>,
    /// Bounds of the pool.
    pub limits: Limits,
    /// How long answers take.
    pub delays: Delays,
    /// Addresses that revert every call, each with its reason.
    pub reverting: BTreeMap<Address, String>,
}

impl Settings {
    /// A node as that client is by default, on a chain with a base fee that begins at 1 gwei and a suggested tip of 1 gwei.
    pub fn new(client: Client, chain_id: u64, seed: u64) -> Self {
        let ether = U256::from(1_000_000_000_000_000_000_u64);
        let tip = 1_000_000_000;
        Self {
            client,
            chain_id,
            seed,
            balances: BTreeMap::new(),
            base_fee: BaseFee::Moving(1_000_000_000),
            tip,
            least_tip: match client {
                Client::Geth | Client::Erigon => 1,
                Client::Besu => 1_000,
                Client::Reth | Client::Nethermind | Client::Anvil => 0,
            },
            included_tip: 0,
            gas_limit: 30_000_000,
            block_transactions: None,
            finality: Some(64),
            genesis_time: 1_700_000_000,
            automine: client == Client::Anvil,
            local_tracker: false,
            fee_cap: matches!(client, Client::Geth | Client::Reth | Client::Besu).then_some(ether),
            limits: Limits::of(client),
            delays: Delays::default(),
            reverting: BTreeMap::new(),
        }
    }

    /// The same node on a chain where gas is free and blocks are final at once: base fee 0, tips 0.
    #[must_use]
    pub fn free(self) -> Self {
        Self { base_fee: BaseFee::Fixed(0), tip: 0, least_tip: 0, finality: Some(0), ..self }
    }

    /// The same node, with this many wei for each address.
    #[must_use]
    pub fn with_balance(mut self, wei: U256, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.balances.extend(addresses.into_iter().map(|address| (address, wei)));
        self
    }
}

impl Limits {
    /// The same rules without any bound on how much is in the pool.
    #[must_use]
    pub fn open(self) -> Self {
        Self { executable: None, queued: None, pool: usize::MAX, distance: None, ..self }
    }

    /// That client's defaults.
    pub fn of(client: Client) -> Self {
        let open = Self {
            executable: None,
            queued: None,
            pool: 10_000,
            distance: None,
            gaps: client != Client::Nethermind,
            bump_percent: Some(10),
            lifetime: None,
        };
        match client {
            // 5,120 and 1,024 slots; three hours.
            Client::Geth => {
                Self { executable: Some(16), queued: Some(64), pool: 6_144, lifetime: Some(Duration::from_secs(3 * 3_600)), ..open }
            }
            Client::Reth => Self { executable: Some(16), queued: Some(16), ..open },
            Client::Besu => Self { distance: Some(200), ..open },
            Client::Nethermind => Self { distance: Some(1_024), ..open },
            Client::Erigon => open,
            Client::Anvil => Self { bump_percent: None, pool: usize::MAX, ..open },
        }
    }
}
