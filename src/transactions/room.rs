//! How many requests of an account may wait for a nonce while there is always more to do than gets done: no more than can begin before
//! their deadline. The others are told at once what they would be told at its end, and nobody waits behind them.

use std::time::{Duration, Instant};

/// Parts of the deadline that are counted on their own.
const PARTS: usize = 8;
/// Of these, the ones that say how fast it goes now.
const NEWEST: usize = 2;

/// The room in the queue of one account. Pure: what happens and when goes in, a size comes out.
#[derive(Debug, Clone)]
pub(super) struct Room {
    part: Duration,
    /// When the part under way began; `None` while nobody waits.
    begun: Option<Instant>,
    /// Requests that got a nonce in the part under way.
    turns: usize,
    /// The same in the parts before, newest first, as long as somebody always waited.
    before: [usize; PARTS],
    /// How many of them there are.
    known: usize,
}

impl Room {
    /// Of an account whose requests have so long until they have a nonce (`account.queue_deadline`).
    pub(super) fn new(deadline: Duration) -> Self {
        // As many parts as are counted take a deadline; one of no length would never end.
        let part = (deadline / PARTS as u32).max(Duration::from_millis(1));
        Self { part, begun: None, turns: 0, before: [0; PARTS], known: 0 }
    }

    /// Whether somebody waits now. Once nobody does, whoever comes next has the queue for itself.
    pub(super) fn note(&mut self, is_somebody_waiting: bool, now: Instant) {
        if !is_somebody_waiting {
            *self = Self { part: self.part, begun: None, turns: 0, before: [0; PARTS], known: 0 };
        } else if self.begun.is_none() {
            self.begun = Some(now);
        }
    }

    /// A request got a nonce.
    pub(super) fn turned(&mut self, now: Instant) {
        self.pass(now);
        self.turns += 1;
    }

    /// How many may wait; `None`: as many as may at all. Not known before somebody has waited for a whole deadline, nor while
    /// nobody gets a nonce: what is the matter then may be over at any time.
    pub(super) fn size(&mut self, now: Instant) -> Option<usize> {
        self.pass(now);
        if self.known < PARTS {
            return None;
        }
        // After a standstill, the newest pace counts.
        let newest: usize = self.before.iter().take(NEWEST).sum();
        let size = self.before.iter().sum::<usize>().max(newest * PARTS / NEWEST);
        (size > 0).then_some(size)
    }

    fn pass(&mut self, now: Instant) {
        let Some(begun) = self.begun else { return };
        let parts = now.saturating_duration_since(begun).as_nanos() / self.part.as_nanos();
        // More of them than are counted are all alike.
        for _ in 0..parts.min(PARTS as u128 + 1) {
            self.before.rotate_right(1);
            self.before[0] = std::mem::take(&mut self.turns);
            self.known = (self.known + 1).min(PARTS);
        }
        if parts > 0 {
            let rest = now.saturating_duration_since(begun).as_nanos() % self.part.as_nanos();
            self.begun = now.checked_sub(Duration::from_nanos(u64::try_from(rest).unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(8);

    /// So many turns a second, evenly, from one second to another; somebody always waits.
    fn serve(room: &mut Room, start: Instant, seconds: std::ops::Range<u64>, rate: u64) {
        for n in seconds.start * rate..seconds.end * rate {
            let now = start + Duration::from_millis(n * 1_000 / rate);
            room.note(true, now);
            room.turned(now);
        }
    }

    #[test]
    fn as_many_may_wait_as_began_within_the_last_deadline() {
        let (mut room, start) = (Room::new(DEADLINE), Instant::now());
        serve(&mut room, start, 0..20, 16);
        assert_eq!(room.size(start + Duration::from_secs(20)), Some(128));
    }

    #[test]
    fn nothing_is_known_before_somebody_has_waited_a_whole_deadline() {
        let (mut room, start) = (Room::new(DEADLINE), Instant::now());
        serve(&mut room, start, 0..7, 16);
        assert_eq!(room.size(start + Duration::from_millis(7_999)), None);
        assert_eq!(room.size(start + DEADLINE), Some(16 * 7));
    }

    #[test]
    fn a_queue_that_was_empty_has_all_its_room_again() {
        let (mut room, start) = (Room::new(DEADLINE), Instant::now());
        serve(&mut room, start, 0..20, 16);
        let now = start + Duration::from_secs(20);
        room.note(false, now);
        room.turned(now);
        assert_eq!(room.size(now), None);
        room.note(true, now);
        assert_eq!(room.size(now + Duration::from_millis(7_999)), None);
    }

    #[test]
    fn a_standstill_refuses_nobody_and_is_forgotten_once_it_is_over() {
        let (mut room, start) = (Room::new(DEADLINE), Instant::now());
        serve(&mut room, start, 0..10, 16);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(room.size(at(14)), Some(64), "the turns of four seconds that are within the last deadline");
        assert_eq!(room.size(at(18)), None, "there was none within a whole one");
        assert_eq!(room.size(at(600)), None);
        serve(&mut room, start, 600..602, 16);
        assert_eq!(room.size(at(602)), Some(128), "at the newest pace");
    }

    #[test]
    fn the_shortest_deadline_has_parts_too() {
        let (mut room, start) = (Room::new(Duration::ZERO), Instant::now());
        room.note(true, start);
        room.turned(start);
        assert_eq!(room.size(start + Duration::from_millis(8)), Some(1));
    }
}
