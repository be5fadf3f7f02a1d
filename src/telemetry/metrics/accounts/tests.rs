use std::collections::BTreeSet;

use super::*;
use crate::telemetry::metrics::Metrics;

fn address(number: usize) -> Address {
    Address::left_padding_from(&(number as u64 + 1).to_be_bytes())
}

fn busy(number: usize) -> AccountView {
    AccountView {
        active: true,
        queued: number,
        signing: 1,
        unsent: 2,
        in_flight: 3,
        window: 64,
        next_nonce: 1_000 + number as u64,
        ..AccountView::default()
    }
}

/// The same account, idle.
fn idle(number: usize) -> AccountView {
    AccountView { window: 64, next_nonce: 1_000 + number as u64, ..AccountView::default() }
}

struct Setup {
    metrics: Metrics,
    began: Instant,
    meters: Vec<AccountMeter>,
}

impl Setup {
    fn new(accounts: usize) -> Self {
        let (metrics, began) = (Metrics::new().unwrap(), Instant::now());
        let meters = (0..accounts).map(|number| metrics.accounts.meter("dev", address(number))).collect();
        Self { metrics, began, meters }
    }

    fn minutes(&self, minutes: u64) -> Instant {
        self.began + Duration::from_secs(60 * minutes)
    }

    /// Lines of the page that have an account's label.
    fn lines(&self) -> Vec<String> {
        let text = self.metrics.render().unwrap();
        text.lines().filter(|line| line.contains("account=\"")).map(str::to_owned).collect()
    }

