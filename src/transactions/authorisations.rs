//! EIP-7702: which nonces of which managed accounts a payload's authorisations use up. Pure.
//!
//! The chain takes an authorisation if its nonce is the authority's own when it is reached, in the order of the list, after the
//! sender's nonce went up; any other it skips. Each one that it takes uses up a nonce of its authority without a transaction.

use std::collections::BTreeMap;
use std::ops::Range;

use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, U256};

use super::errors::TransactionError;

/// The nonces that are used up, by account: the managed ones alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorisations {
    /// The sender's own.
    pub own: Option<Range<u64>>,
    /// Those of other accounts.
    pub others: BTreeMap<Address, Range<u64>>,
}

impl Authorisations {
    /// Reads the list of a payload of `sender`. What the chain would skip whatever the nonces are (another chain's, a signature that
    /// is none) uses nothing up. An error if the nonces of one managed account do not follow each other: not all could be taken.
    pub fn read(
        list: &[SignedAuthorization],
        sender: Address,
        chain_id: u64,
        is_managed: impl Fn(Address) -> bool,
    ) -> Result<Self, TransactionError> {
        let mut found = Self::default();
        for signed in list {
            let here = signed.chain_id().is_zero() || *signed.chain_id() == U256::from(chain_id);
            let Some(authority) =
                signed.recover_authority().ok().filter(|authority| here && (*authority == sender || is_managed(*authority)))
            else {
                continue;
            };
            let nonce = signed.nonce();
            let Some(next) = nonce.checked_add(1) else {
                return Err(TransactionError::Invalid("an authorisation's nonce must be below 2^64 - 1 (EIP-7702)".into()));
            };
            let nonces = if authority == sender {
                found.own.get_or_insert(nonce..nonce)
            } else {
                found.others.entry(authority).or_insert(nonce..nonce)
            };
            if nonces.end != nonce {
                let words = format!("authorisations by {authority} must carry nonces that follow each other (EIP-7702)");
                return Err(TransactionError::Invalid(words));
            }
            nonces.end = next;
        }
        Ok(found)
    }

    /// The nonce that the payload must have, and how many nonces of the sender it uses up. An authorisation of the sender by itself
    /// carries the nonce after the payload's own, so it fixes that.
    pub fn of_sender(&self, given: Option<u64>) -> Result<(Option<u64>, u64), TransactionError> {
        let Some(own) = &self.own else { return Ok((given, 1)) };
        let nonce = own.start.checked_sub(1);
        if nonce.is_none() || (given.is_some() && given != nonce) {
            let words = "authorisations of the sender by itself must carry the nonces that follow the transaction's own (EIP-7702)";
            return Err(TransactionError::Invalid(words.into()));
        }
        Ok((nonce, 1 + (own.end - own.start)))
    }
}

#[cfg(test)]
mod tests {
    use alloy_eips::eip7702::Authorization;
    use alloy_primitives::Signature;
    use k256::ecdsa::SigningKey;

    use super::*;

    const CHAIN: u64 = 31337;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn address(byte: u8) -> Address {
        Address::from_public_key(key(byte).verifying_key())
    }

    fn signed(byte: u8, chain_id: u64, nonce: u64) -> SignedAuthorization {
        let authorisation = Authorization { chain_id: U256::from(chain_id), address: Address::repeat_byte(9), nonce };
        let (signature, parity) = key(byte).sign_prehash_recoverable(authorisation.signature_hash().as_slice()).unwrap();
        authorisation.into_signed(Signature::from_signature_and_parity(signature, parity.is_y_odd()))
    }

    fn read(list: &[SignedAuthorization]) -> Result<Authorisations, String> {
        let managed = [address(1), address(2), address(3)];
        Authorisations::read(list, address(1), CHAIN, |address| managed.contains(&address)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_account_is_told_its_nonces() {
        let list = [signed(2, CHAIN, 7), signed(1, 0, 5), signed(3, CHAIN, 0), signed(2, 0, 8), signed(1, CHAIN, 6)];
        let others = BTreeMap::from([(address(2), 7..9), (address(3), 0..1)]);
        assert_eq!(read(&list), Ok(Authorisations { own: Some(5..7), others }));
    }

    #[test]
    fn what_the_chain_skips_and_what_is_not_managed_uses_nothing_up() {
        let mut broken = signed(2, CHAIN, 7);
        let high = U256::from(0);
        broken = SignedAuthorization::new_unchecked(broken.inner().clone(), 0, high, high);
        assert_eq!(read(&[signed(2, 1, 7), signed(9, CHAIN, 7), broken]), Ok(Authorisations::default()));
    }

    #[test]
    fn the_order_of_the_list_counts() {
        let words = format!("authorisations by {} must carry nonces that follow each other (EIP-7702)", address(2));
        for list in [[7, 6], [7, 7], [7, 9]] {
            assert_eq!(read(&list.map(|nonce| signed(2, CHAIN, nonce))), Err(words.clone()));
        }
        assert!(read(&[signed(2, CHAIN, u64::MAX)]).is_err());
    }

    #[test]
    fn an_authorisation_of_the_sender_fixes_its_nonce() {
        let own = Authorisations { own: Some(5..7), others: BTreeMap::new() };
        assert_eq!(own.of_sender(None).unwrap(), (Some(4), 3));
        assert_eq!(own.of_sender(Some(4)).unwrap(), (Some(4), 3));
        assert!(own.of_sender(Some(5)).is_err());
        assert!(Authorisations { own: Some(0..1), ..own }.of_sender(None).is_err());
        assert_eq!(Authorisations::default().of_sender(Some(3)).unwrap(), (Some(3), 1));
    }
}
