//! Signatures over messages: `eth_sign`, `personal_sign` (both EIP-191, always) and `eth_signTypedData` (EIP-712).

use std::sync::Arc;
use std::time::Instant;

use alloy_dyn_abi::TypedData;
use alloy_primitives::{Address, B256, Bytes, eip191_hash_message};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};

use super::arguments::Arguments;
use super::refusals::{invalid_argument, refusal};
use super::send::usable_key;
use super::service::{Service, waited};
use crate::signing::MESSAGE;
use crate::transactions::errors::TransactionError;

type Answer<T> = Result<T, ErrorObjectOwned>;

/// Registers the methods.
pub(super) fn register(module: &mut RpcModule<Service>) -> Result<(), jsonrpsee::server::RegisterMethodError> {
    module.register_async_method("eth_sign", |params, service, extensions| async move {
        let (address, message) = message(&params, 0, 1)?;
        sign(&service, address, eip191_hash_message(message), &extensions).await
    })?;
    module.register_async_method("personal_sign", |params, service, extensions| async move {
        let (address, message) = message(&params, 1, 0)?;
        sign(&service, address, eip191_hash_message(message), &extensions).await
    })?;
    for name in ["eth_signTypedData", "eth_signTypedData_v4"] {
        module.register_async_method(name, |params, service, extensions| async move {
            let arguments = Arguments::of(&params)?;
            let address: Address = arguments.required(0)?;
            let data: TypedData = arguments.required(1)?;
            let digest = data.eip712_signing_hash().map_err(|error| invalid_argument(1, error))?;
            sign(&service, address, digest, &extensions).await
        })?;
    }
    Ok(())
}

fn message(params: &Params<'_>, address: usize, message: usize) -> Answer<(Address, Bytes)> {
    let arguments = Arguments::of(params)?;
    Ok((arguments.required(address)?, arguments.required(message)?))
}

/// r ‖ s ‖ v with v 27 or 28, as geth.
async fn sign(service: &Arc<Service>, address: Address, digest: B256, extensions: &Extensions) -> Answer<Bytes> {
    let key = usable_key(service, address).map_err(refusal)?;
    let asked = Instant::now();
    let signed = service.chain.scheduler().sign(&key, digest, MESSAGE).await;
    waited(extensions).since(asked);
    match signed {
        Ok(signature) => Ok(Bytes::copy_from_slice(&signature.as_bytes())),
        Err(error) => {
            error.tell(address);
            Err(refusal(TransactionError::Sign(error.class)))
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    /// The example of EIP-712 ("Mail").
    const MAIL: &str = r#"{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"version","type":"string"},
        {"name":"chainId","type":"uint256"},{"name":"verifyingContract","type":"address"}],
        "Person":[{"name":"name","type":"string"},{"name":"wallet","type":"address"}],
        "Mail":[{"name":"from","type":"Person"},{"name":"to","type":"Person"},{"name":"contents","type":"string"}]},
        "primaryType":"Mail","domain":{"name":"Ether Mail","version":"1","chainId":1,
        "verifyingContract":"0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"},
        "message":{"from":{"name":"Cow","wallet":"0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
        "to":{"name":"Bob","wallet":"0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},"contents":"Hello, Bob!"}}"#;

    #[test]
    fn eip_712_example_as_object_and_as_text() {
        let expected = "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2";
        let data: TypedData = serde_json::from_str(MAIL).unwrap();
        assert_eq!(hex::encode(data.eip712_signing_hash().unwrap()), expected);
        let text = serde_json::to_string(MAIL).unwrap();
        let data: TypedData = serde_json::from_str(&text).unwrap();
        assert_eq!(hex::encode(data.eip712_signing_hash().unwrap()), expected);
    }

    #[test]
    fn eip_191_has_the_prefix_and_the_length() {
        let expected = "d9eba16ed0ecae432b71fe008c98cc872bb4cc214d3220a36f365326cf807d68";
        assert_eq!(hex::encode(eip191_hash_message("hello world")), expected);
    }

    #[test]
    fn the_two_orders_of_arguments() {
        let address = Address::repeat_byte(1);
        let sign = format!(r#"["{address}","0x01"]"#);
        let personal = format!(r#"["0x01","{address}"]"#);
        assert_eq!(message(&Params::new(Some(&sign)), 0, 1).unwrap(), (address, Bytes::from_static(&[1])));
        assert_eq!(message(&Params::new(Some(&personal)), 1, 0).unwrap(), (address, Bytes::from_static(&[1])));
        let told = message(&Params::new(Some("[]")), 0, 1).unwrap_err();
        assert_eq!((told.code(), told.message()), (-32602, "missing value for required argument 0"));
    }
}
