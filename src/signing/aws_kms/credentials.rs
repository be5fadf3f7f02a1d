//! Credentials that are there when a Sign needs them: resolved at the start, and renewed behind it before they expire.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::access::why;
use crate::telemetry::clock;

/// Credentials are renewed this long before they expire, or at half of their time if that is later; by chance up to half as long
/// again before.
const LEAD: Duration = Duration::from_secs(300);
/// Credentials that do not expire are read again this often: their file may have others by now.
const REREAD: Duration = Duration::from_secs(900);
/// Credentials that are as good as expired when they arrive do not make the task spin.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// No wait between two failed renewals is longer.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// Longest answer of the source that the task waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Refused credentials are read again from the source at most this often.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(60);

/// When to renew credentials that hold for `left` (none: they do not expire), counted from now. `random`, in [0, 1), spreads
/// gateways that began together.
fn renewal(left: Option<Duration>, random: f64) -> Duration {
    let Some(left) = left else { return REREAD.mul_f64(1.0 - random / 10.0) };
    let lead = LEAD.min(left / 2);
    left.saturating_sub(lead.mul_f64(1.0 + random / 2.0)).max(SHORTEST_WAIT)
}

/// When to ask again after so many renewals in a row have failed, at least one.
fn retry(failures: u32, random: f64) -> Duration {
    let ceiling = Duration::from_secs(1).saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_RETRY);
    ceiling.mul_f64(0.5 + random / 2.0)
}

/// Handles on the same credentials.
#[derive(Clone)]
pub(super) struct StandingCredentials(Arc<Shared>);

struct Shared {
    /// The configuration's, for logs.
    name: String,
    source: SharedCredentialsProvider,
    held: RwLock<Held>,
    /// The source is asked by one at a time; who waited finds what that one got.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    credentials: Option<Credentials>,
    /// How often they were exchanged.
    generation: u64,
    /// Whether AWS refused them.
    are_refused: bool,
    refused: Option<Instant>,
}

impl fmt::Debug for StandingCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandingCredentials").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl StandingCredentials {
    /// Nothing is asked yet.
    pub(super) fn new(name: &str, source: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Shared { name: name.to_owned(), source, held: RwLock::default(), asking: tokio::sync::Mutex::default() }))
    }

    /// The credentials, from the source if there are none that hold.
    pub(super) async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Some(credentials) = self.current() {
            return Ok(credentials);
        }
        let _asking = self.0.asking.lock().await;
        match self.current() {
            Some(credentials) => Ok(credentials),
            None => self.ask().await,
        }
    }

    /// Renews them until the handle is dropped.
    pub(super) fn renew(&self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(self.clone().renew_for_ever()))
    }

    /// Which credentials there are, once there are some that hold: the number grows with each exchange.
    pub(super) async fn generation(&self) -> Result<u64, CredentialsError> {
        self.get().await?;
        Ok(self.0.held.read().unwrap_or_else(PoisonError::into_inner).generation)
    }

    /// Notes that AWS refused the credentials of `generation`: whoever needs some next asks the source. True if there are, or
    /// may be, newer ones to try.
    pub(super) fn refuse(&self, generation: u64) -> bool {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.generation > generation || held.are_refused {
            return true;
        }
        if held.refused.is_some_and(|at| at.elapsed() < REFUSAL_INTERVAL) {
            return false;
        }
        tracing::warn!(configuration = self.0.name, "AWS refused the credentials; reading them again");
        held.are_refused = true;
        held.refused = Some(Instant::now());
        true
    }

    /// What is held, if it holds.
    fn current(&self) -> Option<Credentials> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let holds = |credentials: &&Credentials| !held.are_refused && credentials.expiry().is_none_or(|at| clock::wall() < at);
        held.credentials.as_ref().filter(holds).cloned()
    }

    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        let credentials = self.0.source.provide_credentials().await?;
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.generation += 1;
        (held.credentials, held.are_refused) = (Some(credentials.clone()), false);
        Ok(credentials)
    }

    /// How long what is held holds yet; none: it does not expire.
    fn left(&self) -> Option<Duration> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        let expiry = held.credentials.as_ref()?.expiry()?;
        Some(expiry.duration_since(clock::wall()).unwrap_or_default())
    }

    async fn renew_for_ever(self) {
        let mut failures = 0;
        loop {
            let random = rand::random();
            tokio::time::sleep(if failures == 0 { renewal(self.left(), random) } else { retry(failures, random) }).await;
            let _asking = self.0.asking.lock().await;
            let error = match tokio::time::timeout(PATIENCE, self.ask()).await {
                Ok(Ok(_)) => {
                    failures = 0;
                    continue;
                }
                Ok(Err(error)) => why(&error),
                Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
            };
            failures += 1;
            tracing::warn!(configuration = self.0.name, error, "the AWS credentials cannot be renewed; those that are there go on");
        }
    }
}

