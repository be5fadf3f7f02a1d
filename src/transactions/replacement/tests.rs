use alloy_consensus::{TxEip1559, TxEip7702, TxLegacy};
use proptest::prelude::*;

use super::*;

const NOW: Suggestion = Suggestion { base_fee: Some(100), tip: 7, price: 107 };
const DEFAULT: Fees = Fees::Dynamic { cap: None, tip: None };

fn market(cap: u128, tip: u128) -> Market {
    Market {
        highest: Bid { cap, tip },
        one_price: false,
        gas: 21_000,
        fees: FeeMode::Eip1559,
        now: Some(NOW),
        ceilings: FeeCeilings::default(),
    }
}

fn below(per_gas: u128) -> FeeCeilings {
    FeeCeilings { per_gas: Some(per_gas), total: None }
}

fn price(market: Market, asked: Fees) -> Result<(u128, u128), String> {
    market.price(asked).map(|bid| (bid.cap, bid.tip)).map_err(|error| error.to_string())
}

#[test]
fn a_tenth_more_rounded_up_and_a_wei() {
    for (fee, expected) in [(0, 1), (1, 3), (9, 11), (10, 12), (11, 14), (100, 111), (1_000_000_001, 1_100_000_003), (u128::MAX, u128::MAX)]
    {
        assert_eq!(raised(fee), expected, "{fee}");
    }
}

#[test]
fn what_a_replacement_pays_by_default() {
    // What the chain asks for, where that is more.
    assert_eq!(price(market(100, 2), DEFAULT), Ok((207, 7)));
    // The least that nodes take, where that is more, field by field.
    assert_eq!(price(market(300, 2), DEFAULT), Ok((331, 7)));
    assert_eq!(price(market(300, 100), DEFAULT), Ok((331, 111)));
    assert_eq!(price(Market { now: None, ..market(300, 2) }, DEFAULT), Ok((331, 4)));
    assert_eq!(price(Market { one_price: true, ..market(90, 90) }, DEFAULT), Ok((107, 107)));
    assert_eq!(price(Market { one_price: true, ..market(300, 400) }, DEFAULT), Ok((441, 441)));
    assert_eq!(price(Market { fees: FeeMode::Free, ..market(0, 0) }, DEFAULT), Ok((0, 0)));
}

#[test]
fn what_a_client_asks_for_is_taken_as_it_is_or_refused_with_the_minimum() {
    let dynamic = |cap, tip| Fees::Dynamic { cap, tip };
    assert_eq!(price(market(100, 2), dynamic(Some(111), Some(4))), Ok((111, 4)));
    assert_eq!(price(market(100, 2), dynamic(Some(5000), None)), Ok((5000, 7)));
    assert_eq!(price(market(100, 2), dynamic(None, Some(500))), Ok((500, 500)));
    assert_eq!(price(market(100, 2), Fees::Price(120)), Ok((120, 120)));
    let below = |name, given, least| Err(format!("replacement transaction underpriced: {name} {given} is below the minimum {least}"));
    assert_eq!(price(market(100, 2), dynamic(Some(110), None)), below("maxFeePerGas", 110, 111));
    assert_eq!(price(market(100, 2), dynamic(Some(200), Some(3))), below("maxPriorityFeePerGas", 3, 4));
    assert!(price(market(100, 2), dynamic(Some(111), Some(112))).unwrap_err().starts_with("maxFeePerGas (0x6f) < "));
    let legacy = Market { one_price: true, ..market(100, 100) };
    assert_eq!(price(legacy, Fees::Price(110)), below("gasPrice", 110, 111));
    assert_eq!(price(legacy, dynamic(Some(200), None)), Err("the transaction has one price: gasPrice".into()));
}

#[test]
fn nothing_is_above_a_ceiling() {
    let held = |per_gas, asked| price(Market { ceilings: below(per_gas), ..market(100, 2) }, asked);
    assert_eq!(held(207, DEFAULT), Ok((207, 7)));
    assert_eq!(held(150, DEFAULT), Ok((150, 7)), "a default comes down to it");
    assert_eq!(held(111, DEFAULT), Ok((111, 7)));
    assert_eq!(held(110, DEFAULT), Err("maxFeePerGas 111 is above the ceiling of this service, 110 wei per gas".into()));
    let asked = Fees::Dynamic { cap: Some(300), tip: None };
    assert_eq!(held(299, asked), Err("maxFeePerGas 300 is above the ceiling of this service, 299 wei per gas".into()));
    assert_eq!(held(300, asked), Ok((300, 7)));
}

fn stuck() -> Stuck {
    Stuck {
        market: market(100, 2),
        replacements: 0,
        executable: true,
        taken: true,
        occupied: false,
        waited: Some(Duration::from_secs(60)),
        heads: 3,
    }
}

