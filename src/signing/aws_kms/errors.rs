//! What an error of AWS KMS means for whoever asked: pure, over the provider's code, the HTTP status and the kind of fault.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};

use crate::signing::{KeyStoreError, SignClass};

/// Longest text of the provider that an error carries, in characters.
pub(super) const LONGEST_MESSAGE: usize = 300;

/// Where a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The service answered with an error.
    Service,
    /// No answer, or one that cannot be read: connect, time-out, reset.
    Transport,
    /// The credentials chain gave none.
    NoCredentials,
    /// The request could not be built.
    Request,
}

/// An error of one call, as far as decisions need it.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) class: SignClass,
    /// The provider's code, without a namespace.
    pub(super) code: Option<String>,
    pub(super) detail: String,
}

impl Fault {
    /// Whether this one key is not for us, or is gone: a listing goes on without it.
    pub(super) fn concerns_one_key(&self) -> bool {
        matches!(self.code.as_deref(), Some("AccessDeniedException" | "NotFoundException"))
    }

    /// Whether fresh credentials could help.
    pub(super) fn has_stale_credentials(&self) -> bool {
        self.code.as_deref().is_some_and(|code| code.starts_with("ExpiredToken") || code.starts_with("UnrecognizedClient"))
    }
}

impl From<KeyStoreError> for Fault {
    /// A fault without a code of the provider.
    fn from(error: KeyStoreError) -> Self {
        Self { class: error.class, code: None, detail: error.detail }
    }
}

impl From<Fault> for KeyStoreError {
    fn from(fault: Fault) -> Self {
        Self { class: fault.class, detail: fault.detail }
    }
}

/// The class of an error. `message` decides only between the states of KMSInvalidStateException.
pub(super) fn classify(kind: FaultKind, code: Option<&str>, status: Option<u16>, message: &str) -> SignClass {
    match kind {
        FaultKind::Transport => return SignClass::Transient,
        FaultKind::NoCredentials => return SignClass::Credentials,
        FaultKind::Request => return SignClass::Configuration,
        FaultKind::Service => {}
    }
    match code.unwrap_or_default() {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" | "SlowDown" => SignClass::Throttled,
        "KMSInternalException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => SignClass::Transient,
        "KMSInvalidStateException" if passes_in_seconds(message) => SignClass::Transient,
        "KMSInvalidStateException" | "DisabledException" => SignClass::KeyDown,
        "AccessDenied"
        | "AccessDeniedException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClient"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed" => SignClass::Credentials,
        // LimitExceededException is a resource quota, not a rate: it does not pass.
        "LimitExceededException"
        | "NotFoundException"
        | "InvalidKeyUsageException"
        | "ValidationException"
        | "UnsupportedOperationException" => SignClass::Configuration,
        _ => match status {
            Some(429) => SignClass::Throttled,
            Some(401 | 403) => SignClass::Credentials,
            Some(408 | 500..=599) => SignClass::Transient,
            _ => SignClass::Configuration,
        },
    }
}

/// A key that is being created or updated can sign in a moment; any other state needs somebody.
fn passes_in_seconds(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("creating") || message.contains("updating")
}

/// Reads an SDK error. Nothing of the request goes into the detail, and of refused credentials only the code does: the
/// provider's words for a bad signature repeat the Authorization header.
pub(super) fn fault<E>(operation: &str, error: &SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let kind = match error {
        SdkError::ServiceError(_) => FaultKind::Service,
        _ if lacks_credentials(error) => FaultKind::NoCredentials,
        SdkError::ConstructionFailure(_) => FaultKind::Request,
        SdkError::DispatchFailure(failure) if failure.is_user() => FaultKind::Request,
        _ => FaultKind::Transport,
    };
    let service = error.as_service_error();
    let code = service.and_then(ProvideErrorMetadata::code).map(|code| code.rsplit('#').next().unwrap_or(code).to_owned());
    let message = service.and_then(ProvideErrorMetadata::message).unwrap_or_default();
    let status = error.raw_response().map(|response| response.status().as_u16());
    let class = classify(kind, code.as_deref(), status, message);
    let detail = match (kind, code.as_deref()) {
        (FaultKind::Service, Some(code)) if class == SignClass::Credentials && code != "AccessDeniedException" => {
            format!("AWS KMS {operation}: {code}")
        }
        (FaultKind::Service, Some(code)) => {
            format!("AWS KMS {operation}: {code}: {}", message.chars().take(LONGEST_MESSAGE).collect::<String>())
        }
        (FaultKind::Service, None) => format!("AWS KMS {operation}: an error without a code, HTTP status {}", status.unwrap_or_default()),
        (FaultKind::NoCredentials, _) => format!("AWS KMS {operation}: the credentials chain gave no credentials"),
        (FaultKind::Request, _) => format!("AWS KMS {operation}: the request could not be built"),
        (FaultKind::Transport, _) => format!("AWS KMS {operation}: no answer: {}", transport(error)),
    };
    Fault { class, code, detail }
}

