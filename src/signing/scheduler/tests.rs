use std::sync::atomic::Ordering as Atomic;

use super::*;
use crate::signing::testing::{Act, ScriptedStore};
use crate::signing::{KeyState, KeyStore};

struct Setup {
    scheduler: Scheduler,
    store: Arc<ScriptedStore>,
    key: Arc<Key>,
    metrics: Arc<Metrics>,
}

fn set_up(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Setup {
    limited(SignLimits::default(), TICKETS, script)
}

fn windows(window: usize, window_per_key: usize) -> SignLimits {
    SignLimits { window, window_per_key, ..SignLimits::default() }
}

fn limited(limits: SignLimits, tickets: usize, script: impl Fn(usize) -> Act + Send + Sync + 'static) -> Setup {
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2), ("a@west", 1)], script);
    let scheduler = Scheduler::with_tickets(HashMap::from([("test".to_owned(), limits)]), metrics.clone(), tickets, TICKETS_OF_KEY);
    Setup { scheduler, key: store.key("a"), store, metrics }
}

fn digest(n: u64) -> B256 {
    B256::left_padding_from(&n.to_be_bytes())
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn class(result: Result<Signature, KeyStoreError>) -> SignClass {
    result.unwrap_err().class
}

#[tokio::test(start_paused = true)]
async fn a_signature_comes_verified_and_counted() {
    let t = set_up(|_| Act::Sign);
    let signature = t.scheduler.sign(&t.key, digest(1), 0).await.unwrap();
    assert_eq!(signature.recover_address_from_prehash(&digest(1)).unwrap(), t.key.address());
    assert_eq!(t.metrics.signing.signs.with_label_values(&["test", "ok"]).get(), 1);
    assert_eq!(t.metrics.signing.seconds.with_label_values(&["test", "ok"]).get_sample_count(), 1);
    assert_eq!((t.metrics.signing.in_flight.get(), t.metrics.signing.retries.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lowest_nonce_goes_first() {
    let t = limited(windows(512, 1), TICKETS, |_| Act::Gated);
    let tickets: Vec<_> = [9, 7, 5, 8, 6].map(|n| t.scheduler.sign(&t.key, digest(n), n)).into();
    t.store.gate.add_permits(5);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(t.store.digests(), [5, 6, 7, 8, 9].map(digest));
}

#[tokio::test(start_paused = true)]
async fn many_signs_of_one_key_are_in_flight_up_to_the_bounds() {
    let t = limited(windows(10, 8), TICKETS, |_| Act::Gated);
    let other = t.store.key("b");
    let tickets: Vec<_> = (0..20).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    settle().await;
    assert_eq!(t.store.digests().len(), 8);
    assert_eq!((t.metrics.signing.in_flight.get(), t.metrics.signing.waiting.get()), (8, 12));
    let others: Vec<_> = (100..110).map(|n| t.scheduler.sign(&other, digest(n), n)).collect();
    settle().await;
    assert_eq!(t.store.digests().len(), 10);
    t.store.gate.add_permits(30);
    for ticket in tickets.into_iter().chain(others) {
        ticket.await.unwrap();
    }
    assert_eq!(t.store.most_in_flight.load(Atomic::SeqCst), 10);
}

#[tokio::test(start_paused = true)]
async fn the_same_digest_of_a_key_is_one_sign() {
    let t = set_up(|_| Act::Gated);
    let other = t.store.key("b");
    let first = t.scheduler.sign(&t.key, digest(1), 3);
    let second = t.scheduler.sign(&t.key, digest(1), 3);
    let of_another_key = t.scheduler.sign(&other, digest(1), 3);
    settle().await;
    let third = t.scheduler.sign(&t.key, digest(1), 3);
    drop(second);
    t.store.gate.add_permits(2);
    let (first, third) = (first.await.unwrap(), third.await.unwrap());
    assert_eq!(first, third);
    assert_ne!(of_another_key.await.unwrap(), first);
    assert_eq!(t.store.digests().len(), 2);
    // Once answered it is history: asked again, it is signed again.
    t.store.gate.add_permits(1);
    t.scheduler.sign(&t.key, digest(1), 3).await.unwrap();
    assert_eq!(t.store.digests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_shared_call_takes_the_lower_nonce() {
    let t = limited(windows(9, 1), TICKETS, |_| Act::Gated);
    let tickets: Vec<_> = [(0, 0), (5, 5), (9, 9), (9, 1)].map(|(n, order)| t.scheduler.sign(&t.key, digest(n), order)).into();
    t.store.gate.add_permits(3);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(t.store.digests(), [0, 9, 5].map(digest));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_takes_back_what_was_not_issued() {
    let t = limited(windows(9, 1), 3, |_| Act::Gated);
    let issued = t.scheduler.sign(&t.key, digest(1), 1);
    settle().await;
    let waiting = t.scheduler.sign(&t.key, digest(2), 2);
    let kept = t.scheduler.sign(&t.key, digest(3), 3);
    assert_eq!(class(t.scheduler.sign(&t.key, digest(4), 4).await), SignClass::Throttled);
    drop(issued);
    drop(waiting);
    settle().await;
    // Their room is free again.
    let after = t.scheduler.sign(&t.key, digest(5), 5);
    t.store.gate.add_permits(3);
    kept.await.unwrap();
    after.await.unwrap();
    assert_eq!(t.store.digests(), [1, 3, 5].map(digest));
}

#[tokio::test(start_paused = true)]
async fn passing_faults_are_asked_again_inside_the_deadline() {
    let t = set_up(|n| match n {
        0 | 2 => Act::Fail(SignClass::Throttled),
        1 => Act::Fail(SignClass::Transient),
        3 => Act::Lie,
        _ => Act::Sign,
    });
    t.scheduler.sign(&t.key, digest(1), 0).await.unwrap();
    assert_eq!(t.store.digests(), [digest(1); 5]);
    assert_eq!(t.metrics.signing.retries.get(), 4);
    let outcomes = ["ok", "throttled", "transient", "bad_signature"]
        .map(|outcome| t.metrics.signing.signs.with_label_values(&["test", outcome]).get());
    assert_eq!(outcomes, [1, 2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn other_faults_are_final() {
    for fault in [SignClass::KeyDown, SignClass::Credentials, SignClass::Configuration] {
        let t = set_up(move |_| Act::Fail(fault));
        assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 0).await), fault);
        assert_eq!(t.store.digests().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_signature_is_asked_again_twice() {
    let t = set_up(|_| Act::Lie);
    let error = t.scheduler.sign(&t.key, digest(1), 0).await.unwrap_err();
    assert_eq!(error.class, SignClass::BadSignature);
    assert_eq!(t.store.digests().len(), 3);
    assert_eq!(t.metrics.signing.retries.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_retries_hangs_and_waits() {
    let t = set_up(|_| Act::Fail(SignClass::Throttled));
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 0).await), SignClass::Throttled);
    assert!(t.store.digests().len() > 2);

    let t = set_up(|_| Act::Fail(SignClass::Transient));
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 0).await), SignClass::Deadline);

    let t = limited(windows(9, 1), TICKETS, |_| Act::Hang);
    let hangs = t.scheduler.sign(&t.key, digest(1), 0);
    let waits = t.scheduler.sign(&t.key, digest(2), 1);
    assert_eq!((class(hangs.await), class(waits.await)), (SignClass::Deadline, SignClass::Deadline));
    assert_eq!(t.store.digests(), [digest(1)]);
    settle().await;
    assert_eq!(t.metrics.signing.in_flight.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_joins_later_has_a_deadline_of_his_own() {
    let t = set_up(|n| if n == 0 { Act::Hang } else { Act::Sign });
    let first = t.scheduler.sign(&t.key, digest(1), 0);
    settle().await;
    tokio::time::advance(DEADLINE / 2).await;
    let second = t.scheduler.sign(&t.key, digest(1), 0);
    assert_eq!(class(first.await), SignClass::Deadline);
    second.await.unwrap();
    assert_eq!(t.store.digests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_sign_alone() {
    let t = set_up(|n| if n == 0 { Act::Panic } else { Act::Gated });
    let panics = t.scheduler.sign(&t.key, digest(1), 0);
    let lives = t.scheduler.sign(&t.key, digest(2), 1);
    assert_eq!(class(panics.await), SignClass::Transient);
    t.store.gate.add_permits(2);
    lives.await.unwrap();
    t.scheduler.sign(&t.key, digest(1), 0).await.unwrap();
    assert_eq!(t.metrics.signing.in_flight.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_timed_from_the_ticket_to_the_first_sign_and_not_again_for_a_retry() {
    let script = |n| if n == 0 { Act::Fail(SignClass::Transient) } else { Act::Take(Duration::from_secs(2)) };
    let t = limited(windows(512, 1), TICKETS, script);
    let tickets = [1, 2].map(|n| t.scheduler.sign(&t.key, digest(n), n));
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let queue = t.metrics.signing.queue_seconds.with_label_values(&["test"]);
    // The first is asked at once, the second while the first rests or once it is done; two seconds each.
    assert_eq!((queue.get_sample_count(), t.metrics.signing.retries.get()), (2, 1));
    assert!(queue.get_sample_sum() < 2.5, "{}", queue.get_sample_sum());
    assert_eq!(t.metrics.signing.seconds.with_label_values(&["test", "ok"]).get_sample_sum(), 4.0);
    assert_eq!(t.metrics.signing.waiting.get(), 0);
}

/// Asks for `each` signatures of two keys at once and counts the Signs of the first second.
async fn first_second(rate: Option<u32>, rate_per_key: Option<u32>, each: u64) -> [usize; 2] {
    let limits = SignLimits {
        rate: rate.and_then(NonZeroU32::new),
        rate_per_key: rate_per_key.and_then(NonZeroU32::new),
        deadline: Duration::from_secs(60),
        ..SignLimits::default()
    };
    let t = limited(limits, TICKETS, |_| Act::Take(Duration::from_millis(20)));
    let other = t.store.key("b");
    let tickets: Vec<_> =
        (0..each).flat_map(|n| [t.scheduler.sign(&t.key, digest(n), n), t.scheduler.sign(&other, digest(n), n)]).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let signs = t.store.signs.lock().unwrap().clone();
    let counts = ["a", "b"].map(|name| signs.iter().filter(|(arn, _)| &*arn.0 == name).count());
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(t.store.digests().len() as u64, 2 * each);
    counts
}

#[tokio::test(start_paused = true)]
async fn both_ceilings_hold_and_keys_share_the_groups_fairly() {
    for count in first_second(None, Some(100), 300).await {
        assert!((95..=111).contains(&count), "{count}");
    }
    let [a, b] = first_second(Some(100), None, 150).await;
    assert!((95..=111).contains(&(a + b)), "{a} {b}");
    assert!(a.abs_diff(b) <= 1, "{a} {b}");
    let [a, b] = first_second(Some(100), Some(1000), 150).await;
    assert!((95..=111).contains(&(a + b)), "{a} {b}");
    assert!(a.abs_diff(b) <= 1, "{a} {b}");
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_answered_after_the_last_handle_is_gone() {
    let t = set_up(|_| Act::Take(Duration::from_millis(5)));
    let tickets: Vec<_> = (0..5).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    drop(t.scheduler);
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[test]
fn limits_come_from_the_configuration() {
    let local = Configuration { name: "dev".to_owned(), provider: Provider::Development { accounts: 1 } };
    assert_eq!(SignLimits::of(&local), SignLimits::default());
    let n = |n| NonZeroU32::new(n).unwrap();
    let kms = crate::config::AwsKms {
        region: "us-east-1".to_owned(),
        endpoint: None,
        sts_endpoint: None,
        use_fips: false,
        use_dual_stack: false,
        credentials: None,
        role: None,
        account_id: None,
        warm_connections: 16,
        sign_rate: n(500),
        sign_rate_per_key: n(50),
        sign_window: 2000,
        sign_window_per_key: 1000,
        sign_hedge: true,
        sign_deadline: Duration::from_secs(3),
        refresh: Duration::ZERO,
    };
    let limits = SignLimits::of(&Configuration { name: "kms".to_owned(), provider: Provider::AwsKms(Box::new(kms)) });
    let (rate, rate_per_key, deadline) = (Some(n(500)), Some(n(50)), Duration::from_secs(3));
    assert_eq!(limits, SignLimits { rate, rate_per_key, window: 2000, window_per_key: 1000, hedge: true, deadline });
}

#[tokio::test]
async fn another_arn_than_the_pinned_one_is_a_bad_signature() {
    let t = set_up(|_| Act::Sign);
    // The store answers as "b" with b's key, the holder says "b", and the pinned key is a's.
    let pinned = (*t.key.pinned()).clone();
    let store: Arc<dyn KeyStore> = t.store.clone();
    let holder =
        crate::signing::Holder { arn: crate::signing::KeyArn("b".into()), configuration: "test".into(), store, state: KeyState::Enabled };
    let key = Arc::new(Key::new(pinned, holder));
    assert_eq!(class(t.scheduler.sign(&key, digest(1), 0).await), SignClass::BadSignature);
}

mod failover;
mod throttling;

#[tokio::test(start_paused = true)]
async fn one_key_does_not_take_the_room_of_the_others() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = ScriptedStore::new(&[("a", 1), ("b", 2)], |_| Act::Gated);
    let scheduler = Scheduler::with_tickets(HashMap::from([("test".to_owned(), windows(9, 1))]), metrics, 10, 3);
    let (flooded, other) = (store.key("a"), store.key("b"));
    // Two of them share a Sign: they are tickets all the same.
    let mut tickets: Vec<_> = [1, 2, 2].map(|n| scheduler.sign(&flooded, digest(n), n)).into();
    settle().await;
    assert_eq!(class(scheduler.sign(&flooded, digest(3), 3).await), SignClass::Throttled);
    tickets.push(scheduler.sign(&other, digest(4), 4));
    // What is given up and what is answered makes room again.
    drop(tickets.remove(1));
    settle().await;
    tickets.push(scheduler.sign(&flooded, digest(5), 5));
    settle().await;
    assert_eq!(class(scheduler.sign(&flooded, digest(6), 6).await), SignClass::Throttled);
    store.gate.add_permits(10);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let again: Vec<_> = (7..10).map(|n| scheduler.sign(&flooded, digest(n), n)).collect();
    for ticket in again {
        ticket.await.unwrap();
    }
}
