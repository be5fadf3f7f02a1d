//! Who sends a request: Signature Version 4 of AWS, checked as AWS checks it. The canonical request is built here from what has
//! arrived, so that an SDK that signs is checked by something that it shares no code with.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use data_encoding::HEXLOWER;
use http::HeaderMap;
use http::request::Parts;

use super::errors::KmsError;
use super::settings::{AccessKey, Place};
use super::time::{read, write};

/// How far a caller's clock may be off.
const SKEW: Duration = Duration::from_secs(300);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What an Authorization header says.
#[derive(Debug, Clone, Copy)]
struct Authorization<'a> {
    access_key: &'a str,
    /// YYYYMMDD.
    day: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

/// The Region in the credential scope of a request, whoever has signed it.
pub(super) fn region(headers: &HeaderMap) -> Option<&str> {
    let (_, rest) = text(headers, "authorization")?.split_once("Credential=")?;
    rest.split(['/', ',', ' ']).nth(2)
}

/// The account and the Region of a request that one of these keys has signed; `now` is Unix time.
pub(super) fn authenticate(keys: &[AccessKey], parts: &Parts, body: &[u8], now: Duration) -> Result<Place, KmsError> {
    let headers = &parts.headers;
    let header = text(headers, "authorization")
        .ok_or_else(|| KmsError::new("MissingAuthenticationTokenException", "Missing Authentication Token"))?;
    let authorization = parse(header)?;
    let Authorization { day, region, service, .. } = authorization;
    let date = text(headers, "x-amz-date")
        .ok_or_else(|| incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."))?;
    let at = read(date).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'."))?;
    let key = keys.iter().find(|key| key.id == authorization.access_key).ok_or_else(unrecognized)?;
    if key.session_token.as_deref() != text(headers, "x-amz-security-token") {
        return Err(unrecognized());
    }
    if key.expires.is_some_and(|expires| now >= expires) {
        return Err(KmsError::new("ExpiredTokenException", "The security token included in the request is expired"));
    }
    if !date.starts_with(day) {
        return Err(invalid(format!(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{day}' != '{date}'"
        )));
    }
    if service != "kms" {
        return Err(invalid("Credential should be scoped to correct service: 'kms'. "));
    }
    if at + SKEW < now {
        let (limit, now) = (write(now.saturating_sub(SKEW)), write(now));
        return Err(invalid(format!("Signature expired: {date} is now earlier than {limit} ({now} - 5 min.)")));
    }
    if at > now + SKEW {
        let (limit, now) = (write(now + SKEW), write(now));
        return Err(invalid(format!("Signature not yet current: {date} is still later than {limit} ({now} + 5 min.)")));
    }
    let canonical = canonical_request(parts, body, authorization.signed_headers)?;
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let string_to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hash(canonical.as_bytes()));
    let secret = format!("AWS4{}", key.secret);
    let signing_key =
        [day, region, service, "aws4_request"].iter().fold(secret.into_bytes(), |key, part| mac(&key, part).as_ref().to_vec());
    let expected = HEXLOWER.encode(mac(&signing_key, &string_to_sign).as_ref());
    if expected != authorization.signature {
        return Err(invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
        ));
    }
    Ok(Place::new(&key.account, region))
}

fn parse(header: &str) -> Result<Authorization<'_>, KmsError> {
    let rest = header.strip_prefix(ALGORITHM).ok_or_else(|| incomplete(format!("Unsupported signing algorithm; it is {ALGORITHM}.")))?;
    let part = |name: &str| {
        let found = rest.split(',').map(str::trim).find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| incomplete(format!("Authorization header requires '{name}' parameter.")))
    };
    let (credential, signed_headers, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
    let scope: Vec<&str> = credential.split('/').collect();
    match scope.as_slice() {
        [access_key, day, region, service, "aws4_request"] => {
            Ok(Authorization { access_key, day, region, service, signed_headers, signature })
        }
        _ => Err(incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'"
        ))),
    }
}

/// The canonical request; what must be signed is.
fn canonical_request(parts: &Parts, body: &[u8], signed_headers: &str) -> Result<String, KmsError> {
    let names: Vec<&str> = signed_headers.split(';').collect();
    let must = parts.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-") || *name == "host");
    if let Some(unsigned) = must.into_iter().find(|name| !names.contains(name)) {
        return Err(invalid(format!("'{unsigned}' must be a 'SignedHeader' in the AWS Authorization.")));
    }
    let mut headers = String::new();
    for name in &names {
        let values: Vec<String> = parts.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).map(one_space).collect();
        headers += &format!("{name}:{}\n", values.join(","));
    }
    let mut query: Vec<&str> = parts.uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()).collect();
    query.sort_unstable();
    let payload = hash(body);
    if text(&parts.headers, "x-amz-content-sha256").is_some_and(|said| said != payload) {
        return Err(invalid("The provided 'x-amz-content-sha256' header does not match what was computed."));
    }
    Ok([parts.method.as_str(), parts.uri.path(), &query.join("&"), &headers, signed_headers, &payload].join("\n"))
}

/// Runs of spaces count as one.
fn one_space(value: &str) -> String {
    value.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), text.as_bytes())
}

fn incomplete(words: impl Into<String>) -> KmsError {
    KmsError::new("IncompleteSignatureException", words)
}

fn invalid(words: impl Into<String>) -> KmsError {
    KmsError::new("InvalidSignatureException", words)
}

fn unrecognized() -> KmsError {
    KmsError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
}
