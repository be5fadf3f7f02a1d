//! GetParametersForImport, ImportKeyMaterial, DeleteImportedKeyMaterial.

use std::time::Duration;

use alloy_primitives::keccak256;
use data_encoding::BASE64;
use k256::SecretKey;
use k256::ecdsa::SigningKey;
use k256::pkcs8::DecodePrivateKey;
use serde_json::{Value, json};

use super::super::core::{Kms, Timer};
use super::super::errors::KmsError;
use super::super::key::{Key, KeyState, Material, Origin, date};
use super::super::wrapping;
use super::Call;
use crate::wallet::Wallet;

impl Kms {
    pub(super) fn parameters_for_import(&self, call: Call<'_>) -> Result<Value, KmsError> {
        let (_, key) = self.importable(call)?;
        let (algorithm, spec) = (call.text("WrappingAlgorithm")?, call.text("WrappingKeySpec")?);
        if !wrapping::is_known(algorithm) {
            return Err(KmsError::unsupported(format!("WrappingAlgorithm {algorithm} is not simulated")));
        }
        let public_key = wrapping::public_key(spec);
        let public_key = public_key.ok_or_else(|| KmsError::unsupported(format!("WrappingKeySpec {spec} is not simulated")))?;
        let expires = call.now + wrapping::VALID;
        Ok(json!({
            "KeyId": key.arn,
            "ImportToken": BASE64.encode(self.token(key, spec, algorithm, expires).as_bytes()),
            "PublicKey": BASE64.encode(&public_key),
            "ParametersValidTo": date(self.settings.epoch(), expires),
        }))
    }

    pub(super) fn import_key_material(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (index, key) = self.importable(call)?;
        let expires = self.expiration(call)?;
        let (token, wrapped) = (call.bytes("ImportToken")?, call.bytes("EncryptedKeyMaterial")?);
        let (spec, algorithm) = self.check_token(key, &token, call.now)?;
        let material = wrapping::unwrap(&spec, &algorithm, &wrapped)
            .ok_or_else(|| KmsError::new("InvalidCiphertextException", "The key material cannot be decrypted."))?;
        let incorrect = |words: &str| KmsError::new("IncorrectKeyMaterialException", words);
        let secret = SecretKey::from_pkcs8_der(&material)
            .map_err(|_| incorrect("The key material is no private key of ECC_SECG_P256K1 as PKCS#8 in DER."))?;
        let wallet = Wallet::of(SigningKey::from(secret));
        if key.bound.is_some_and(|bound| bound != wallet.address()) {
            return Err(incorrect("The key material is not the one that was imported before."));
        }
        let (arn, id, account, address) = (key.arn.clone(), key.id.clone(), key.place.account.clone(), wallet.address());
        // The replicas of a key take the same material only.
        self.keys.iter_mut().filter(|key| key.id == id && key.place.account == account).for_each(|key| key.bound = Some(address));
        if let Some(key) = self.keys.get_mut(index) {
            (key.material, key.expires) = (Material::Imported(wallet), expires);
            if key.state == KeyState::PendingImport {
                key.state = KeyState::Enabled;
            }
        }
        if let Some(at) = expires {
            self.timers.insert((at, index, Timer::Expire));
        }
        Ok(json!({ "KeyId": arn }))
    }

    pub(super) fn delete_imported_key_material(&mut self, call: Call<'_>) -> Result<Value, KmsError> {
        let (index, key) = self.importable(call)?;
        let arn = key.arn.clone();
        if let Some(key) = self.keys.get_mut(index) {
            key.lose_material();
        }
        Ok(json!({ "KeyId": arn }))
    }

    /// A key whose material comes from outside, and which stays.
    fn importable(&self, call: Call<'_>) -> Result<(usize, &Key), KmsError> {
        let (index, key) = self.owned(call)?;
        if key.origin != Origin::External {
            return Err(KmsError::unsupported(format!("{} origin is not EXTERNAL.", key.arn)));
        }
        match key.state {
            KeyState::PendingImport | KeyState::Enabled | KeyState::Disabled => Ok((index, key)),
            _ => Err(key.in_state()),
        }
    }

    /// When the material is to expire, on the clock of KMS.
    fn expiration(&self, call: Call<'_>) -> Result<Option<Duration>, KmsError> {
        let valid_to = call.body.get("ValidTo").and_then(Value::as_f64);
        match (call.optional("ExpirationModel").unwrap_or("KEY_MATERIAL_EXPIRES"), valid_to) {
            ("KEY_MATERIAL_EXPIRES", Some(at)) => {
                let at = Duration::try_from_secs_f64(at).unwrap_or_default().saturating_sub(self.settings.epoch());
                let is_ahead = at > call.now;
                is_ahead.then_some(Some(at)).ok_or_else(|| KmsError::validation("ValidTo must be in the future."))
            }
            ("KEY_MATERIAL_DOES_NOT_EXPIRE", None) => Ok(None),
            ("KEY_MATERIAL_EXPIRES", None) => {
                Err(KmsError::validation("A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES."))
            }
            ("KEY_MATERIAL_DOES_NOT_EXPIRE", Some(_)) => {
                Err(KmsError::validation("A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE."))
            }
            (other, _) => Err(KmsError::validation(format!("Value '{other}' at 'expirationModel' failed to satisfy constraint"))),
        }
    }

    /// A token says what it is for, and that this KMS has made it.
    fn token(&self, key: &Key, spec: &str, algorithm: &str, expires: Duration) -> String {
        let content = format!("{}|{spec}|{algorithm}|{}", key.arn, expires.as_nanos());
        let seal = keccak256(format!("{}|import|{content}", self.settings.seed));
        format!("{content}|{seal}")
    }

    /// The wrapping key and the algorithm that a token is for.
    fn check_token(&self, key: &Key, token: &[u8], now: Duration) -> Result<(String, String), KmsError> {
        let invalid = || KmsError::new("InvalidImportTokenException", "The import token is invalid or is of another key.");
        let token = std::str::from_utf8(token).map_err(|_| invalid())?;
        let parts: Vec<&str> = token.split('|').collect();
        let [_, spec, algorithm, expires, _] = parts.as_slice() else { return Err(invalid()) };
        let expires = Duration::from_nanos(expires.parse().map_err(|_| invalid())?);
        if token != self.token(key, spec, algorithm, expires) {
            return Err(invalid());
        }
        if now >= expires {
            return Err(KmsError::new("ExpiredImportTokenException", "The import token has expired."));
        }
        Ok(((*spec).to_owned(), (*algorithm).to_owned()))
    }
}
