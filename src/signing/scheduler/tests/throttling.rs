//! Throttled Signs, and those that take long.

use std::sync::Mutex;

use super::*;
use crate::signing::QuotaGroup;

fn rate(n: u32) -> SignLimits {
    SignLimits { rate: NonZeroU32::new(n), deadline: Duration::from_secs(30), ..SignLimits::default() }
}

fn outcome(t: &Setup, outcome: &str) -> u64 {
    t.metrics.signing.signs.with_label_values(&["test", outcome]).get()
}

#[tokio::test(start_paused = true)]
async fn throttling_costs_time_alone_and_goes_back_to_the_front() {
    let mut limits = rate(100);
    limits.window_per_key = 1;
    let t = limited(limits, TICKETS, |n| if n < 3 { Act::Fail(SignClass::Throttled) } else { Act::Take(Duration::from_millis(1)) });
    let tickets: Vec<_> = [5, 6, 7].map(|n| t.scheduler.sign(&t.key, digest(n), n)).into();
    let start = tokio::time::Instant::now();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(t.store.digests(), [5, 5, 5, 5, 6, 7].map(digest));
    // No rests that grow: six Signs at a pace of 100/s and a little less.
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!((t.metrics.signing.retries.get(), outcome(&t, "throttled"), outcome(&t, "ok")), (3, 3, 3));
    assert_eq!(t.metrics.signing.throttled.with_label_values(&["1/test"]).get(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_pace_is_shown_and_comes_back() {
    let throttled = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let t = limited(rate(20), TICKETS, {
        let throttled = Arc::clone(&throttled);
        move |_| if throttled.load(Atomic::SeqCst) { Act::Fail(SignClass::Throttled) } else { Act::Sign }
    });
    let pace = || t.metrics.signing.pace.with_label_values(&["1/test"]).get();
    let first = t.scheduler.sign(&t.key, digest(0), 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(pace() < 10.0, "{}", pace());
    assert_eq!(t.metrics.signing.rate.with_label_values(&["1/test"]).get(), 20.0);
    throttled.store(false, Atomic::SeqCst);
    first.await.unwrap();
    for n in 1..500 {
        t.scheduler.sign(&t.key, digest(n), n).await.unwrap();
    }
    assert_eq!(pace(), 20.0);
    let headroom = || t.metrics.signing.headroom.with_label_values(&["1/test"]).get();
    assert!(headroom() < 2.0, "{}", headroom());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(headroom() > 19.0, "{}", headroom());
    let window = |family: &prometheus::IntGaugeVec| family.with_label_values(&["1/test"]).get();
    assert_eq!((window(&t.metrics.signing.in_window), window(&t.metrics.signing.window)), (0, 512));
}

/// A set-up whose Signs take 10 ms, but for those that are given; after enough of them to know how long they take.
async fn warmed(hedge: bool, slow: impl Fn(usize) -> Option<Act> + Send + Sync + 'static) -> Setup {
    let t = limited(SignLimits { hedge, ..rate(1000) }, TICKETS, move |n| slow(n).unwrap_or(Act::Take(Duration::from_millis(10))));
    for n in 0..200 {
        t.scheduler.sign(&t.key, digest(1000 + n), n).await.unwrap();
    }
    t
}

fn hedges(t: &Setup) -> [u64; 3] {
    ["won", "lost", "failed"].map(|outcome| t.metrics.signing.hedges.with_label_values(&[outcome]).get())
}

#[tokio::test(start_paused = true)]
async fn a_sign_that_takes_long_is_asked_again_and_the_first_answer_wins() {
    let t = warmed(true, |n| (n == 200).then_some(Act::Hang)).await;
    let start = tokio::time::Instant::now();
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(40), "{:?}", start.elapsed());
    settle().await;
    assert_eq!((hedges(&t), outcome(&t, "dropped"), outcome(&t, "ok")), ([1, 0, 0], 1, 201));
    assert_eq!((t.metrics.signing.in_flight.get(), t.metrics.signing.retries.get()), (0, 0));

    let t = warmed(true, |n| match n {
        200 => Some(Act::Take(Duration::from_millis(20))),
        201 => Some(Act::Hang),
        _ => None,
    })
    .await;
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    settle().await;
    assert_eq!((hedges(&t), outcome(&t, "dropped"), outcome(&t, "ok")), ([0, 1, 0], 1, 201));
    // Its place in the windows is free again.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(t.metrics.signing.in_window.with_label_values(&["1/test"]).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_sign_that_fails_changes_nothing() {
    let t = warmed(true, |n| match n {
        200 => Some(Act::Take(Duration::from_millis(500))),
        201 => Some(Act::Fail(SignClass::Transient)),
        _ => None,
    })
    .await;
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert_eq!((hedges(&t), t.metrics.signing.retries.get(), outcome(&t, "transient")), ([0, 0, 1], 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_bad_signature_is_asked_again_in_its_turn_and_not_beside() {
    let t = warmed(true, |n| (n == 200).then_some(Act::Lie)).await;
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert_eq!((hedges(&t), t.metrics.signing.retries.get()), ([0, 0, 0], 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_twice_if_it_is_switched_off_or_the_quota_is_short() {
    let take = |ms| Some(Act::Take(Duration::from_millis(ms)));
    let t = warmed(false, move |n| take(if n == 200 { 500 } else { 10 })).await;
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert_eq!(hedges(&t), [0, 0, 0], "switched off");

    // Throttled: the pace is shrunk.
    let t =
        warmed(true, move |n| if n == 200 { Some(Act::Fail(SignClass::Throttled)) } else { take(if n == 201 { 500 } else { 10 }) }).await;
    t.scheduler.sign(&t.key, digest(1), 1).await.unwrap();
    assert_eq!(hedges(&t), [0, 0, 0], "the pace is shrunk");

    // More than 70 % of the rate in use.
    let slow = |n| Act::Take(Duration::from_millis(if n > 200 && n % 20 == 0 { 500 } else { 10 }));
    let t = limited(SignLimits { hedge: true, ..rate(200) }, TICKETS, slow);
    let tickets: Vec<_> = (0..800).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let before = hedges(&t);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(hedges(&t), before, "the quota is in use");
}

#[tokio::test(start_paused = true)]
async fn one_sign_in_fifty_is_asked_twice_at_most() {
    let t = warmed(true, |n| (n % 25 == 0).then_some(Act::Take(Duration::from_millis(60)))).await;
    for n in 0..2000 {
        t.scheduler.sign(&t.key, digest(n), n).await.unwrap();
    }
    let sum = hedges(&t).iter().sum::<u64>();
    assert!((10..=44).contains(&sum), "{sum}");
}

#[tokio::test(start_paused = true)]
async fn a_second_sign_goes_by_a_replica() {
    let t = warmed(true, |n| (n == 400).then_some(Act::Hang)).await;
    let key = t.store.key_with("a", "a@west");
    for n in 0..200 {
        t.scheduler.sign(&key, digest(5000 + n), n).await.unwrap();
    }
    assert_eq!(t.store.signs_by(["a", "a@west"]), [400, 0]);
    t.scheduler.sign(&key, digest(1), 1).await.unwrap();
    assert_eq!((t.store.signs_by(["a", "a@west"]), hedges(&t)), ([401, 1], [1, 0, 0]));
}

/// What was counted adds up: Signs less retries and hedges are the signatures that were asked for.
#[tokio::test(start_paused = true)]
async fn every_sign_is_counted_once() {
    let random = Mutex::new(sluice_load_tests::random::Random::new(7, "signs"));
    let t = warmed(true, move |n| {
        let number = random.lock().unwrap().below(100);
        (n >= 200).then_some(match number {
            0..3 if n < 600 => Act::Fail(SignClass::Throttled),
            3..6 => Act::Fail(SignClass::Transient),
            6..8 => Act::Lie,
            8..12 => Act::Take(Duration::from_millis(200)),
            _ => Act::Take(Duration::from_millis(10)),
        })
    })
    .await;
    for n in 0..1000 {
        t.scheduler.sign(&t.key, digest(n), n).await.unwrap();
    }
    settle().await;
    let signs: u64 = ["ok", "throttled", "transient", "bad_signature", "deadline", "dropped"].map(|label| outcome(&t, label)).iter().sum();
    let (retries, hedges) = (t.metrics.signing.retries.get(), hedges(&t));
    assert_eq!(signs, t.store.digests().len() as u64);
    assert!(retries > 50 && hedges[0] > 5, "{retries} {hedges:?}");
    assert_eq!(signs - retries - hedges.iter().sum::<u64>(), 1200);
    assert_eq!(outcome(&t, "ok"), 1200);
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_nobody_waits_for_is_counted() {
    let t = set_up(|_| Act::Gated);
    let ticket = t.scheduler.sign(&t.key, digest(1), 1);
    settle().await;
    drop(ticket);
    t.store.gate.add_permits(1);
    settle().await;
    assert_eq!((outcome(&t, "ok"), t.metrics.signing.unclaimed.get()), (1, 1));
    // Its client is gone, and the scheduler does not know yet.
    let ticket = t.scheduler.sign(&t.key, digest(2), 2);
    settle().await;
    t.store.gate.add_permits(1);
    drop(ticket);
    settle().await;
    assert_eq!((outcome(&t, "ok"), t.metrics.signing.unclaimed.get()), (2, 2));
    // It is answered, and nobody looks at the answer; of two who share it, one does.
    t.store.gate.add_permits(2);
    let unread = t.scheduler.sign(&t.key, digest(3), 3);
    let shared = [t.scheduler.sign(&t.key, digest(4), 4), t.scheduler.sign(&t.key, digest(4), 4)];
    settle().await;
    drop(unread);
    let [one, other] = shared;
    one.await.unwrap();
    drop(other);
    assert_eq!((outcome(&t, "ok"), t.metrics.signing.unclaimed.get()), (4, 3));
    assert_eq!(t.store.holder("a").store.quota_group(&t.store.holder("a").arn), QuotaGroup("1/test".into()));
}

#[tokio::test(start_paused = true)]
async fn what_had_no_turn_while_others_had_is_told_as_throttled() {
    let limits =
        [SignLimits { deadline: Duration::from_secs(1), ..rate(10) }, SignLimits { deadline: Duration::from_secs(1), ..windows(1, 1) }];
    for limits in limits {
        let t = limited(limits, TICKETS, |_| Act::Take(Duration::from_millis(10)));
        let tickets: Vec<_> = (0..300).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
        let answers = futures_util::future::join_all(tickets).await;
        let late: Vec<SignClass> = answers.into_iter().filter_map(|answer| answer.err().map(|error| error.class)).collect();
        assert!(!late.is_empty() && late.iter().all(|class| *class == SignClass::Throttled), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_throttled_until_its_time_was_over_is_told_as_throttled() {
    let start = tokio::time::Instant::now();
    let limits = SignLimits { deadline: Duration::from_secs(2), ..rate(20) };
    let answers = |throttled: Duration| {
        limited(limits, TICKETS, move |_| if start.elapsed() < throttled { Act::Fail(SignClass::Throttled) } else { Act::Hang })
    };
    let t = answers(Duration::from_millis(1_500));
    let error = t.scheduler.sign(&t.key, digest(1), 1).await.unwrap_err();
    assert_eq!((error.class, outcome(&t, "throttled") > 0), (SignClass::Throttled, true), "{error}");
    let t = answers(Duration::from_millis(2_100));
    let error = t.scheduler.sign(&t.key, digest(1), 1).await.unwrap_err();
    assert_eq!((error.class, outcome(&t, "throttled") > 0), (SignClass::Deadline, true), "the store had time: {error}");
}

#[tokio::test(start_paused = true)]
async fn what_can_hardly_be_answered_in_time_costs_no_sign() {
    let limits = SignLimits { deadline: Duration::from_secs(1), ..rate(100) };
    let t = limited(limits, TICKETS, |_| Act::Take(Duration::from_millis(200)));
    for n in 0..10 {
        let tickets: Vec<_> = (0..12).map(|m| t.scheduler.sign(&t.key, digest(1000 + 12 * n + m), m)).collect();
        for ticket in tickets {
            ticket.await.unwrap();
        }
    }
    let tickets: Vec<_> = (0..300).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    let answers = futures_util::future::join_all(tickets).await;
    let worked = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(worked > 60 && answers.into_iter().filter_map(Result::err).all(|error| error.class == SignClass::Throttled));
    assert_eq!((outcome(&t, "deadline"), t.store.digests().len()), (0, 120 + worked));
}

#[tokio::test(start_paused = true)]
async fn answers_that_take_longer_than_the_deadline_of_others_keep_nothing_from_being_asked() {
    let limits = SignLimits { deadline: Duration::from_secs(1), ..rate(1000) };
    let t = limited(limits, TICKETS, |n| Act::Take(Duration::from_millis(if n < 200 { 990 } else { 10 })));
    let tickets: Vec<_> = (0..200).map(|n| t.scheduler.sign(&t.key, digest(n), n)).collect();
    // Half of them are asked too late for that.
    futures_util::future::join_all(tickets).await;
    for n in 200..300 {
        t.scheduler.sign(&t.key, digest(n), n).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_signs_of_a_signature_that_did_not_come_are_accounted_for() {
    let t = limited(SignLimits { deadline: Duration::from_secs(1), ..rate(100) }, TICKETS, |n| match n % 4 {
        0 => Act::Sign,
        1 => Act::Fail(SignClass::Throttled),
        2 => Act::Take(Duration::from_secs(3)),
        _ => Act::Fail(SignClass::Configuration),
    });
    let mut tickets: Vec<_> = (0..40).map(|n| t.scheduler.sign(&t.store.key("a"), digest(n), n)).collect();
    settle().await;
    // Some have their Sign in flight, others wait.
    tickets.drain(..10);
    let worked = futures_util::future::join_all(tickets).await.iter().filter(|answer| answer.is_ok()).count() as u64;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Metrics { signing, .. } = &*t.metrics;
    let signs = t.store.digests().len() as u64;
    let (unclaimed, fruitless) = (signing.unclaimed.get(), signing.fruitless.get());
    assert!(fruitless > 0, "{fruitless}");
    assert_eq!(signs - signing.retries.get() - hedges(&t).iter().sum::<u64>() - unclaimed - fruitless, worked);
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_has_spent_of_its_deadline_has_the_rest() {
    let t = set_up(|_| Act::Hang);
    let began = tokio::time::Instant::now();
    let spent = DEADLINE - Duration::from_secs(3);
    assert_eq!(class(t.scheduler.sign_again(&t.key, digest(1), 1, spent).await), SignClass::Deadline);
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(class(t.scheduler.sign_again(&t.key, digest(2), 2, 2 * DEADLINE).await), SignClass::Deadline);
    assert_eq!(began.elapsed().as_secs(), 3, "at once");
}
