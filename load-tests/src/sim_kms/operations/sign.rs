//! Sign, Verify, GetPublicKey.

use alloy_primitives::B256;
use data_encoding::BASE64;
use k256::ecdsa::Signature;
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::sha2::{Digest, Sha256};
use serde_json::{Value, json};

use super::super::core::{Kms, Signed};
use super::super::errors::KmsError;
use super::super::faults::Fault;
use super::super::key::{Key, KeyState, Presence};
use super::Call;

/// The longest message of MessageType RAW.
const MAX_MESSAGE: usize = 4_096;

impl Kms {
    pub(super) fn sign(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        if call.fault == Some(&Fault::AliasMoved) {
            self.move_alias(call);
        }
        let (_, key) = self.named(call)?;
        let digest = digest(call, key)?;
        key.usable()?;
        let wallet = key.wallet().ok_or_else(|| key.in_state())?.clone();
        let arn = key.arn.clone();
        if is_dry_run(call) {
            return Err(KmsError::dry_run());
        }
        let signature = self.signature(&wallet, digest, call.fault).ok_or_else(KmsError::internal)?;
        let milliseconds = u64::try_from(call.now.as_millis()).unwrap_or(u64::MAX);
        self.signed.push(Signed { milliseconds, arn: arn.clone(), digest });
        let arn = if call.fault == Some(&Fault::OtherKey) { format!("{arn}0") } else { arn };
        Ok(json!({ "KeyId": arn, "Signature": BASE64.encode(&signature), "SigningAlgorithm": "ECDSA_SHA_256" }))
    }

    pub(super) fn verify(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (_, key) = self.named(call)?;
        let digest = digest(call, key)?;
        let signature = call.bytes("Signature")?;
        key.usable()?;
        let wallet = key.wallet().ok_or_else(|| key.in_state())?;
        let is_valid = Signature::from_der(&signature).is_ok_and(|signature| {
            // k256 refuses a high S, KMS does not.
            let low = signature.normalize_s().unwrap_or(signature);
            wallet.key().verifying_key().verify_prehash(digest.as_slice(), &low).is_ok()
        });
        if !is_valid {
            return Err(KmsError::new("KMSInvalidSignatureException", "The signature is not valid."));
        }
        if is_dry_run(call) {
            return Err(KmsError::dry_run());
        }
        Ok(json!({ "KeyId": key.arn, "SignatureValid": true, "SigningAlgorithm": "ECDSA_SHA_256" }))
    }

    /// A key that is disabled or is to be deleted is still known.
    pub(super) fn public_key(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let (_, key) = self.named(call)?;
        if matches!(key.state, KeyState::Creating | KeyState::PendingImport | KeyState::Unavailable) || !key.has_material() {
            return Err(key.in_state());
        }
        Ok(json!({
            "KeyId": key.arn,
            "PublicKey": BASE64.encode(&key.spki()),
            "KeySpec": "ECC_SECG_P256K1",
            "CustomerMasterKeySpec": "ECC_SECG_P256K1",
            "KeyUsage": "SIGN_VERIFY",
            "SigningAlgorithms": ["ECDSA_SHA_256"],
        }))
    }

    /// The alias that the call names points at the next key of the place.
    fn move_alias(&mut self, call: Call<'_>) {
        let Some(name) = call.optional("KeyId").filter(|name| name.starts_with("alias/")) else { return };
        let Some(keys) = self.by_place.get(call.from) else { return };
        let Some(target) = self.aliases.get_mut(call.from).and_then(|aliases| aliases.get_mut(name)) else { return };
        let at = keys.iter().position(|index| Some(*index) == *target).unwrap_or(0);
        let present = |index: &&usize| self.keys.get(**index).is_some_and(|key| key.presence == Presence::Present);
        *target = keys.iter().cycle().skip(at + 1).take(keys.len()).find(present).copied();
    }
}

/// What is to be signed.
fn digest(call: Call<'_>, key: &Key) -> Result<B256, KmsError> {
    match call.text("SigningAlgorithm")? {
        "ECDSA_SHA_256" => {}
        other @ ("ECDSA_SHA_384" | "ECDSA_SHA_512" | "RSASSA_PSS_SHA_256" | "RSASSA_PKCS1_V1_5_SHA_256") => {
            let words = format!("Algorithm {other} is incompatible with key spec ECC_SECG_P256K1 of {}.", key.arn);
            return Err(KmsError::new("InvalidKeyUsageException", words));
        }
        other => {
            let words = format!("1 validation error detected: Value '{other}' at 'signingAlgorithm' failed to satisfy constraint");
            return Err(KmsError::validation(words));
        }
    }
    let message = call.bytes("Message")?;
    match call.optional("MessageType").unwrap_or("RAW") {
        "DIGEST" => {
            B256::try_from(message.as_slice()).map_err(|_| KmsError::validation("Digest is invalid length for algorithm ECDSA_SHA_256."))
        }
        "RAW" if (1..=MAX_MESSAGE).contains(&message.len()) => Ok(B256::from_slice(&Sha256::digest(&message))),
        _ => Err(KmsError::validation("1 validation error detected: the message or its type failed to satisfy constraint")),
    }
}

fn is_dry_run(call: Call<'_>) -> bool {
    call.body.get("DryRun") == Some(&Value::Bool(true))
}
