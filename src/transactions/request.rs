//! The argument object of `eth_sendTransaction` and `eth_signTransaction`: geth's fields, geth's rules, geth's words
//! (internal/ethapi/transaction_args.go), so that clients that match on the words keep working. Pure.

use std::fmt;

use alloy_eips::eip2930::AccessList;
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, Bytes, U256};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::errors::TransactionError;

/// A QUANTITY: `0x`, then at least one digit, no leading zeros, at most 64 digits (execution-apis).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity(pub U256);

impl Quantity {
    /// Reads a QUANTITY; the errors are geth's.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or(if text.is_empty() {
            "empty hex string"
        } else {
            "hex string without 0x prefix"
        })?;
        match digits.as_bytes() {
            [] => Err("hex string \"0x\""),
            [b'0', _, ..] => Err("hex number with leading zero digits"),
            long if long.len() > 64 => Err("hex number > 256 bits"),
            bytes if !bytes.iter().all(u8::is_ascii_hexdigit) => Err("invalid hex string"),
            _ => U256::from_str_radix(digits, 16).map(Self).map_err(|_| "invalid hex string"),
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a QUANTITY: a string of 0x and hex digits without leading zeros")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The object as the client sent it. A member given twice is an error; members that geth does not know are ignored, as
/// geth does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arguments {
    /// The sender; a managed address.
    pub from: Option<Address>,
    /// The recipient; absent for a contract creation.
    pub to: Option<Address>,
    /// Gas limit.
    pub gas: Option<Quantity>,
    /// Price per gas in wei (types 0 and 1).
    pub gas_price: Option<Quantity>,
    /// Highest price per gas in wei (EIP-1559).
    pub max_fee_per_gas: Option<Quantity>,
    /// Tip per gas in wei (EIP-1559).
    pub max_priority_fee_per_gas: Option<Quantity>,
    /// Wei to transfer.
    pub value: Option<Quantity>,
    /// The nonce, where the client wants a certain one.
    pub nonce: Option<Quantity>,
    /// Older name of `input`.
    pub data: Option<Bytes>,
    /// Call data, or the code of a creation.
    pub input: Option<Bytes>,
    /// EIP-2930.
    pub access_list: Option<AccessList>,
    /// Must be the service's chain id where given.
    pub chain_id: Option<Quantity>,
    /// EIP-2718 type that the client has in mind.
    #[serde(rename = "type")]
    pub kind: Option<Quantity>,
    /// EIP-7702.
    pub authorization_list: Option<Vec<SignedAuthorization>>,
    /// Sluice's own: under this key the request is paid once. No part of the transaction.
    pub idempotency_key: Option<String>,
    /// EIP-4844: not signed here.
    pub blob_versioned_hashes: Option<de::IgnoredAny>,
    /// EIP-4844: not signed here.
    pub blobs: Option<de::IgnoredAny>,
    /// EIP-4844: not signed here.
    pub max_fee_per_blob_gas: Option<de::IgnoredAny>,
}

/// The members of [`Arguments`], and those of blobs that geth has beside them.
pub const MEMBERS: [&str; 20] = [
    "from",
    "to",
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "value",
    "nonce",
    "data",
    "input",
    "accessList",
    "chainId",
    "type",
    "authorizationList",
    "idempotencyKey",
    "blobVersionedHashes",
    "blobs",
    "maxFeePerBlobGas",
    "commitments",
    "proofs",
];

/// How the client wants to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fees {
    /// One price (types 0 and 1), in wei per gas.
    Price(u128),
    /// Cap and tip (types 2 and 4), in wei per gas; what is absent is filled.
    Dynamic {
        /// maxFeePerGas.
        cap: Option<u128>,
        /// maxPriorityFeePerGas.
        tip: Option<u128>,
    },
    /// One price, to be filled: the client asked for type 0 or 1 without a price.
    AnyPrice,
}

/// A request that keeps every rule that can be checked without a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The sender.
    pub from: Address,
    /// The recipient.
    pub to: Option<Address>,
    /// Gas limit.
    pub gas: Option<u64>,
    /// Price.
    pub fees: Fees,
    /// Wei.
    pub value: U256,
    /// A given nonce.
    pub nonce: Option<u64>,
    /// Call data or creation code.
    pub input: Bytes,
    /// EIP-2930; decides for type 1 beside one price.
    pub access_list: Option<AccessList>,
    /// EIP-7702; decides for type 4.
    pub authorizations: Option<Vec<SignedAuthorization>>,
}

fn invalid(message: impl Into<String>) -> TransactionError {
    TransactionError::Invalid(message.into())
}

fn narrow<T: TryFrom<U256>>(name: &str, bits: u32, value: Option<Quantity>) -> Result<Option<T>, TransactionError> {
    value.map(|Quantity(value)| T::try_from(value).map_err(|_| invalid(format!("{name}: hex number > {bits} bits")))).transpose()
}

