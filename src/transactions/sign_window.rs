//! How many nonces of an account may wait for their signatures at a time: no more than get their turn at the key store in a while. Whatever
//! else there is waits without a nonce. It can end there and costs nothing; with a nonce its end makes everything above it be signed again.

use std::time::Duration;

/// The time for which a Sign may wait for its turn before fewer are asked for at a time.
const TIMELY: Duration = Duration::from_secs(1);
/// With how many an account begins.
const FIRST: f64 = 64.0;
/// With how many it goes on however long they wait.
const LEAST: f64 = 4.0;
/// By how much each Sign moves it. What a Sign says is as old as its wait: whole steps would overshoot.
const STEP: f64 = 0.25;

/// The window of one account. Pure: waits in, a size out.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignWindow {
    size: f64,
    most: f64,
}

impl SignWindow {
    /// At most so many (`account.sign_window`).
    pub(super) fn new(most: usize) -> Self {
        let most = most as f64;
        Self { size: FIRST.min(most), most }
    }

    /// How many may wait.
    pub(super) fn size(&self) -> usize {
        self.size as usize
    }

    /// A Sign waited so long for its turn; `is_full`: as many as may were asked for.
    pub(super) fn turned(&mut self, wait: Duration, is_full: bool) {
        if wait > TIMELY {
            self.size = (self.size - STEP).max(LEAST.min(self.most));
        } else if is_full {
            self.size = (self.size + STEP).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// An account that always has more to sign, at a key store that takes so many a second from a line and answers after a time. Answers how
    /// many were signed in each second, and the longest wait of each.
    fn seconds(window: &mut SignWindow, rate: u64, answer: Duration, count: u64) -> Vec<(usize, Duration)> {
        let tick = Duration::from_millis(1);
        let (mut line, mut flying, mut now, mut cells) = (VecDeque::new(), VecDeque::new(), Duration::ZERO, 0.0);
        let mut told = Vec::new();
        for _ in 0..count {
            let (mut signed, mut longest) = (0, Duration::ZERO);
            for _ in 0..1_000 {
                now += tick;
                cells = (cells + rate as f64 / 1_000.0).min(100.0);
                while cells >= 1.0
                    && let Some(asked) = line.pop_front()
                {
                    cells -= 1.0;
                    flying.push_back((now + answer, now - asked));
                }
                while let Some((_, wait)) = flying.pop_front_if(|(at, _): &mut (Duration, Duration)| *at <= now) {
                    let is_full = line.len() + flying.len() + 1 >= window.size();
                    window.turned(wait, is_full);
                    signed += 1;
                    longest = longest.max(wait);
                }
                while line.len() + flying.len() < window.size() {
                    line.push_back(now);
                }
            }
            told.push((signed, longest));
        }
        told
    }

    #[test]
    fn an_account_alone_comes_to_the_whole_quota() {
        let mut window = SignWindow::new(2_000);
        let told = seconds(&mut window, 1_000, Duration::from_millis(50), 60);
        assert!(told.iter().skip(2).all(|(signed, _)| *signed >= 999), "{told:?}");
        assert!(told.iter().skip(10).all(|(_, longest)| *longest <= 2 * TIMELY), "{told:?}");
    }

    #[test]
    fn one_of_many_has_no_more_than_its_share_of_two_seconds_waiting() {
        let mut window = SignWindow::new(2_000);
        let told = seconds(&mut window, 15, Duration::from_millis(20), 120);
        assert!(told.iter().skip(2).all(|(signed, _)| *signed >= 14), "{told:?}");
        assert!(told.iter().skip(30).all(|(_, longest)| *longest <= 2 * TIMELY), "{told:?}");
    }

    #[test]
    fn a_key_store_that_answers_slowly_is_no_reason_to_ask_for_less() {
        let mut window = SignWindow::new(500);
        let told = seconds(&mut window, 1_000, Duration::from_secs(3), 60);
        assert_eq!(window.size(), 500);
        assert!(told.iter().skip(50).map(|(signed, _)| *signed).sum::<usize>() >= 10 * 500 / 3 - 500, "{told:?}");
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut window = SignWindow::new(2);
        for (wait, is_full) in [(Duration::from_secs(9), true), (Duration::ZERO, true), (Duration::ZERO, false)] {
            (0..100).for_each(|_| window.turned(wait, is_full));
            assert_eq!(window.size(), 2);
        }
        let mut window = SignWindow::new(1_000);
        (0..10_000).for_each(|_| window.turned(Duration::from_secs(9), true));
        assert_eq!(window.size(), 4);
    }
}