impl ProvideCredentials for StandingCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use aws_sdk_sts::error::ErrorMetadata;
    use aws_sdk_sts::operation::assume_role::AssumeRoleError;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::telemetry::captured::Captured;
    use crate::telemetry::clock::simulated;

    /// Gives credentials `1`, `2`, … that hold for a while, when it is let; or fails.
    #[derive(Debug)]
    struct Scripted {
        life: Option<Duration>,
        allowed: Semaphore,
        asked: Mutex<u32>,
        fails: Mutex<bool>,
    }

    #[derive(Debug, Clone)]
    struct Source(Arc<Scripted>);

    impl ProvideCredentials for Source {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let number = {
                    let mut asked = self.0.asked.lock().unwrap();
                    *asked += 1;
                    *asked
                };
                self.0.allowed.acquire().await.unwrap().forget();
                if *self.0.fails.lock().unwrap() {
                    return Err(CredentialsError::provider_error("the source is down"));
                }
                let expiry = self.0.life.map(|life| clock::wall() + life);
                Ok(Credentials::new(number.to_string(), "secret", None, expiry, "scripted"))
            })
        }
    }

    /// A source whose credentials hold so long, and what stands before it. The time of day moves with the paused clock.
    fn set_up(life: Option<Duration>) -> (Source, StandingCredentials) {
        simulated::set(Some((clock::now(), SystemTime::UNIX_EPOCH)));
        let source = Source(Arc::new(Scripted { life, allowed: Semaphore::new(0), asked: Mutex::default(), fails: Mutex::default() }));
        (source.clone(), StandingCredentials::new("kms", SharedCredentialsProvider::new(source)))
    }

    impl Source {
        fn asked(&self) -> u32 {
            *self.0.asked.lock().unwrap()
        }
    }

    /// What is given without a wait, if anything is.
    fn at_once(standing: &StandingCredentials) -> Option<String> {
        use futures_util::FutureExt as _;
        standing.get().now_or_never().map(|given| given.unwrap().access_key_id().to_owned())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_sign_has_credentials_at_once_while_they_are_renewed() {
        let (source, standing) = set_up(Some(HOUR));
        source.0.allowed.add_permits(1);
        standing.get().await.unwrap();
        let _renewing = standing.renew();
        tokio::time::sleep(HOUR - LEAD).await;
        assert!(source.asked() > 1, "the renewal is under way, and slow");
        assert_eq!(at_once(&standing).as_deref(), Some("1"));
        source.0.allowed.add_permits(100);
        tokio::time::sleep(LONGEST_RETRY).await;
        assert_ne!(at_once(&standing).as_deref(), Some("1"));
        // For hours, without a gap.
        let before = source.asked();
        for _ in 0..100 {
            tokio::time::sleep(HOUR / 10).await;
            assert!(at_once(&standing).is_some());
        }
        assert!((9..=12).contains(&(source.asked() - before)), "{} renewals in ten hours", source.asked() - before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_is_asked_again_and_what_holds_goes_on() {
        let (source, standing) = set_up(Some(HOUR));
        source.0.allowed.add_permits(1000);
        standing.get().await.unwrap();
        *source.0.fails.lock().unwrap() = true;
        let _renewing = standing.renew();
        tokio::time::sleep(HOUR - Duration::from_secs(1)).await;
        assert_eq!(at_once(&standing).as_deref(), Some("1"));
        assert!(source.asked() > 5, "{}", source.asked());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(standing.get().await.is_err(), "expired");
        *source.0.fails.lock().unwrap() = false;
        tokio::time::sleep(LONGEST_RETRY).await;
        assert!(at_once(&standing).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn why_they_cannot_be_renewed_is_logged_by_its_code() {
        #[derive(Debug)]
        struct Refused;

        impl ProvideCredentials for Refused {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                let error = ErrorMetadata::builder().code("RegionDisabledException").message("words of STS").build();
                future::ProvideCredentials::ready(Err(CredentialsError::provider_error(AssumeRoleError::generic(error))))
            }
        }

        let log = Captured::begin(tracing::Level::WARN);
        let _renewing = StandingCredentials::new("kms", SharedCredentialsProvider::new(Refused)).renew();
        tokio::time::sleep(REREAD).await;
        let text = log.text();
        assert!(text.contains("STS: RegionDisabledException") && !text.contains("words of STS"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_read_again_once_in_a_while() {
        let (source, standing) = set_up(None);
        source.0.allowed.add_permits(10);
        standing.get().await.unwrap();
        let first = standing.generation().await.unwrap();
        assert!(standing.refuse(first) && standing.refuse(first), "both who were refused may try again");
        let both = futures_util::join!(standing.get(), standing.get());
        assert_eq!((both.0.unwrap().access_key_id(), both.1.unwrap().access_key_id()), ("2", "2"), "one question for both");
        assert!(standing.refuse(first), "there are newer ones");
        assert!(!standing.refuse(standing.generation().await.unwrap()), "the new ones are refused too: nothing helps for now");
        assert_eq!(source.asked(), 2);
        tokio::time::sleep(REFUSAL_INTERVAL).await;
        assert!(standing.refuse(standing.generation().await.unwrap()));
    }

    #[test]
    fn renewals_come_before_the_end_and_not_all_at_once() {
        for random in [0.0, 0.5, 0.999] {
            for seconds in [4, 900, 3600, 43_200] {
                let left = Duration::from_secs(seconds);
                let wait = renewal(Some(left), random);
                assert!(wait < left && left - wait <= LEAD.mul_f64(1.5) && wait >= left / 4, "{left:?} {wait:?}");
            }
            assert_eq!(renewal(Some(Duration::ZERO), random), SHORTEST_WAIT);
            assert!(renewal(None, random) <= REREAD);
            assert!(retry(1, random) >= Duration::from_secs(1) && retry(40, random) <= LONGEST_RETRY);
        }
        assert_ne!(renewal(Some(HOUR), 0.1), renewal(Some(HOUR), 0.9));
    }
}
