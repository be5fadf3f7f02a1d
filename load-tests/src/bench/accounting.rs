//! Where each Sign went: Signs − retries − hedges − those whose signature was not used, not claimed or did not come = attempts + signed
//! messages. The gateway counts what it asks, KMS what
//! arrives: between the two is what was given up on its way, as a hedge is whose first Sign is answered just then.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::check::{Told, check};
use super::figures::{Bound, Report};
use super::load::{accounts, told};
use super::observe::{labelled, machine, machine_load, mined, settled, total};
use super::plan::Plan;
use super::world::{Programs, World};
use super::{Extent, Failure};
use crate::random::Delays;

/// Transactions, messages, and requests that come a second time.
const TRANSACTIONS: usize = 400;
const MESSAGES: usize = 100;
const REPEATED: usize = 100;

/// What KMS and the gateway have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Ledger {
    /// Calls of Sign, by KMS.
    pub(super) arrived: u64,
    /// The same, by the gateway.
    pub(super) asked: f64,
    /// Of these, given up before they were answered, or without an answer: they may not have arrived.
    pub(super) unanswered: f64,
    pub(super) retries: f64,
    pub(super) hedges: f64,
    /// Signatures of requests that failed, or whose nonce did.
    pub(super) unused: f64,
    /// Signatures that nobody waited for any more.
    pub(super) unclaimed: f64,
    /// Signatures that did not come.
    pub(super) fruitless: f64,
}

impl Ledger {
    /// Signs that were made for something new.
    fn first(&self) -> f64 {
        self.asked - self.retries - self.hedges - self.unused - self.unclaimed - self.fruitless
    }

    /// What is wrong, if these transactions and messages are all that was signed.
    pub(super) fn wrong(&self, transactions: u64, messages: u64) -> Vec<String> {
        let Self { arrived, asked, unanswered, retries, hedges, unused, unclaimed, fruitless } = self;
        let mut wrong = Vec::new();
        if (self.first() - (transactions + messages) as f64).abs() > 0.5 {
            wrong.push(format!(
                "{asked} Signs − {retries} retries − {hedges} hedges − {unused} unused − {unclaimed} unclaimed − {fruitless} fruitless are not \
                 {transactions} transactions + {messages} messages"
            ));
        }
        let lost = asked - *arrived as f64;
        if lost < -0.5 || lost > unanswered + 0.5 {
            wrong.push(format!("{arrived} Signs arrived at KMS, and {asked} were asked, of which {unanswered} had no answer"));
        }
        wrong
    }
}

/// As it is now.
pub(super) async fn ledger(world: &World) -> Result<Ledger, Failure> {
    let page = world.metrics().await?;
    Ok(Ledger {
        arrived: world.kms().calls("Sign").await?,
        asked: total(&page, "sluice_signs_total"),
        unanswered: ["dropped", "transient", "deadline"].map(|outcome| labelled(&page, "sluice_signs_total", outcome)).iter().sum(),
        retries: total(&page, "sluice_sign_retries_total"),
        hedges: total(&page, "sluice_sign_hedges_total"),
        unused: total(&page, "sluice_resigned_total"),
        unclaimed: total(&page, "sluice_sign_unclaimed_total"),
        fruitless: total(&page, "sluice_sign_fruitless_total"),
    })
}

/// Transactions and messages while KMS throttles, fails, breaks off, signs wrongly and is slow; then some of the requests again.
pub(super) async fn accounting(programs: &Programs, extent: Extent) -> Result<Report, Failure> {
    let plan = Plan::new(extent.seed, extent.keys, extent.quota, Delays::aws());
    let mut report = Report::new("accounting", plan.lines());
    report.configured.push(format!(
        "load: {TRANSACTIONS} transactions and {MESSAGES} messages at once; {REPEATED} of the transactions again; of 10000 Signs 200 each are \
         throttled, fail, are cut off, 100 have a bad signature"
    ));
    let load = machine_load();
    let world = World::start(programs, &plan).await?;
    let chance = |per_10000: u64, fault: Value| json!({ "of": "Sign", "per10000": per_10000, "fault": fault });
    let error = |code: &str, status: u64| json!({ "kind": "error", "status": status, "code": code, "message": "by plan" });
    let chances = [
        chance(200, error("ThrottlingException", 400)),
        chance(200, error("KMSInternalException", 500)),
        chance(200, json!({ "kind": "cutAfter" })),
        chance(100, json!({ "kind": "otherDigest" })),
    ];
    world.kms().steer("SetFaults", &json!({ "script": [], "chances": chances })).await?;

    let client = world.client().await?;
    let accounts = accounts(&client).await?;
    let transaction = |number: usize| {
        let from = &accounts[number % accounts.len()];
        let (value, key) = (format!("{number:#x}"), format!("payment-{number}"));
        client.start("eth_sendTransaction", json!([{ "from": from, "to": from, "value": value, "gas": "0x5208", "idempotencyKey": key }]))
    };
    let message = |number: usize| {
        let text = format!("0x{number:064x}");
        client.start("personal_sign", json!([text, accounts[number % accounts.len()]]))
    };
    let sent = join_all((0..TRANSACTIONS).map(transaction));
    let (sent, signed) = tokio::join!(sent, join_all((0..MESSAGES).map(message)));
    let sent: Vec<Told> = sent.into_iter().map(told).collect();
    let unsigned = signed.iter().filter(|answer| answer.is_err()).count();
    let before = ledger(&world).await?;
    let again: Vec<Told> = join_all((0..REPEATED).map(transaction)).await.into_iter().map(told).collect();
    let after = ledger(&world).await?;

    settled(world.node()).await?;
    report.wrong.extend(check(sent.iter(), &mined(world.node()).await?));
    if sent.iter().zip(&again).any(|(first, second)| first != second) {
        report.wrong.push("a repeated request was answered otherwise".into());
    }
    if unsigned > 0 {
        report.wrong.push(format!("{unsigned} messages were not signed"));
    }
    let hashes = sent.iter().filter(|told| matches!(told, Told::Hash(_))).count();
    report.wrong.extend(after.wrong(hashes as u64, (MESSAGES - unsigned) as u64));
    report.configured.push(machine(&load));
    report.tell("Signs, by the gateway", after.asked, "");
    report.tell("Signs, by KMS", after.arrived as f64, "");
    report.tell("of these, retries", after.retries, "");
    report.tell("of these, hedges", after.hedges, "");
    report.tell("of these, not used", after.unused, "");
    report.tell("of these, not claimed", after.unclaimed, "");
    report.tell("of these, for nothing", after.fruitless, "");
    report.tell("transactions", hashes as f64, "");
    report.tell("messages", (MESSAGES - unsigned) as f64, "");
    report.hold("Signs that repeated requests have cost", (after.arrived - before.arrived) as f64, "", Bound::AtMost(0.0));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signs_of_a_ledger_are_what_was_asked_for_and_what_was_asked_again() {
        let (unused, unclaimed, fruitless) = (1.0, 2.0, 4.0);
        let ledger = Ledger { arrived: 119, asked: 120.0, unanswered: 1.0, retries: 3.0, hedges: 5.0, unused, unclaimed, fruitless };
        assert_eq!(ledger.wrong(100, 5), Vec::<String>::new());
        assert!(ledger.wrong(101, 5).len() == 1 && ledger.wrong(99, 5).len() == 1);
        for arrived in [118, 121] {
            assert_eq!(Ledger { arrived, ..ledger }.wrong(100, 5).len(), 1, "{arrived}");
        }
    }
}
