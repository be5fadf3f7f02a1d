//! Errors as KMS answers them.

use serde::{Deserialize, Serialize};

/// An error of KMS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsError {
    /// HTTP status.
    pub status: u16,
    /// Its code, such as `ThrottlingException`.
    pub code: String,
    /// Words beside it.
    pub message: String,
}

impl KmsError {
    /// One with status 400, as most are.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.into(), message: message.into() }
    }

    /// The quota is used up.
    pub fn throttled() -> Self {
        Self::new("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")
    }

    /// KMS has a fault of its own.
    pub fn internal() -> Self {
        Self { status: 500, ..Self::new("KMSInternalException", "The request was rejected because an internal exception occurred.") }
    }

    /// The call would have succeeded, and was only a question.
    pub(super) fn dry_run() -> Self {
        Self { status: 412, ..Self::new("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.") }
    }

    pub(super) fn not_found(name: &str) -> Self {
        Self::new("NotFoundException", format!("Key '{name}' does not exist"))
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    /// The field is missing, or not of its type.
    pub(super) fn missing(field: &str) -> Self {
        let mut name = field.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        Self::validation(format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    }
}