#[test]
fn only_the_next_slot_that_waits_long_enough_is_replaced() {
    let bump = Bump::default();
    let decide = |stuck: Stuck| decide(&stuck, bump, bump.after);
    let replaced = Decision::Replace(Bid { cap: 207, tip: 7 });
    assert_eq!(decide(stuck()), replaced);
    for (what, waits) in [
        ("not next", Stuck { executable: false, ..stuck() }),
        ("no node has it", Stuck { taken: false, ..stuck() }),
        ("sent lately", Stuck { waited: Some(Duration::from_millis(59_999)), ..stuck() }),
        ("not sent", Stuck { waited: None, ..stuck() }),
        ("the chain stands still", Stuck { heads: 2, ..stuck() }),
        ("free", Stuck { market: Market { fees: FeeMode::Free, ..market(0, 0) }, ..stuck() }),
        ("not next, and occupied", Stuck { executable: false, occupied: true, ..stuck() }),
    ] {
        assert_eq!(decide(waits), Decision::Wait, "{what}");
    }
    let occupied = Stuck { occupied: true, waited: None, heads: 0, taken: false, ..stuck() };
    assert_eq!(decide(occupied), replaced, "a replacement that paid too little is raised at once");
    assert_eq!(decide(Stuck { replacements: 4, ..stuck() }), replaced);
    for occupied in [false, true] {
        assert_eq!(decide(Stuck { replacements: 5, occupied, ..stuck() }), Decision::Stop(Stop::Times));
    }
    let ceiling = Market { ceilings: below(110), ..market(100, 2) };
    assert_eq!(decide(Stuck { market: ceiling, ..stuck() }), Decision::Stop(Stop::Ceiling));
    let off = Bump { times: 0, ..bump };
    assert_eq!(super::decide(&stuck(), off, off.after), Decision::Wait);
}

#[test]
fn accounts_are_spread_over_a_quarter_of_the_time() {
    let after = Duration::from_secs(60);
    assert_eq!(patience(after, Address::ZERO), after);
    let longest = patience(after, Address::repeat_byte(0xff));
    assert!(longest > after + Duration::from_secs(14) && longest < after + Duration::from_secs(15), "{longest:?}");
}

#[test]
fn a_payload_keeps_its_type_under_another_price() {
    let bid = Bid { cap: 9, tip: 4 };
    for transaction in [
        TypedTransaction::Legacy(TxLegacy { nonce: 5, ..TxLegacy::default() }),
        TypedTransaction::Eip1559(TxEip1559 { nonce: 5, ..TxEip1559::default() }),
        TypedTransaction::Eip7702(TxEip7702 { nonce: 5, ..TxEip7702::default() }),
    ] {
        let changed = with_bid(transaction.clone(), bid);
        assert_eq!((changed.tx_type(), alloy_consensus::Transaction::nonce(&changed)), (transaction.tx_type(), 5));
        let expected = if has_one_price(&transaction) { Bid { cap: 9, tip: 9 } } else { bid };
        assert_eq!(Bid::of(&changed), expected);
    }
}

proptest! {
    /// Whatever is decided: nodes take it, no ceiling is passed, the cap is not below the tip, and a default is no less than what the
    /// chain asks for unless a ceiling says so.
    #[test]
    fn every_price_is_high_enough_and_below_the_ceilings(
        (cap, tip) in (0..1_000_000_u128).prop_flat_map(|cap| (Just(cap), 0..=cap)),
        base in prop::option::of(0..500_000_u128),
        suggested_tip in 0..10_000_u128,
        per_gas in prop::option::of(1..2_000_000_u128),
        total in prop::option::of(1..2_000_000_u128 * 21_000),
        one_price in any::<bool>(),
        asked in (prop::option::of(0..2_000_000_u128), prop::option::of(0..2_000_000_u128)),
    ) {
        let tip = if one_price { cap } else { tip };
        let now = Suggestion { base_fee: base, tip: suggested_tip, price: base.unwrap_or_default() + suggested_tip };
        let market = Market {
            highest: Bid { cap, tip }, one_price, gas: 21_000, fees: FeeMode::Eip1559, now: Some(now),
            ceilings: FeeCeilings { per_gas, total },
        };
        let asked = Fees::Dynamic { cap: asked.0, tip: asked.1 };
        let priced = market.price(asked);
        if asked == DEFAULT {
            // Refused only where the least that nodes take is above a ceiling.
            let least = raised(cap);
            let is_allowed = per_gas.is_none_or(|per_gas| least <= per_gas) && total.is_none_or(|total| least * 21_000 <= total);
            prop_assert_eq!(priced.is_ok(), is_allowed);
        }
        if let Ok(bid) = priced {
            prop_assert!(bid.cap * 10 > cap * 11 && bid.tip * 10 > tip * 11);
            prop_assert!(bid.cap >= bid.tip);
            prop_assert!(per_gas.is_none_or(|per_gas| bid.cap <= per_gas));
            prop_assert!(total.is_none_or(|total| bid.cap * 21_000 <= total));
            if asked == DEFAULT && per_gas.is_none() && total.is_none() {
                let wanted = Bid::suggested(now, one_price);
                prop_assert!(bid.cap >= wanted.cap && bid.tip >= wanted.tip);
            }
        }
    }

    /// Bumps of one slot end, and each pays more than the one before.
    #[test]
    fn bumps_of_one_slot_end(cap in 0..1_000_000_u128, times in 0..20_u32, per_gas in prop::option::of(1..2_000_000_u128)) {
        let bump = Bump { times, ..Bump::default() };
        let mut stuck = stuck();
        stuck.market.highest = Bid { cap, tip: cap };
        stuck.market.ceilings.per_gas = per_gas;
        let mut made = 0;
        while let Decision::Replace(bid) = decide(&stuck, bump, bump.after) {
            prop_assert!(bid.cap > stuck.market.highest.cap && bid.tip > stuck.market.highest.tip);
            stuck.market.highest = bid;
            stuck.replacements += 1;
            made += 1;
            prop_assert!(made <= times);
        }
        if per_gas.is_none() {
            prop_assert_eq!(made, times, "nothing else ends them");
        }
    }
}
