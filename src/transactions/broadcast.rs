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

/// How one endpoint stands to the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// It is to get them.
    Waiting,
    /// It does not get them for now.
    Withheld,
    /// It was given them.
    Given,
    /// It answered, or it is known that it will not.
    Answered(Outcome),
}

impl Standing {
    fn answer(&self) -> Option<&Outcome> {
        if let Self::Answered(outcome) = self { Some(outcome) } else { None }
    }

    /// Whether a node may have bytes of which it is not known that it has them.
    fn is_doubt(&self) -> bool {
        match self {
            Self::Waiting | Self::Withheld => false,
            Self::Given => true,
            Self::Answered(outcome) => !matches!(outcome, Outcome::NotSent | Outcome::Refused { .. }),
        }
    }
}

/// The answers to one attempt's sends.
#[derive(Debug, Clone)]
pub struct Delivery {
    round: Vec<Standing>,
    taken: bool,
    doubtful: bool,
}

impl Delivery {
    /// A new attempt; `doubtful`: its bytes may have been sent before (it comes from the journal).
    pub fn new(doubtful: bool) -> Self {
        Self { round: Vec::new(), taken: false, doubtful }
    }

    /// The bytes are to go to this many endpoints.
    pub fn begin(&mut self, endpoints: usize) {
        self.doubtful |= self.round.iter().any(Standing::is_doubt);
        self.round = vec![Standing::Waiting; endpoints];
    }

    /// One endpoint is given the bytes now.
    pub fn give(&mut self, endpoint: usize) {
        if let Some(standing) = self.round.get_mut(endpoint) {
            self.doubtful |= standing.is_doubt();
            *standing = Standing::Given;
        }
    }

    /// One endpoint does not get the bytes for now: what the others answered counts without it.
    pub fn withhold(&mut self, endpoint: usize) -> Verdict {
        match self.round.get_mut(endpoint) {
            Some(standing @ Standing::Waiting) => *standing = Standing::Withheld,
            _ => return Verdict::Wait,
        }
        self.verdict()
    }

    /// Whether an endpoint ever took the bytes.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// One endpoint answered. The best answer counts: taken, then unknown, then refused, and refused only if all refused and no
    /// earlier send ended in doubt.
    pub fn record(&mut self, endpoint: usize, outcome: Outcome) -> Verdict {
        let taken = outcome.is_taken();
        if let Some(standing) = self.round.get_mut(endpoint) {
            *standing = Standing::Answered(outcome);
        }
        if taken && !self.taken {
            self.taken = true;
            return Verdict::Taken;
        }
        self.verdict()
    }

