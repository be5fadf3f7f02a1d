//! Token buckets, and latencies.

use super::super::{Quotas, Usage};
use super::*;

fn limited(per_second: u64, burst: u64) -> (Kms, Place, String) {
    let settings = Settings { quotas: Quotas::default().with("Sign", per_second, burst), ..Settings::new(7, 1) };
    let home = settings.home();
    let kms = Kms::new(settings);
    let arn = kms.keys()[0].arn.clone();
    (kms, home, arn)
}

fn signs(kms: &mut Kms, from: &Place, now: Duration, arn: &str, count: u64) -> u64 {
    (0..count).filter(|_| matches!(kms.call_from(from, now, "Sign", &sign_body(arn, B256::ZERO)).body, ReplyBody::Ok(_))).count() as u64
}

#[test]
fn a_bucket_is_full_at_first_and_refills_continuously() {
    let (mut kms, home, arn) = limited(1_000, 100);
    assert_eq!(signs(&mut kms, &home, Duration::ZERO, &arn, 150), 100);
    // A token comes back every millisecond, neither sooner nor in lumps.
    assert_eq!(signs(&mut kms, &home, Duration::from_micros(999), &arn, 5), 0);
    assert_eq!(signs(&mut kms, &home, Duration::from_micros(1_000), &arn, 5), 1);
    assert_eq!(signs(&mut kms, &home, Duration::from_micros(3_500), &arn, 5), 2);
    assert_eq!(signs(&mut kms, &home, Duration::from_micros(4_000), &arn, 5), 1);
    // It holds no more than it can.
    assert_eq!(signs(&mut kms, &home, Duration::from_secs(60), &arn, 150), 100);
    assert_eq!(kms.usage(), [(home, "Sign".to_owned(), Usage { admitted: 204, throttled: 50 + 5 + 4 + 3 + 4 + 50 })]);
    assert_eq!(kms.throttled(), 116);
    assert_eq!(kms.calls_of("Sign"), 320);
}

#[test]
fn over_a_second_exactly_the_quota_is_let_in_whatever_is_offered() {
    let (mut kms, home, arn) = limited(1_000, 100);
    let admitted: u64 = (0..5_000).map(|n| signs(&mut kms, &home, Duration::from_micros(n * 200), &arn, 1)).sum();
    assert_eq!(admitted, 100 + 999);
}

#[test]
fn a_throttled_call_is_told_in_the_words_of_aws_and_uses_up_no_fault() {
    let (mut kms, home, arn) = limited(1, 1);
    signs(&mut kms, &home, Duration::ZERO, &arn, 1);
    kms.set_faults(Faults::default().then("Sign", 1, Fault::CutAfter));
    let throttled = call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap_err();
    assert_eq!((throttled.status, throttled.code.as_str()), (400, "ThrottlingException"));
    assert_eq!(throttled.message, "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.");
    assert_eq!(kms.call(Duration::from_secs(1), "Sign", &sign_body(&arn, B256::ZERO)).body, ReplyBody::Cut);
}

#[test]
fn sign_and_verify_share_a_bucket_and_accounts_and_regions_do_not() {
    let (mut kms, home, arn) = limited(1, 2);
    let mut verify = sign_body(&arn, B256::ZERO);
    verify["Signature"] = call(&mut kms, "Sign", sign_body(&arn, B256::ZERO)).unwrap()["Signature"].clone();
    call(&mut kms, "Verify", verify.clone()).unwrap();
    assert_eq!(refused(&mut kms, "Verify", verify), "ThrottlingException");
    assert!(call(&mut kms, "DescribeKey", json!({ "KeyId": arn })).is_ok());
    // Another account signs with the same key at its own expense.
    let other = Place::new("444455556666", &home.region);
    assert_eq!(signs(&mut kms, &other, Duration::ZERO, &arn, 5), 2);
}

#[test]
fn the_quotas_of_aws_are_those_of_its_documentation() {
    let Quotas(quotas) = Quotas::aws();
    let rates: Vec<(&str, u64)> = quotas.iter().map(|(operation, quota)| (operation.as_str(), quota.per_second)).collect();
    let expected = [("CreateAlias", 5), ("CreateKey", 5), ("DescribeKey", 2_000), ("GetPublicKey", 2_000)];
    let lists = [("ListAliases", 500), ("ListKeys", 500), ("ListResourceTags", 2_000), ("Sign", 1_000)];
    assert_eq!(rates, [expected, lists].concat());
    assert_eq!(quotas["Sign"].burst, 100);
}

#[test]
fn a_storm_throttles_everything_of_its_quota_until_it_is_over() {
    let mut kms = kms();
    let (home, arn) = (Settings::new(7, 2).home(), kms.keys()[0].arn.clone());
    kms.set_faults(Faults::default().then("Sign", 1, Fault::Storm { milliseconds: 2_000 }));
    assert_eq!(signs(&mut kms, &home, Duration::ZERO, &arn, 3), 0);
    assert_eq!(signs(&mut kms, &home, Duration::from_millis(1_999), &arn, 3), 0);
    assert!(call(&mut kms, "DescribeKey", json!({ "KeyId": arn })).is_ok());
    assert_eq!(signs(&mut kms, &home, Duration::from_secs(2), &arn, 3), 3);
    kms.steer(Duration::from_secs(2), "Storm", &json!({ "Operation": "DescribeKey", "Milliseconds": 10 })).unwrap();
    assert_eq!(call_at(&mut kms, &home, 2, "DescribeKey", json!({ "KeyId": arn })).unwrap_err().code, "ThrottlingException");
}

#[test]
fn answers_take_as_long_as_the_delays_of_aws_say() {
    assert_eq!(Delays::aws(), Delays { p50: 10, p99: 60, max: 1_000 });
    let mut kms = Kms::new(Settings { delays: Delays::aws(), ..Settings::new(7, 1) });
    let mut after: Vec<Duration> = (0..2_000).map(|_| kms.call(Duration::ZERO, "ListKeys", &json!({})).after).collect();
    after.sort_unstable();
    assert!(after[0] >= Duration::from_millis(5) && after[1_999] <= Duration::from_secs(1));
    assert!(after[1_000].abs_diff(Duration::from_millis(10)) < Duration::from_millis(2), "{:?}", after[1_000]);
}