/// There are no credentials to call with, and why.
pub(super) fn no_credentials(operation: &str, why: &str) -> Fault {
    let detail = format!("AWS KMS {operation}: no credentials: {why}");
    Fault { class: classify(FaultKind::NoCredentials, None, None, ""), code: None, detail }
}

fn lacks_credentials<E: Error + 'static>(error: &SdkError<E>) -> bool {
    let sources = std::iter::successors(error.source(), |source| (*source).source());
    // A chain that only took too long may answer the next time.
    sources.filter_map(|source| source.downcast_ref::<CredentialsError>()).any(|e| !matches!(e, CredentialsError::ProviderTimedOut(_)))
}

/// The kind of failure and the innermost word for it ("Connection refused"), which names no URL.
fn transport<E: Error + 'static>(error: &SdkError<E>) -> String {
    let kind = match error {
        SdkError::TimeoutError(_) => return "time-out".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return "time-out while connecting".to_owned(),
        SdkError::ResponseError(_) => "unreadable",
        _ => "connection",
    };
    let innermost = std::iter::successors(error.source(), |source| (*source).source()).last();
    match innermost.and_then(|source| source.downcast_ref::<std::io::Error>()) {
        Some(io) => format!("{kind}: {}", io.kind()),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_class() {
        use SignClass::*;
        let table = [
            ("ThrottlingException", 400, "Rate exceeded", Throttled),
            ("KMSInternalException", 500, "", Transient),
            ("DependencyTimeoutException", 503, "", Transient),
            ("KeyUnavailableException", 500, "", Transient),
            ("KMSInvalidStateException", 400, "arn:aws:kms:… is Creating.", Transient),
            ("KMSInvalidStateException", 400, "arn:aws:kms:… is updating.", Transient),
            ("KMSInvalidStateException", 400, "arn:aws:kms:… is pending deletion.", KeyDown),
            ("KMSInvalidStateException", 400, "arn:aws:kms:… is pending import.", KeyDown),
            ("KMSInvalidStateException", 400, "", KeyDown),
            ("DisabledException", 400, "arn:aws:kms:… is disabled.", KeyDown),
            ("LimitExceededException", 400, "", Configuration),
            ("NotFoundException", 400, "", Configuration),
            ("InvalidKeyUsageException", 400, "", Configuration),
            ("ValidationException", 400, "", Configuration),
            ("UnsupportedOperationException", 400, "", Configuration),
            ("AccessDeniedException", 400, "", Credentials),
            ("AccessDeniedException", 403, "", Credentials),
            ("ExpiredTokenException", 400, "", Credentials),
            ("ExpiredToken", 403, "", Credentials),
            ("UnrecognizedClientException", 400, "", Credentials),
            ("IncompleteSignature", 400, "", Credentials),
            ("IncompleteSignatureException", 403, "", Credentials),
        ];
        for (code, status, message, class) in table {
            assert_eq!(classify(FaultKind::Service, Some(code), Some(status), message), class, "{code} {status} {message}");
        }
    }

    #[test]
    fn without_a_known_code_the_status_decides() {
        use SignClass::*;
        let table = [
            (None, Some(500), Transient),
            (None, Some(502), Transient),
            (None, Some(503), Transient),
            (None, Some(504), Transient),
            (Some("SomethingNewException"), Some(500), Transient),
            (Some("SomethingNewException"), Some(400), Configuration),
            (None, Some(429), Throttled),
            (None, Some(403), Credentials),
            (None, Some(404), Configuration),
            (None, None, Configuration),
        ];
        for (code, status, class) in table {
            assert_eq!(classify(FaultKind::Service, code, status, ""), class, "{code:?} {status:?}");
        }
    }

    #[test]
    fn without_an_answer_the_kind_decides() {
        assert_eq!(classify(FaultKind::Transport, None, None, ""), SignClass::Transient);
        assert_eq!(classify(FaultKind::NoCredentials, None, None, ""), SignClass::Credentials);
        assert_eq!(classify(FaultKind::Request, None, None, ""), SignClass::Configuration);
    }
}
