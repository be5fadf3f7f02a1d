//! What a service may pay at most, held against the price of one transaction. Pure.

use super::errors::TransactionError;
use super::fees::{Price, Suggestion};
use super::request::Fees;
use crate::config::FeeCeilings;

/// The highest price per gas, in wei, that the ceilings allow a transaction with this gas limit; none is no ceiling.
pub fn highest(ceilings: FeeCeilings, gas: u64) -> Option<u128> {
    let total = ceilings.total.map(|total| total / u128::from(gas.max(1)));
    ceilings.per_gas.into_iter().chain(total).min()
}

/// The price within the ceilings. One that the client gave is an error above them. A default cap comes down to them, if what the
/// chain asks for now still fits; a tip never does.
pub fn hold(price: Price, asked: Fees, gas: u64, now: Option<Suggestion>, ceilings: FeeCeilings) -> Result<Price, TransactionError> {
    let Some(limit) = highest(ceilings, gas).filter(|limit| price.highest() > *limit) else { return Ok(price) };
    if let (Price::Dynamic { tip, .. }, Fees::Dynamic { cap: None, .. }, Some(base)) = (price, asked, now.and_then(|now| now.base_fee))
        && base.saturating_add(tip) <= limit
    {
        return Ok(Price::Dynamic { cap: limit, tip });
    }
    let name = if matches!(price, Price::Legacy(_)) { "gasPrice" } else { "maxFeePerGas" };
    Err(TransactionError::FeeCeiling { words: above(name, price.highest(), gas, ceilings), is_given: is_given(asked, limit) })
}

/// Whether it is what the client gave that is above the limit, in wei per gas, and not what was filled.
fn is_given(asked: Fees, limit: u128) -> bool {
    match asked {
        Fees::Price(_) | Fees::Dynamic { cap: Some(_), .. } => true,
        Fees::Dynamic { cap: None, tip: Some(tip) } => tip > limit,
        Fees::Dynamic { cap: None, tip: None } | Fees::AnyPrice => false,
    }
}

/// The words for a price that is above the ceilings.
pub fn above(name: &str, price: u128, gas: u64, ceilings: FeeCeilings) -> String {
    match (ceilings.per_gas.filter(|per_gas| price > *per_gas), ceilings.total) {
        (Some(per_gas), _) => format!("{name} {price} is above the ceiling of this service, {per_gas} wei per gas"),
        (None, Some(total)) => format!("{name} {price} for {gas} gas is above the ceiling of this service, {total} wei in all"),
        (None, None) => format!("{name} {price} is above the ceiling of this service"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Suggestion = Suggestion { base_fee: Some(100), tip: 7, price: 107 };
    const DEFAULT: Fees = Fees::Dynamic { cap: None, tip: None };

    fn ceilings(per_gas: u128, total: u128) -> FeeCeilings {
        FeeCeilings { per_gas: Some(per_gas).filter(|n| *n > 0), total: Some(total).filter(|n| *n > 0) }
    }

    #[test]
    fn the_lower_of_both_ceilings_counts() {
        assert_eq!(highest(FeeCeilings::default(), 21_000), None);
        assert_eq!(highest(ceilings(50, 0), 21_000), Some(50));
        assert_eq!(highest(ceilings(50, 21_000 * 30 + 20_999), 21_000), Some(30));
        assert_eq!(highest(ceilings(50, 21_000 * 90), 21_000), Some(50));
        assert_eq!(highest(ceilings(0, 90), 0), Some(90));
    }

    #[test]
    fn a_default_cap_comes_down_to_the_ceiling_while_the_chain_takes_it() {
        let price = Price::Dynamic { cap: 207, tip: 7 };
        let hold = |per_gas| hold(price, DEFAULT, 21_000, Some(NOW), ceilings(per_gas, 0)).map_err(|error| error.to_string());
        assert_eq!(hold(300), Ok(price));
        assert_eq!(hold(207), Ok(price));
        assert_eq!(hold(107), Ok(Price::Dynamic { cap: 107, tip: 7 }));
        assert_eq!(hold(106), Err("maxFeePerGas 207 is above the ceiling of this service, 106 wei per gas".into()));
    }

    #[test]
    fn only_a_price_that_was_given_is_above_the_ceiling_for_good() {
        let dynamic = Price::Dynamic { cap: 207, tip: 7 };
        let is_given = |price, asked, per_gas| match hold(price, asked, 21_000, Some(NOW), ceilings(per_gas, 0)) {
            Err(TransactionError::FeeCeiling { is_given, .. }) => is_given,
            other => panic!("{other:?}"),
        };
        assert!(!is_given(dynamic, DEFAULT, 100));
        assert!(!is_given(dynamic, Fees::Dynamic { cap: None, tip: Some(7) }, 100));
        assert!(!is_given(Price::Legacy(107), Fees::AnyPrice, 100));
        assert!(!is_given(Price::Legacy(107), DEFAULT, 100));
        assert!(is_given(dynamic, Fees::Dynamic { cap: None, tip: Some(7) }, 6));
        assert!(is_given(dynamic, Fees::Dynamic { cap: Some(207), tip: None }, 100));
        assert!(is_given(Price::Legacy(107), Fees::Price(107), 100));
    }

    #[test]
    fn a_given_price_is_never_changed() {
        let given = [
            (Price::Dynamic { cap: 207, tip: 7 }, Fees::Dynamic { cap: Some(207), tip: None }, "maxFeePerGas"),
            (Price::Legacy(207), Fees::Price(207), "gasPrice"),
            (Price::Legacy(207), Fees::AnyPrice, "gasPrice"),
        ];
        for (price, asked, name) in given {
            let hold = |ceilings| hold(price, asked, 21_000, Some(NOW), ceilings).map_err(|error| error.to_string());
            assert_eq!(hold(ceilings(207, 21_000 * 207)), Ok(price));
            assert_eq!(hold(ceilings(206, 0)), Err(format!("{name} 207 is above the ceiling of this service, 206 wei per gas")));
            let words = format!("{name} 207 for 21000 gas is above the ceiling of this service, 4346999 wei in all");
            assert_eq!(hold(ceilings(0, 21_000 * 207 - 1)), Err(words));
        }
    }
}
