//! Keys that are down, and replicas.

use super::*;
use crate::signing::Holder;

fn disabled() -> KeyState {
    KeyState::Unusable("Disabled".to_owned())
}

fn open_breakers(t: &Setup) -> i64 {
    t.metrics.signing.breakers_open.with_label_values(&["test"]).get()
}

#[tokio::test(start_paused = true)]
async fn a_disabled_key_fails_closed_and_comes_back_by_itself() {
    let t = limited(windows(512, 1), TICKETS, |_| Act::Take(Duration::from_millis(10)));
    t.scheduler.sign(&t.key, digest(0), 0).await.unwrap();
    t.store.set("a", disabled());
    // What waits behind the first fails with it, unasked; so does everything that comes.
    let tickets: Vec<_> = (1..5).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    for ticket in tickets {
        assert_eq!(class(ticket.await), SignClass::KeyDown);
    }
    assert_eq!(class(t.scheduler.sign(&t.key, digest(9), 9).await), SignClass::KeyDown);
    assert_eq!(t.store.digests().len(), 2);
    assert_eq!((t.key.usable(), open_breakers(&t)), (Err(SignClass::KeyDown), 1));

    tokio::time::sleep(Duration::from_secs(200)).await;
    let probes = t.store.probes.load(Atomic::SeqCst);
    assert!((8..=20).contains(&probes), "ever later: {probes}");
    assert_eq!(t.store.digests().len(), 2, "it is probed, not asked to sign");

    t.store.set("a", KeyState::Enabled);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!((t.key.usable(), open_breakers(&t)), (Ok(()), 0));
    t.scheduler.sign(&t.key, digest(9), 9).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_is_asked_again() {
    let t = set_up(|_| Act::Sign);
    t.store.set("a", disabled());
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 1).await), SignClass::KeyDown);
    t.store.panicking_probes.store(2, Atomic::SeqCst);
    t.store.set("a", KeyState::Enabled);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((t.store.panicking_probes.load(Atomic::SeqCst), t.key.usable(), open_breakers(&t)), (0, Ok(()), 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_discovery_found_down_is_probed_after_it_was_asked_and_believed_when_found_up() {
    let t = set_up(|_| Act::Sign);
    let arn = t.key.holder().unwrap().arn;
    t.store.set("a", disabled());
    t.key.set_state(&arn, &disabled());
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 1).await), SignClass::KeyDown);
    assert_eq!((t.store.digests().len(), open_breakers(&t)), (0, 1));
    let probes = || t.store.probes.load(Atomic::SeqCst);
    assert_eq!(probes(), 0, "not yet");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let probed = probes();
    assert!(probed > 0 && open_breakers(&t) == 1, "probed while nobody signs, and still down");
    // Enabled, and discovery sees it before the next probe.
    t.store.set("a", KeyState::Enabled);
    t.key.set_state(&arn, &KeyState::Enabled);
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((open_breakers(&t), probes()), (0, probed));
}

#[tokio::test(start_paused = true)]
async fn what_opened_the_breaker_is_what_calls_are_told() {
    for fault in [SignClass::Credentials, SignClass::Configuration] {
        let t = set_up(move |n| if n == 0 { Act::Fail(fault) } else { Act::Sign });
        for n in 0..3 {
            assert_eq!(class(t.scheduler.sign(&t.key, digest(n), n).await), fault);
        }
        assert_eq!((t.store.digests().len(), t.key.usable()), (1, Ok(())));
        tokio::time::sleep(Duration::from_secs(2)).await;
        t.scheduler.sign(&t.key, digest(9), 9).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_for_a_whole_deadline_fails_calls_at_once_until_it_answers() {
    let t = set_up(|n| if n < 60 { Act::Fail(SignClass::Transient) } else { Act::Sign });
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 1).await), SignClass::Deadline);
    let second = t.scheduler.sign(&t.key, digest(2), 2);
    let start = tokio::time::Instant::now();
    assert_eq!(class(second.await), SignClass::Transient);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((open_breakers(&t), t.key.usable()), (1, Ok(())));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(open_breakers(&t), 0, "the probe was answered");
}

