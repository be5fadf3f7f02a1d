//! Requests from a seed: methods of every kind, parameters good and bad.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// What exists on the chain.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) head: u64,
    pub(super) addresses: Vec<String>,
    pub(super) blocks: Vec<String>,
    pub(super) transactions: Vec<String>,
    pub(super) topics: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Address,
    Block,
    BlockHash,
    TransactionHash,
    Flag,
    Index,
    Slot,
    Slots,
    Call,
    Overrides,
    Filter,
    Percentiles,
    Bytes,
    FilterId,
}

use Kind::*;

/// Methods that pass through, with what they take. Not here: what is answered by design in the gateway, and filters, whose ids are
/// random.
const METHODS: [(&str, &[Kind]); 40] = [
    ("eth_blobBaseFee", &[]),
    ("eth_blockNumber", &[]),
    ("eth_coinbase", &[]),
    ("eth_gasPrice", &[]),
    ("eth_hashrate", &[]),
    ("eth_maxPriorityFeePerGas", &[]),
    ("eth_mining", &[]),
    ("eth_nonsense", &[Address]),
    ("eth_protocolVersion", &[]),
    ("eth_syncing", &[]),
    ("net_listening", &[]),
    ("net_nonsense", &[]),
    ("net_peerCount", &[]),
    ("web3_clientVersion", &[]),
    ("web3_sha3", &[Bytes]),
    ("eth_getBalance", &[Address, Block]),
    ("eth_getCode", &[Address, Block]),
    ("eth_getTransactionCount", &[Address, Block]),
    ("eth_getStorageAt", &[Address, Slot, Block]),
    ("eth_getProof", &[Address, Slots, Block]),
    ("eth_getBlockByNumber", &[Block, Flag]),
    ("eth_getBlockByHash", &[BlockHash, Flag]),
    ("eth_getBlockReceipts", &[Block]),
    ("eth_getHeaderByNumber", &[Block]),
    ("eth_getBlockTransactionCountByNumber", &[Block]),
    ("eth_getBlockTransactionCountByHash", &[BlockHash]),
    ("eth_getUncleCountByBlockNumber", &[Block]),
    ("eth_getTransactionByHash", &[TransactionHash]),
    ("eth_getRawTransactionByHash", &[TransactionHash]),
    ("eth_getTransactionReceipt", &[TransactionHash]),
    ("eth_getTransactionByBlockNumberAndIndex", &[Block, Index]),
    ("eth_getTransactionByBlockHashAndIndex", &[BlockHash, Index]),
    ("eth_getLogs", &[Filter]),
    ("eth_call", &[Call, Block, Overrides]),
    ("eth_estimateGas", &[Call, Block]),
    ("eth_createAccessList", &[Call, Block]),
    ("eth_feeHistory", &[Index, Block, Percentiles]),
    ("eth_getFilterChanges", &[FilterId]),
    ("eth_getFilterLogs", &[FilterId]),
    ("eth_uninstallFilter", &[FilterId]),
];

/// What no parameter should be, as JSON text.
const BAD: [&str; 28] = [
    "null",
    "true",
    "7",
    "-1",
    "1.5",
    "1e3",
    "18446744073709551616",
    r#""""#,
    r#"" ""#,
    r#""0x""#,
    r#""0x0""#,
    r#""0X1""#,
    r#""0x01""#,
    r#""0xzz""#,
    r#""0x123""#,
    r#""12""#,
    r#""LATEST""#,
    r#""pending ""#,
    r#""\u0030\u0078\u0031""#,
    r#""ü""#,
    r#""0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff""#,
    r#""0x00000000000000000000000000000000000000""#,
    "[]",
    "[[]]",
    "{}",
    r#"{"blockNumber":"0x1"}"#,
    r#"{"a":{"b":[1,{"c":null}]}}"#,
    r#"{"topics":"0x1","address":7}"#,
];

/// Makes requests.
pub(super) struct Generator<'a> {
    random: StdRng,
    facts: &'a Facts,
}

impl<'a> Generator<'a> {
    pub(super) fn new(seed: u64, facts: &'a Facts) -> Self {
        Self { random: StdRng::seed_from_u64(seed), facts }
    }

    /// A method, and its parameters as text.
    pub(super) fn request(&mut self) -> (&'static str, String) {
        let (method, kinds) = self.pick(&METHODS);
        (method, self.params(kinds))
    }

    /// A filter of what is still to come.
    pub(super) fn live_filter(&mut self) -> Value {
        let mut filter = self.good_filter();
        filter.as_object_mut().unwrap().retain(|name, _| ["address", "topics"].contains(&name.as_str()));
        filter
    }