    fn verdict(&mut self) -> Verdict {
        let is_open = |standing: &Standing| matches!(standing, Standing::Waiting | Standing::Given);
        if self.taken || self.round.iter().any(is_open) {
            return Verdict::Wait;
        }
        let answers: Vec<&Outcome> = self.round.iter().filter_map(Standing::answer).collect();
        if answers.iter().all(|answer| **answer == Outcome::NotSent) {
            // Bytes that are withheld somewhere wait in that outbox.
            return if answers.len() == self.round.len() { Verdict::NotSent } else { Verdict::Wait };
        }
        let sent = || answers.iter().filter(|answer| ***answer != Outcome::NotSent);
        if sent().all(|answer| matches!(answer, Outcome::Refused { .. }))
            && let Some(Outcome::Refused { code, message }) = sent().next()
        {
            let message = message.clone();
            let is_in_doubt = self.doubtful && !sent().all(|answer| answer.is_about_the_bytes());
            return if is_in_doubt { Verdict::RefusedInDoubt(message) } else { Verdict::Refused { code: *code, message } };
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
                Outcome::Unknown(why) | Outcome::Unrecognised { message: why, .. } => Some(why.clone()),
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
        Outcome::Refused { code: -32000, message: "insufficient funds for gas * price + value".into() }
    }

    fn verdicts(doubtful: bool, answers: &[Outcome]) -> Vec<Verdict> {
        let mut delivery = Delivery::new(doubtful);
        delivery.begin(answers.len());
        (0..answers.len()).for_each(|endpoint| delivery.give(endpoint));
        answers.iter().cloned().enumerate().map(|(endpoint, answer)| delivery.record(endpoint, answer)).collect()
    }

    #[test]
    fn one_acceptance_is_enough_and_told_once() {
        assert_eq!(verdicts(false, &[Outcome::Accepted, refused()]), [Verdict::Taken, Verdict::Wait]);
        assert_eq!(verdicts(false, &[refused(), Outcome::Known]), [Verdict::Wait, Verdict::Taken]);
    }

    #[test]
    fn refused_only_if_all_that_got_the_bytes_refused() {
        let told = Verdict::Refused { code: -32000, message: "insufficient funds for gas * price + value".into() };
        assert_eq!(verdicts(false, &[refused(), refused()])[1], told);
        assert_eq!(verdicts(false, &[refused(), Outcome::NotSent])[1], told);
        assert!(matches!(verdicts(false, &[refused(), Outcome::Unknown("time-out".into())])[1], Verdict::Held(_)));
        assert!(matches!(verdicts(true, &[refused()])[0], Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn a_doubt_is_never_forgotten() {
        let mut delivery = Delivery::new(false);
        delivery.begin(1);
        delivery.give(0);
        assert!(matches!(delivery.record(0, Outcome::Unknown("reset".into())), Verdict::Held(_)));
        delivery.begin(1);
        delivery.give(0);
        assert!(matches!(delivery.record(0, refused()), Verdict::RefusedInDoubt(_)));
    }

    /// A process that was killed between a commit and the answer would leave the account stuck for ever.
    #[test]
    fn bytes_that_no_node_can_ever_take_are_refused_whatever_the_doubt() {
        let never = Outcome::Refused { code: -32000, message: "intrinsic gas too low: gas 20000, minimum needed 21000".into() };
        let passing = Outcome::Refused { code: -32000, message: "insufficient funds for gas * price + value".into() };
        assert!(matches!(verdicts(true, std::slice::from_ref(&never))[0], Verdict::Refused { .. }));
        assert!(matches!(verdicts(true, &[never.clone(), Outcome::NotSent])[1], Verdict::Refused { .. }));
        assert!(matches!(verdicts(true, &[never.clone(), passing.clone()])[1], Verdict::RefusedInDoubt(_)));
        assert!(matches!(verdicts(true, &[passing])[0], Verdict::RefusedInDoubt(_)));
        assert!(matches!(verdicts(true, &[never, Outcome::Unknown("reset".into())])[1], Verdict::Held(_)));
    }

    #[test]
    fn a_round_that_was_never_answered_is_a_doubt() {
        let mut delivery = Delivery::new(false);
        for _ in 0..2 {
            delivery.begin(2);
            delivery.give(0);
            delivery.give(1);
            delivery.record(0, refused());
        }
        assert!(matches!(delivery.record(1, refused()), Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn an_answer_that_a_later_one_of_the_same_endpoint_hides_is_a_doubt_still() {
        let mut delivery = Delivery::new(false);
        delivery.begin(2);
        delivery.give(0);
        delivery.record(0, Outcome::Unknown("reset".into()));
        delivery.give(0);
        delivery.record(0, refused());
        delivery.give(1);
        assert!(matches!(delivery.record(1, refused()), Verdict::RefusedInDoubt(_)));
    }

    #[test]
    fn who_never_got_the_bytes_has_no_say() {
        let mut delivery = Delivery::new(false);
        delivery.begin(2);
        delivery.give(0);
        assert_eq!(delivery.record(0, refused()), Verdict::Wait, "the other one may take them");
        assert!(matches!(delivery.withhold(1), Verdict::Refused { .. }));
        // Nobody has answered, and nobody is asked: they wait.
        let mut delivery = Delivery::new(false);
        delivery.begin(2);
        assert_eq!((delivery.withhold(0), delivery.withhold(1)), (Verdict::Wait, Verdict::Wait));
        delivery.give(0);
        assert_eq!(delivery.record(0, Outcome::NotSent), Verdict::Wait, "they wait at the other endpoint");
        assert_eq!(delivery.withhold(0), Verdict::Wait, "an answer is no wait");
    }

    #[test]
    fn nobody_reachable_is_no_answer() {
        assert_eq!(verdicts(false, &[Outcome::NotSent, Outcome::NotSent])[1], Verdict::NotSent);
    }
}
