//! The circuit breaker of one holder: while it is open, nothing is asked of the holder but whether it can sign again. No clock, no
//! chance, no I/O: time and a random share come in.

use std::time::Duration;

use tokio::time::Instant;

use crate::signing::{KeyStoreError, SignClass};

/// Passing faults in a row, without a signature between them, that open it.
const FAULTS: u32 = 5;
/// Time to the first probe; it doubles with every further one, until a Sign works.
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// No time between probes is longer.
const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// Whether a holder is asked to sign.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: Option<Open>,
    /// Passing faults in a row, and when the first of them was.
    faults: Option<(u32, Instant)>,
    /// Probes planned since a Sign worked.
    probes: u32,
}

#[derive(Debug)]
struct Open {
    /// Why.
    error: KeyStoreError,
    /// When it is probed next; none while a probe is under way.
    probe: Option<Instant>,
}

impl Breaker {
    /// Why it is open, if it is.
    pub(super) fn error(&self) -> Option<&KeyStoreError> {
        self.open.as_ref().map(|open| &open.error)
    }

    /// A Sign worked. One that was issued before the breaker opened does not close it.
    pub(super) fn worked(&mut self) {
        if self.open.is_none() {
            *self = Self::default();
        }
    }

    /// A Sign failed. A fault that does not pass opens the breaker at once; passing ones open it when they are several in a row and
    /// last for `patience`. Throttling and bad signatures say nothing about the holder. True if this one opens it.
    pub(super) fn failed(&mut self, error: &KeyStoreError, patience: Duration, now: Instant, share: f64) -> bool {
        if self.open.is_some() {
            return false;
        }
        let opens = match error.class {
            SignClass::Throttled | SignClass::BadSignature => false,
            SignClass::Transient | SignClass::Deadline => {
                let (faults, since) = self.faults.map_or((1, now), |(faults, since)| (faults.saturating_add(1), since));
                self.faults = Some((faults, since));
                faults >= FAULTS && now.saturating_duration_since(since) >= patience
            }
            SignClass::KeyDown | SignClass::Credentials | SignClass::Configuration => true,
        };
        if opens {
            let probe = Some(self.plan(now, share));
            self.open = Some(Open { error: error.clone(), probe });
        }
        opens
    }

    /// When the next probe is due.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.open.as_ref().and_then(|open| open.probe)
    }

    /// Begins the probe that is due, if one is.
    pub(super) fn begin_probe(&mut self, now: Instant) -> bool {
        let due = self.open.as_mut().filter(|open| open.probe.is_some_and(|at| at <= now));
        due.map(|open| open.probe = None).is_some()
    }

    /// A probe found that the holder cannot sign: another one is planned. What it found is why the breaker is open from now on, unless it
    /// passes.
    pub(super) fn probed(&mut self, error: KeyStoreError, now: Instant, share: f64) {
        if self.open.is_none() {
            return;
        }
        let probe = Some(self.plan(now, share));
        if let Some(open) = &mut self.open {
            open.probe = probe;
            if !error.class.is_retryable() {
                open.error = error;
            }
        }
    }

    /// The holder can sign, says a probe or discovery. If it cannot after all, the probes go on where they were.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.faults = None;
    }

    /// Between half and the whole of a time that doubles.
    fn plan(&mut self, now: Instant, share: f64) -> Instant {
        let longest = FIRST_PROBE.saturating_mul(2u32.saturating_pow(self.probes)).min(LONGEST_PROBE);
        self.probes = self.probes.saturating_add(1);
        now + longest.mul_f64(0.5 + share.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::testing::failure;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_fault_that_does_not_pass_opens_it_at_once() {
        for class in [SignClass::KeyDown, SignClass::Credentials, SignClass::Configuration] {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            assert!(breaker.failed(&failure(class), SECOND, now, 1.0));
            assert!(!breaker.failed(&failure(class), SECOND, now, 1.0), "it is open already");
            assert_eq!(breaker.error().map(|error| error.class), Some(class));
        }
    }

    #[test]
    fn passing_faults_open_it_when_they_are_many_and_last() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for n in 0..20 {
            assert!(!breaker.failed(&failure(SignClass::Transient), SECOND, start, 1.0), "{n}");
        }
        assert!(breaker.failed(&failure(SignClass::Deadline), SECOND, start + SECOND, 1.0));

        // Few faults in a long time, or a signature between them.
        let mut breaker = Breaker::default();
        for n in 0..FAULTS - 1 {
            assert!(!breaker.failed(&failure(SignClass::Transient), SECOND, start + SECOND * n, 1.0));
        }
        breaker.worked();
        for n in FAULTS..2 * FAULTS - 1 {
            assert!(!breaker.failed(&failure(SignClass::Transient), SECOND, start + SECOND * n, 1.0));
        }
        assert!(breaker.failed(&failure(SignClass::Transient), SECOND, start + SECOND * 20, 1.0));
    }

    #[test]
    fn throttling_and_bad_signatures_never_open_it() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for n in 0..100 {
            assert!(!breaker.failed(&failure(SignClass::Throttled), Duration::ZERO, start + SECOND * n, 1.0));
            assert!(!breaker.failed(&failure(SignClass::BadSignature), Duration::ZERO, start + SECOND * n, 1.0));
        }
    }

    #[test]
    fn probes_come_ever_later_up_to_a_bound_until_one_closes_it() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        breaker.failed(&failure(SignClass::KeyDown), SECOND, now, 1.0);
        let mut waits = Vec::new();
        for share in [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0] {
            let due = breaker.next_probe().unwrap();
            assert!(!breaker.begin_probe(due - Duration::from_millis(1)));
            assert!(breaker.begin_probe(due) && !breaker.begin_probe(due), "one at a time");
            waits.push((due - now).as_millis());
            now = due;
            breaker.probed(failure(SignClass::KeyDown), now, share);
        }
        assert_eq!(waits, [1000, 2000, 2000, 8000, 16_000, 30_000, 30_000, 30_000]);
        now = breaker.next_probe().unwrap();
        assert!(breaker.begin_probe(now));
        breaker.close();
        assert_eq!((breaker.error().is_none(), breaker.next_probe()), (true, None));
        // It cannot sign after all: the next probe is as late as before. Once it signs, all is forgotten.
        breaker.failed(&failure(SignClass::KeyDown), SECOND, now, 1.0);
        assert_eq!(breaker.next_probe(), Some(now + LONGEST_PROBE));
        breaker.close();
        breaker.worked();
        breaker.failed(&failure(SignClass::KeyDown), SECOND, now, 1.0);
        assert_eq!(breaker.next_probe(), Some(now + SECOND));
    }

    #[test]
    fn a_probe_says_better_why_it_is_open_unless_it_failed_in_passing() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.failed(&failure(SignClass::KeyDown), SECOND, now, 0.0);
        breaker.probed(failure(SignClass::Transient), now, 0.0);
        assert_eq!(breaker.error().map(|error| error.class), Some(SignClass::KeyDown));
        breaker.probed(failure(SignClass::Configuration), now, 0.0);
        assert_eq!(breaker.error().map(|error| error.class), Some(SignClass::Configuration));
    }
}
