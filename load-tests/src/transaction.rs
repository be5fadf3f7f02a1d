//! Reading signed transactions back, with nothing of Sluice's own code.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, B256, hex};

/// What tests want to know of a signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Who signed it, recovered from the signature.
    pub from: Address,
    /// Its nonce.
    pub nonce: u64,
    /// Its hash.
    pub hash: B256,
}

/// Decodes EIP-2718 bytes written as 0x-hex and recovers their signer; `None` if they are no signed transaction.
pub fn decode(raw: &str) -> Option<Decoded> {
    let bytes = hex::decode(raw).ok()?;
    let mut rest = bytes.as_slice();
    let transaction = TxEnvelope::decode_2718(&mut rest).ok()?;
    if !rest.is_empty() {
        return None;
    }
    Some(Decoded { from: transaction.recover_signer().ok()?, nonce: transaction.nonce(), hash: *transaction.tx_hash() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_eip_155_decodes() {
        // The signed example in the text of EIP-155.
        let raw = concat!(
            "0xf86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a0",
            "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a0",
            "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
        );
        let decoded = decode(raw).unwrap();
        assert_eq!(decoded.nonce, 9);
        assert_eq!(decoded.from, "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F".parse::<Address>().unwrap());
        assert_eq!(decode("0x02"), None);
        assert_eq!(decode(&format!("{raw}00")), None);
    }
}
