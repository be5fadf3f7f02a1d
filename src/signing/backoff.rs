//! How long to wait before something that failed in passing is asked again.

use std::time::Duration;

/// The ceiling of the first wait; it doubles with every further one.
const FIRST: Duration = Duration::from_millis(50);
/// No ceiling is above this.
const LONGEST: Duration = Duration::from_secs(1);

/// Full jitter: a share (`random`, in [0, 1)) of a ceiling that doubles with each retry (`retry` = 0 for the first).
pub(super) fn full_jitter(retry: u32, random: f64) -> Duration {
    let ceiling = FIRST.saturating_mul(2u32.saturating_pow(retry)).min(LONGEST);
    ceiling.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_a_second() {
        let ceilings: Vec<_> = [0, 1, 2, 3, 4, 5, 40, u32::MAX].map(|retry| full_jitter(retry, 1.0).as_millis()).into();
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(full_jitter(3, 0.0), Duration::ZERO);
        assert_eq!(full_jitter(3, 0.5), Duration::from_millis(200));
    }
}