    /// Parameters of `eth_subscribe`, as text.
    pub(super) fn subscription(&mut self) -> String {
        if self.chance(0.05) {
            return self.pick(&["[]", "{}", "[null]", "[7]", r#"[["logs"]]"#, "null"]).to_owned();
        }
        let kind = self.pick(&["logs", "logs", "logs", "logs", "newPendingTransactions", "newHeads", "syncing"]);
        let mut items = vec![json!(kind).to_string()];
        match kind {
            "logs" => items.push(self.odd_filter()),
            "newPendingTransactions" if self.chance(0.7) => items.push(if self.chance(0.5) { self.bad() } else { self.good(Flag) }),
            _ => {}
        }
        if self.chance(0.06) {
            items.push(self.bad());
        }
        if self.chance(0.04) {
            items.truncate(1);
        }
        format!("[{}]", items.join(" , "))
    }

    /// A filter with something wrong in it, or not.
    fn odd_filter(&mut self) -> String {
        if self.chance(0.1) {
            return self.bad();
        }
        let mut filter = self.good_filter();
        if self.chance(0.5) {
            let bad: Value = serde_json::from_str(&self.bad()).unwrap_or_default();
            match self.pick(&["address", "addresses", "topics", "topic", "topic in a list", "fromBlock", "toBlock", "blockHash"]) {
                "addresses" => filter["address"] = json!([self.address(), bad]),
                "topic" => filter["topics"] = json!([null, bad]),
                "topic in a list" => filter["topics"] = json!([[self.among(&self.facts.topics), bad]]),
                name => filter[name] = bad,
            }
        }
        filter.to_string()
    }

    fn params(&mut self, kinds: &[Kind]) -> String {
        if self.chance(0.03) {
            return self.pick(&["{}", "[ ]", "[null]", "null", r#"{"address":"0x0"}"#]).to_owned();
        }
        let mut items: Vec<String> = kinds.iter().map(|kind| if self.chance(0.15) { self.bad() } else { self.good(*kind) }).collect();
        while !items.is_empty() && self.chance(0.12) {
            items.pop();
        }
        if self.chance(0.05) {
            items.push(self.bad());
        }
        // However it is spaced.
        let (open, between) = self.pick(&[("[", ","), ("[ ", " , "), ("[\n", ",\t")]);
        format!("{open}{}]", items.join(between))
    }

    fn good(&mut self, kind: Kind) -> String {
        let facts = self.facts;
        let text = |value: &str| json!(value).to_string();
        match kind {
            Address => text(&self.address()),
            Block => self.block().to_string(),
            BlockHash if self.chance(0.9) => text(self.among(&facts.blocks)),
            TransactionHash if self.chance(0.9) => text(self.among(&facts.transactions)),
            BlockHash | TransactionHash => text(&format!("0x{}", "ab".repeat(32))),
            Flag => self.random.random::<bool>().to_string(),
            Index => text(&format!("{:#x}", self.random.random_range(0..4))),
            Slot => self.slot().to_string(),
            Slots => json!((0..self.random.random_range(0..3)).map(|_| self.slot()).collect::<Vec<_>>()).to_string(),
            Call => self.call().to_string(),
            Overrides => json!({ self.address(): { "balance": "0x1234", "code": "0x6000" } }).to_string(),
            Filter => self.good_filter().to_string(),
            Percentiles => self.pick(&["[]", "[25.0, 50]", "[90,10]", "[101]", "[0.5]"]).to_owned(),
            Bytes => self.pick(&[r#""0x""#, r#""0x68656c6c6f""#, r#""0xFF""#]).to_owned(),
            FilterId => self.pick(&[r#""0x1""#, r#""0xdeadbeefdeadbeefdeadbeefdeadbeef""#]).to_owned(),
        }
    }

    fn address(&mut self) -> String {
        let address = self.among(&self.facts.addresses).to_owned();
        match self.random.random_range(0..4) {
            0 => address.to_uppercase().replace("0X", "0x"),
            _ => address.to_lowercase(),
        }
    }

    /// By number mostly: what is said of the newest block changes from one moment to the next.
    fn block(&mut self) -> Value {
        match self.random.random_range(0..12) {
            0 => json!("latest"),
            1 => json!("earliest"),
            2 => json!(self.pick(&["pending", "safe", "finalized"])),
            3 => json!({ "blockHash": self.among(&self.facts.blocks) }),
            4 => json!({ "blockNumber": "0x1", "requireCanonical": true }),
            5 => json!("0xffffff"),
            _ => json!(format!("{:#x}", self.random.random_range(0..=self.facts.head))),
        }
    }

    fn slot(&mut self) -> Value {
        json!(format!("0x{:064x}", self.random.random_range(0..3)))
    }

    fn call(&mut self) -> Value {
        let mut call = json!({ "to": self.address(), "from": self.address() });
        if self.chance(0.5) {
            call["data"] = json!(format!("{}{:064x}", self.among(&self.facts.topics), 7));
        }
        for (name, value) in
            [("value", "0x1"), ("gas", "0x30000"), ("gasPrice", "0xffffffff"), ("nonce", "0x0"), ("chainId", "0x1"), ("input", "0x12")]
        {
            if self.chance(0.12) {
                call[name] = json!(value);
            }
        }
        if self.chance(0.1) {
            call["value"] = json!("0xffffffffffffffffffffffffff");
        }
        if self.chance(0.1) {
            // Creation code that reverts with data.
            call = json!({ "from": self.address(), "data": "0x604260005260206000fd" });
        }
        call
    }

    fn good_filter(&mut self) -> Value {
        let mut filter = json!({});
        if self.chance(0.5) {
            filter["address"] = if self.chance(0.5) { json!(self.address()) } else { json!([self.address(), self.address()]) };
        }
        if self.chance(0.6) {
            let topics: Vec<Value> = (0..self.random.random_range(0..3))
                .map(|_| match self.random.random_range(0..4) {
                    0 => Value::Null,
                    1 => json!([self.among(&self.facts.topics), self.among(&self.facts.topics)]),
                    2 => json!([]),
                    _ => json!(self.among(&self.facts.topics)),
                })
                .collect();
            filter["topics"] = json!(topics);
        }
        for name in ["fromBlock", "toBlock"] {
            if self.chance(0.4) {
                let block = self.block();
                filter[name] = if block.is_object() { json!("0x1") } else { block };
            }
        }
        if self.chance(0.15) {
            filter["blockHash"] = json!(self.among(&self.facts.blocks));
        }
        filter
    }

    fn bad(&mut self) -> String {
        self.pick(&BAD).to_owned()
    }

    fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from.choose(&mut self.random).unwrap()
    }

    fn among(&mut self, from: &'a [String]) -> &'a str {
        from.choose(&mut self.random).unwrap()
    }
}
