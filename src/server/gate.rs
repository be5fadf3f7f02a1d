//! Who is let in: `Origin` and the bearer token. Looked at before anything else of a request, and never logged.

use std::path::Path;

use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;

use super::error::ServerError;
use crate::config::Secret;

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Gate {
    token: Option<Secret>,
    origins: Vec<String>,
}

impl Gate {
    /// Reads the token file, if one is set.
    pub(super) async fn open(token_file: Option<&Path>, origins: Vec<String>) -> Result<Self, ServerError> {
        let token = match token_file {
            None => None,
            Some(path) => Some(read_token(path).await?),
        };
        Ok(Self { token, origins })
    }

    /// False if a page of an origin that is not listed asks. Browsers always say the origin where it matters; other clients do not.
    pub(super) fn origin_allowed(&self, headers: &HeaderMap) -> bool {
        let listed = |value: &HeaderValue| self.origins.iter().any(|origin| value.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
        headers.get_all(ORIGIN).iter().all(listed)
    }

    /// Whether a token is needed.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether both need the same token, or none.
    pub(super) fn same_token(&self, other: &Self) -> bool {
        match (&self.token, &other.token) {
            (Some(one), Some(two)) => one.reveal().as_bytes().ct_eq(two.reveal().as_bytes()).into(),
            (one, two) => one.is_none() && two.is_none(),
        }
    }

    /// True if no token is needed, or the request has exactly one `Authorization` header and it holds the token.
    pub(super) fn authorised(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        bearer(value).is_some_and(|presented| presented.ct_eq(token.reveal().as_bytes()).into())
    }
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The one word in the file.
pub(super) async fn read_token(path: &Path) -> Result<Secret, ServerError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|source| ServerError::Read { what: "token", path: path.into(), source })?;
    let text = zeroize::Zeroizing::new(text);
    let token = text.trim();
    let problem = if token.is_empty() {
        "is empty"
    } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        "holds more than one word, or characters that no header can carry"
    } else {
        return Ok(Secret::new(token.to_owned()));
    };
    Err(ServerError::Content { what: "token", path: path.into(), problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(http::HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn gate() -> Gate {
        Gate { token: Some(Secret::new("s3cret".into())), origins: vec!["https://app.example".into()] }
    }

    #[test]
    fn only_the_token_opens() {
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert!(gate().authorised(&headers(&[(AUTHORIZATION, good)])), "{good}");
        }
        for bad in ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret", "Bearer S3CRET"] {
            assert!(!gate().authorised(&headers(&[(AUTHORIZATION, bad)])), "{bad}");
        }
        assert!(!gate().authorised(&headers(&[])));
        let mut twice = headers(&[(AUTHORIZATION, "Bearer s3cret")]);
        twice.append(AUTHORIZATION, "Bearer s3cret".parse().unwrap());
        assert!(!gate().authorised(&twice));
    }

    #[test]
    fn an_origin_is_refused_unless_listed() {
        assert!(gate().origin_allowed(&headers(&[])));
        assert!(gate().origin_allowed(&headers(&[(ORIGIN, "https://app.example")])));
        for bad in ["https://evil.example", "null", "", "https://app.example.evil", "http://app.example", "https://app.example:8443"] {
            assert!(!gate().origin_allowed(&headers(&[(ORIGIN, bad)])), "{bad}");
        }
        let mut both = headers(&[(ORIGIN, "https://app.example")]);
        both.append(ORIGIN, "https://evil.example".parse().unwrap());
        assert!(!gate().origin_allowed(&both));
    }

    #[tokio::test]
    async fn a_token_file_is_trimmed_and_must_hold_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in [("abc\n", true), ("  abc  ", true), ("", false), ("\n", false), ("a b", false), ("a\nb", false), ("ä", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Gate::open(Some(&path), Vec::new()).await.is_ok(), good, "{text:?}");
        }
        let missing = Gate::open(Some(&folder.path().join("none")), Vec::new()).await.unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