#[tokio::test(start_paused = true)]
async fn a_replica_signs_while_the_first_holder_is_down() {
    let t = set_up(|_| Act::Take(Duration::from_millis(10)));
    let key = t.store.key_with("a", "a@west");
    t.scheduler.sign(&key, digest(0), 0).await.unwrap();
    assert_eq!(t.store.signs_by(["a", "a@west"]), [1, 0]);
    t.store.set("a", disabled());
    // Calls in flight by the first holder are asked of the other one.
    let tickets: Vec<_> = (1..5).map(|n| t.scheduler.sign(&key, digest(n), n)).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!((t.store.signs_by(["a", "a@west"]), t.metrics.signing.retries.get()), ([5, 4], 4));
    assert_eq!(key.usable(), Ok(()));
    t.scheduler.sign(&key, digest(5), 5).await.unwrap();
    assert_eq!(t.store.signs_by(["a", "a@west"]), [5, 5]);
    t.store.set("a", KeyState::Enabled);
    tokio::time::sleep(Duration::from_secs(5)).await;
    t.scheduler.sign(&key, digest(6), 6).await.unwrap();
    assert_eq!(t.store.signs_by(["a", "a@west"]), [6, 5], "the first holder is the first again");
}

#[tokio::test(start_paused = true)]
async fn passing_faults_in_a_row_send_calls_to_the_replica() {
    let limits = SignLimits { window_per_key: 1, ..SignLimits::default() };
    let t = limited(limits, TICKETS, |n| if n < 5 { Act::Fail(SignClass::Transient) } else { Act::Sign });
    let key = t.store.key_with("a", "a@west");
    for n in 0..3 {
        t.scheduler.sign(&key, digest(n), n).await.unwrap();
    }
    assert_eq!(t.store.signs_by(["a", "a@west"])[0], 5);
}

#[tokio::test(start_paused = true)]
async fn a_replica_adds_its_quota_for_the_same_key() {
    let limits = SignLimits {
        rate: NonZeroU32::new(100),
        rate_per_key: NonZeroU32::new(100),
        deadline: Duration::from_secs(60),
        ..SignLimits::default()
    };
    let t = limited(limits, TICKETS, |_| Act::Take(Duration::from_millis(20)));
    let key = t.store.key_with("a", "a@west");
    let tickets: Vec<_> = (0..1000).map(|n| t.scheduler.sign(&key, digest(n), n)).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [first, replica] = t.store.signs_by(["a", "a@west"]);
    assert!((190..=210).contains(&first) && (190..=210).contains(&replica), "{first} {replica}");
    for ticket in tickets {
        ticket.await.unwrap();
    }
    // One alone has room for what is asked slowly.
    let before = t.store.signs_by(["a@west"]);
    for n in 1000..1010 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        t.scheduler.sign(&key, digest(n), n).await.unwrap();
    }
    assert_eq!(t.store.signs_by(["a@west"]), before);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_joins_later_is_used() {
    let t = set_up(|_| Act::Sign);
    t.store.set("a", disabled());
    assert_eq!(class(t.scheduler.sign(&t.key, digest(1), 1).await), SignClass::KeyDown);
    let holder: Holder = t.store.holder("a@west");
    let spki = crate::signing::testing::spki(&t.store.keys[&holder.arn]);
    t.key.admit(holder, &spki).unwrap().join();
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert_eq!(t.store.signs_by(["a", "a@west"]), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_sign_that_its_callers_deadline_cut_short_is_no_fault_of_the_holder() {
    // The second half is asked a tenth of a second before its deadline.
    let t = limited(windows(512, 6), TICKETS, |n| if n < 6 { Act::Take(DEADLINE - Duration::from_millis(100)) } else { Act::Hang });
    let key = t.store.key_with("a", "a@west");
    let tickets: Vec<_> = (0..12).map(|n| t.scheduler.sign(&key, digest(n), n)).collect();
    let answers = futures_util::future::join_all(tickets).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 6);
    settle().await;
    assert_eq!((t.store.digests().len(), open_breakers(&t)), (12, 0));
}