impl Arguments {
    /// Checks geth's rules in geth's order.
    pub fn check(self, chain_id: u64) -> Result<Request, TransactionError> {
        let from = self.from.ok_or(TransactionError::UnknownAccount)?;
        if self.blobs.is_some() || self.blob_versioned_hashes.is_some() || self.max_fee_per_blob_gas.is_some() || self.is_type(3) {
            return Err(TransactionError::Unsupported("signing blob transactions not supported".into()));
        }
        if self.kind.is_some_and(|Quantity(kind)| kind > U256::from(4)) {
            return Err(TransactionError::Unsupported("transaction type not supported".into()));
        }
        let fees = self.fees()?;
        if let (Some(data), Some(input)) = (&self.data, &self.input)
            && data != input
        {
            return Err(invalid(r#"both "data" and "input" are set and not equal. Please use "input" to pass transaction call data"#));
        }
        let gas = narrow("gas", 64, self.gas)?;
        let nonce = narrow("nonce", 64, self.nonce)?;
        if nonce == Some(u64::MAX) {
            return Err(invalid("nonce has max value: 18446744073709551615"));
        }
        let input = self.input.or(self.data).unwrap_or_default();
        if self.to.is_none() && input.is_empty() {
            return Err(invalid("contract creation without any data provided"));
        }
        if let Some(Quantity(have)) = self.chain_id
            && have != U256::from(chain_id)
        {
            return Err(invalid(format!("chainId does not match node's (have={have}, want={chain_id})")));
        }
        if let Some(list) = &self.authorization_list {
            if self.to.is_none() {
                return Err(invalid("EIP-7702 transaction cannot be used to create contract"));
            }
            if list.is_empty() {
                return Err(invalid("EIP-7702 transaction with empty auth list"));
            }
        }
        let access_list = match self.access_list {
            None if self.kind == Some(Quantity(U256::from(1))) => Some(AccessList::default()),
            Some(list) if list.is_empty() && self.kind == Some(Quantity(U256::ZERO)) => None,
            given => given,
        };
        Ok(Request {
            from,
            to: self.to,
            gas,
            fees,
            value: self.value.map_or(U256::ZERO, |value| value.0),
            nonce,
            input,
            access_list,
            authorizations: self.authorization_list,
        })
    }

    fn is_type(&self, kind: u8) -> bool {
        self.kind == Some(Quantity(U256::from(kind)))
    }

    /// How the client wants to pay, by geth's rules.
    pub fn fees(&self) -> Result<Fees, TransactionError> {
        let dynamic = self.max_fee_per_gas.is_some() || self.max_priority_fee_per_gas.is_some();
        if self.gas_price.is_some() && dynamic {
            return Err(invalid("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified"));
        }
        let wants_price = self.gas_price.is_some() || self.is_type(0) || self.is_type(1);
        if wants_price && (dynamic || self.authorization_list.is_some()) {
            return Err(invalid("gasPrice and types 0 and 1 do not go with maxFeePerGas, maxPriorityFeePerGas or authorizationList"));
        }
        if self.gas_price.is_some() && (self.is_type(2) || self.is_type(4)) {
            return Err(invalid("types 2 and 4 have maxFeePerGas and maxPriorityFeePerGas, not gasPrice"));
        }
        if self.is_type(0) && self.access_list.as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(invalid("type 0 has no accessList"));
        }
        if self.is_type(4) && self.authorization_list.is_none() {
            return Err(invalid("EIP-7702 transaction with empty auth list"));
        }
        if self.authorization_list.is_some() && (self.is_type(1) || self.is_type(2)) {
            return Err(invalid("only type 4 has authorizationList"));
        }
        if let Some(price) = narrow("gasPrice", 128, self.gas_price)? {
            return Ok(Fees::Price(price));
        }
        if wants_price {
            return Ok(Fees::AnyPrice);
        }
        let cap: Option<u128> = narrow("maxFeePerGas", 128, self.max_fee_per_gas)?;
        let tip: Option<u128> = narrow("maxPriorityFeePerGas", 128, self.max_priority_fee_per_gas)?;
        if let (Some(cap), Some(tip)) = (cap, tip) {
            check_cap(cap, tip)?;
        }
        Ok(Fees::Dynamic { cap, tip })
    }
}

/// geth's rule that the cap is not below the tip, in geth's words.
pub fn check_cap(cap: u128, tip: u128) -> Result<(), TransactionError> {
    if cap < tip {
        return Err(invalid(format!("maxFeePerGas ({cap:#x}) < maxPriorityFeePerGas ({tip:#x})")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = r#""from":"0x00000000000000000000000000000000000000aa","to":"0x00000000000000000000000000000000000000bb""#;

    fn check(members: &str) -> Result<Request, String> {
        let text = format!("{{{FROM}{}{members}}}", if members.is_empty() { "" } else { "," });
        let arguments: Arguments = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        arguments.check(1337).map_err(|error| error.to_string())
    }

    #[test]
    fn quantities_are_strict() {
        assert_eq!(Quantity::parse("0x0"), Ok(Quantity(U256::ZERO)));
        assert_eq!(Quantity::parse("0xff"), Ok(Quantity(U256::from(255))));
        for (text, why) in [
            ("", "empty hex string"),
            ("5", "hex string without 0x prefix"),
            ("0x", "hex string \"0x\""),
            ("0x01", "hex number with leading zero digits"),
            ("0xg", "invalid hex string"),
            ("0x_1", "invalid hex string"),
        ] {
            assert_eq!(Quantity::parse(text), Err(why), "{text}");
        }
        assert_eq!(Quantity::parse(&format!("0x1{}", "0".repeat(64))), Err("hex number > 256 bits"));
    }

    #[test]
    fn the_words_are_geths() {
        let table = [
            (r#""gasPrice":"0x1","maxFeePerGas":"0x1""#, "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified"),
            (r#""maxFeePerGas":"0x1","maxPriorityFeePerGas":"0x2""#, "maxFeePerGas (0x1) < maxPriorityFeePerGas (0x2)"),
            (
                r#""data":"0x01","input":"0x02""#,
                r#"both "data" and "input" are set and not equal. Please use "input" to pass transaction call data"#,
            ),
            (r#""chainId":"0x1""#, "chainId does not match node's (have=1, want=1337)"),
            (r#""type":"0x3""#, "signing blob transactions not supported"),
            (r#""blobVersionedHashes":[]"#, "signing blob transactions not supported"),
            (r#""type":"0x5""#, "transaction type not supported"),
            (r#""authorizationList":[]"#, "EIP-7702 transaction with empty auth list"),
            (r#""gas":"0x10000000000000000""#, "gas: hex number > 64 bits"),
        ];
        for (members, words) in table {
            assert_eq!(check(members).err().as_deref(), Some(words), "{members}");
        }
        let creation: Arguments = serde_json::from_str(r#"{"from":"0x00000000000000000000000000000000000000aa"}"#).unwrap();
        assert_eq!(creation.check(1).unwrap_err().to_string(), "contract creation without any data provided");
        assert_eq!(Arguments::default().check(1).unwrap_err().to_string(), "unknown account");
    }

    /// What serde makes of [`Arguments`] by itself.
    #[test]
    fn every_member_that_is_read_is_listed() {
        struct Names;
        impl<'de> Deserializer<'de> for Names {
            type Error = de::value::Error;

            fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
                Err(de::Error::custom("no struct"))
            }

            fn deserialize_struct<V: Visitor<'de>>(
                self,
                _: &'static str,
                names: &'static [&'static str],
                _: V,
            ) -> Result<V::Value, Self::Error> {
                Err(de::Error::custom(names.join(" ")))
            }

            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
                newtype_struct seq tuple tuple_struct map enum identifier ignored_any
            }
        }
        let read = Arguments::deserialize(Names).unwrap_err().to_string();
        assert_eq!(read.split(' ').filter(|name| !MEMBERS.contains(name)).collect::<Vec<_>>(), Vec::<&str>::new());
        assert_eq!(MEMBERS.len(), read.split(' ').count() + ["commitments", "proofs"].len());
    }

    #[test]
    fn a_member_given_twice_is_an_error() {
        assert!(check(r#""value":"0x1","value":"0x2""#).unwrap_err().contains("duplicate field"));
    }

    #[test]
    fn input_and_equal_data_are_one() {
        let request = check(r#""data":"0x01","input":"0x01","value":"0x5","nonce":"0x7","gas":"0x5208","chainId":"0x539""#).unwrap();
        assert_eq!((request.input.as_ref(), request.value, request.nonce, request.gas), (&[1u8][..], U256::from(5), Some(7), Some(21000)));
        assert_eq!(request.fees, Fees::Dynamic { cap: None, tip: None });
    }

    #[test]
    fn the_type_follows_from_the_fees_or_is_asked_for() {
        assert_eq!(check(r#""gasPrice":"0x9""#).unwrap().fees, Fees::Price(9));
        assert_eq!(check(r#""type":"0x0""#).unwrap().fees, Fees::AnyPrice);
        assert_eq!(check(r#""type":"0x2","maxFeePerGas":"0x9""#).unwrap().fees, Fees::Dynamic { cap: Some(9), tip: None });
        assert!(check(r#""type":"0x2","gasPrice":"0x9""#).is_err());
    }
}