    fn labels(&self) -> BTreeSet<String> {
        self.lines().iter().map(|line| line.split("account=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect()
    }

    fn value(&self, name: &str, account: &str) -> Option<i64> {
        let start = format!("{name}{{account=\"{account}\",environment=\"dev\"}} ");
        self.lines().iter().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }
}

#[test]
fn a_thousand_accounts_have_the_series_of_a_hundred_and_one() {
    let mut t = Setup::new(1_000);
    assert_eq!(t.labels(), [OTHER.to_owned()].into(), "who does nothing has no series");
    for (number, meter) in t.meters.iter_mut().enumerate() {
        meter.request(t.began);
        meter.show(&busy(number), t.began);
    }
    let labels = t.labels();
    let expected: BTreeSet<String> = (0..PLACES).map(|number| address(number).to_string()).chain([OTHER.to_owned()]).collect();
    assert_eq!(labels, expected, "the first hundred");
    // One counter, seven amounts, and a nonce for all but the others.
    assert_eq!(t.lines().len(), (1 + AMOUNTS) * (PLACES + 1) + PLACES);
    assert_eq!(t.value("sluice_account_next_nonce", OTHER), None);
    assert_eq!(t.value("sluice_account_next_nonce", &address(7).to_string()), Some(1_007));
    assert_eq!(t.value("sluice_account_queued", &address(7).to_string()), Some(7));
    assert_eq!(t.value("sluice_account_queued", OTHER), Some((100..1_000).sum()));
    assert_eq!(t.value("sluice_account_in_flight", OTHER), Some(3 * 900));
    assert_eq!(t.value("sluice_account_requests_total", OTHER), Some(900));
    assert_eq!(t.value("sluice_account_requests_total", &address(99).to_string()), Some(1));
}

#[test]
fn an_idle_hour_frees_a_place_and_removes_its_series() {
    let mut t = Setup::new(101);
    for (number, meter) in t.meters.iter_mut().enumerate() {
        meter.show(&busy(number), t.began);
    }
    let [first, second, last] = [0, 1, 100].map(|number| address(number).to_string());
    // The first falls idle and keeps its place; the others go on.
    for minute in [30, 59] {
        let now = t.minutes(minute);
        t.meters[0].show(&idle(0), now);
        for number in 1..101 {
            t.meters[number].show(&busy(number), now);
        }
        t.metrics.accounts.sweep(now);
    }
    assert_eq!(t.value("sluice_account_queued", &first), Some(0));
    assert_eq!(t.value("sluice_account_next_nonce", &first), Some(1_000), "idle, but still there");
    assert_eq!((t.value("sluice_account_queued", &last), t.value("sluice_account_queued", OTHER)), (None, Some(100)));

    let now = t.minutes(60);
    t.metrics.accounts.sweep(now);
    assert!(!t.labels().contains(&first), "an hour is over");
    t.meters[100].show(&busy(100), now);
    assert_eq!(t.value("sluice_account_queued", &last), Some(100), "the next active one takes the place");
    assert_eq!(t.value("sluice_account_queued", OTHER), Some(0), "and is no other any more");
    assert_eq!(t.value("sluice_account_queued", &second), Some(1));

    // Back again, it is one of the others, since all places are taken.
    t.meters[0].request(now);
    t.meters[0].show(&busy(0), now);
    assert!(!t.labels().contains(&first));
    assert_eq!(t.value("sluice_account_in_flight", OTHER), Some(3));
    assert_eq!(t.lines().len(), (1 + AMOUNTS) * (PLACES + 1) + PLACES);
    t.meters[0].show(&idle(0), now);
    assert_eq!((t.value("sluice_account_in_flight", OTHER), t.value("sluice_account_window", OTHER)), (Some(0), Some(0)));
}

#[test]
fn an_account_that_comes_back_after_its_place_was_taken_away_gets_series_with_its_values() {
    let mut t = Setup::new(1);
    let account = address(0).to_string();
    let began = t.began;
    t.meters[0].show(&busy(5), began);
    t.meters[0].show(&idle(5), began);
    let (back, soon) = (t.minutes(61), t.minutes(62));
    t.metrics.accounts.sweep(back);
    assert_eq!(t.value("sluice_account_queued", &account), None);
    t.meters[0].show(&idle(5), back);
    assert_eq!(t.value("sluice_account_queued", &account), None, "idle accounts ask for no place");
    t.meters[0].request(soon);
    t.meters[0].show(&busy(6), soon);
    assert_eq!(t.value("sluice_account_queued", &account), Some(6));
    assert_eq!(t.value("sluice_account_next_nonce", &account), Some(1_006));
    assert_eq!(t.value("sluice_account_requests_total", &account), Some(1));
}

#[test]
fn a_task_that_ends_takes_its_values_with_it_and_the_next_one_has_the_same_place() {
    let mut t = Setup::new(101);
    for (number, meter) in t.meters.iter_mut().enumerate() {
        meter.request(t.began);
        meter.show(&busy(number), t.began);
    }
    let [own, other] = [40, 100].map(|number| address(number).to_string());
    drop(t.meters.drain(..));
    assert_eq!(t.value("sluice_account_queued", &own), Some(0));
    assert_eq!((t.value("sluice_account_queued", OTHER), t.value("sluice_account_window", OTHER)), (Some(0), Some(0)));

    // The new task of the first finds nothing to do, and shows it all the same: its place is still its own.
    let mut again = t.metrics.accounts.meter("dev", address(40));
    again.show(&idle(41), t.began);
    assert_eq!(t.value("sluice_account_window", &own), Some(64));
    assert_eq!(t.value("sluice_account_next_nonce", &own), Some(1_041));
    again.show(&busy(3), t.began);
    assert_eq!(t.value("sluice_account_queued", &own), Some(3));
    assert_eq!(t.value("sluice_account_requests_total", &own), Some(1), "counters go on");

    let mut again = t.metrics.accounts.meter("dev", address(100));
    again.show(&busy(9), t.began);
    assert_eq!((t.value("sluice_account_queued", &other), t.value("sluice_account_queued", OTHER)), (None, Some(9)));
}

#[test]
fn one_address_in_two_environments_is_two_accounts() {
    let metrics = Metrics::new().unwrap();
    let now = Instant::now();
    let mut one = metrics.accounts.meter("one", address(0));
    let mut two = metrics.accounts.meter("two", address(0));
    one.show(&busy(1), now);
    two.show(&busy(2), now);
    let text = metrics.render().unwrap();
    for (environment, queued) in [("one", 1), ("two", 2)] {
        let line = format!("sluice_account_queued{{account=\"{}\",environment=\"{environment}\"}} {queued}\n", address(0));
        assert!(text.contains(&line), "{text}");
    }
}
