//! One attempt's way to the endpoints: what each answered, and what that means taken together. Pure.

use super::outcome::Outcome;

/// What an attempt's answers mean so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answers are missing.
    Wait,
    /// An endpoint has the bytes (told once).
    Taken,
    /// Nobody was reachable: the same bytes go out again soon.
    NotSent,
    /// Every endpoint that ever got the bytes refused them for good.
    Refused {
        /// The first refusal's code.
        code: i64,
        /// The first refusal's words.
        message: String,
    },
    /// A node says that the nonce is used: look the slot's hashes up.
    NonceTooLow,
    /// Another payload holds the nonce in a node's pool.
    Occupied,
    /// The pool is full.
    PoolFull,
    /// All refuse the bytes now, but an earlier send ended in doubt: held, and somebody has to look.
    RefusedInDoubt(String),
    /// Nobody knows: the slot is held, the same bytes go out again later.
    Held(String),
}

/// The answers to one attempt's sends.
#[derive(Debug, Clone)]
pub struct Delivery {
    round: Vec<Option<Outcome>>,
    taken: bool,
    doubtful: bool,
}

impl Delivery {
    /// A new attempt; `doubtful`: its bytes may have been sent before (it comes from the journal).
    pub fn new(doubtful: bool) -> Self {
        Self { round: Vec::new(), taken: false, doubtful }
    }

    /// The bytes go to this many endpoints now.
    pub fn begin(&mut self, endpoints: usize) {
        if self.round.iter().any(Option::is_none) {
            self.doubtful = true;
        }
        self.round = vec![None; endpoints];
    }

    /// Whether an endpoint ever took the bytes.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// One endpoint answered. The best answer counts: taken, then unknown, then refused, and refused only if all refused and no
    /// earlier send ended in doubt.
    pub fn record(&mut self, endpoint: usize, outcome: Outcome) -> Verdict {
        let taken = outcome.is_taken();
        if let Some(slot) = self.round.get_mut(endpoint) {
            *slot = Some(outcome);
        }
        if taken && !self.taken {
            self.taken = true;
            return Verdict::Taken;
        }
        if self.taken || self.round.iter().any(Option::is_none) {
            return Verdict::Wait;
        }
        let answers: Vec<&Outcome> = self.round.iter().flatten().collect();
        if answers.iter().all(|answer| **answer == Outcome::NotSent) {
            return Verdict::NotSent;
        }
        let sent = || answers.iter().filter(|answer| ***answer != Outcome::NotSent);
        if sent().all(|answer| matches!(answer, Outcome::Refused { .. }))
            && let Some(Outcome::Refused { code, message }) = sent().next()
        {
            let message = message.clone();
            return if self.doubtful { Verdict::RefusedInDoubt(message) } else { Verdict::Refused { code: *code, message } };
        }
        self.doubtful = true;
        let has = |wanted: &Outcome| answers.contains(&wanted);
        if has(&Outcome::NonceTooLow) {
            Verdict::NonceTooLow
        } else if has(&Outcome::PoolFull) {
            Verdict::PoolFull
        } else if has(&Outcome::Occupied) {
            Verdict::Occupied
        } else {
            let why = answers.iter().find_map(|answer| match answer {
                Outcome::Unknown(why) => Some(why.clone()),
                Outcome::Refused { message, .. } => Some(message.clone()),
                _ => None,
            });
            Verdict::Held(why.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Outcome {
        Outcome::Refused { code: -32000, message: "intrinsic gas too low".into() }
    }

    fn verdicts(doubtful: bool, answers: &[Outcome]) -> Vec<Verdict> {
        let mut delivery = Delivery::new(doubtful);
        delivery.begin(answers.len());
        answers.iter().cloned().enumerate().map(|(endpoint, answer)| delivery.record(endpoint, answer)).collect()
    }

    #[test]
    fn one_acceptance_is_enough_and_told_once() {
        assert_eq!(verdicts(false, &[Outcome::Accepted, refused()]), [Verdict::Taken, Verdict::Wait]);
        assert_eq!(verdicts(false, &[refused(), Outcome::Known]), [Verdict::Wait, Verdict::Taken]);
    }

    #[test]
    fn refused_only_if_all_that_got_the_bytes_refused() {
        let told = Verdict::Refused { code: -32000, message: "intrinsic gas too low".into() };
        assert_eq!(verdicts(false, &[refused(), refused()])[1], told);
        assert_eq!(verdicts(false, &[refused(), Outcome::NotSent])[1], told);
        assert!(matches!(verdicts(false, &[refused(), Outcome::Unknown("time-out".into())])[1], Verdict::Held(_)));
        assert!(matches!(verdicts(true, &[refused()])[0], Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn a_doubt_is_never_forgotten() {
        let mut delivery = Delivery::new(false);
        delivery.begin(1);
        assert!(matches!(delivery.record(0, Outcome::Unknown("reset".into())), Verdict::Held(_)));
        delivery.begin(1);
        assert!(matches!(delivery.record(0, refused()), Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn a_round_that_was_never_answered_is_a_doubt() {
        let mut delivery = Delivery::new(false);
        delivery.begin(2);
        delivery.record(0, refused());
        delivery.begin(2);
        delivery.record(0, refused());
        assert!(matches!(delivery.record(1, refused()), Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn nobody_reachable_is_no_answer() {
        assert_eq!(verdicts(false, &[Outcome::NotSent, Outcome::NotSent])[1], Verdict::NotSent);
    }
}
