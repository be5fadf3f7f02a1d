//! Times as requests carry them: `20260101T000000Z`.

use std::time::Duration;

const DAY: u64 = 86_400;

/// Days since 1 January 1970 of a date after that; months and days count from 1. Years begin in March here, so that the leap day
/// is the last one.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    // 719,468 days lie between 1 March of the year 0 and 1 January 1970.
    (of_years + (153 * month + 2) / 5 + day.checked_sub(1)?).checked_sub(719_468)
}

/// The Unix time that this text says.
pub(super) fn read(text: &str) -> Option<Duration> {
    let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    if text.len() != 16 || !(0..8).chain(9..15).all(is_digit) || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (month, hour, minute, second) = (number(4, 6)?, number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(number(0, 4)?, month, number(6, 8)?)?;
    Some(Duration::from_secs(days * DAY + hour * 3_600 + minute * 60 + second))
}

/// The text that says this Unix time.
pub(super) fn write(at: Duration) -> String {
    let (day, second) = (at.as_secs() / DAY, at.as_secs() % DAY);
    let mut year = 1_970;
    while days(year + 1, 1, 1).is_some_and(|next| next <= day) {
        year += 1;
    }
    let month = (2..=12).take_while(|month| days(year, *month, 1).is_some_and(|begin| begin <= day)).last().unwrap_or(1);
    let of_month = day - days(year, month, 1).unwrap_or(day) + 1;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{of_month:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let known = [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20150830T123600Z", 1_440_938_160),
            ("20260101T000000Z", 1_767_225_600),
            ("21000301T000000Z", 4_107_542_400),
        ];
        for (text, seconds) in known {
            assert_eq!((read(text), write(Duration::from_secs(seconds)).as_str()), (Some(Duration::from_secs(seconds)), text));
        }
        for day in (0..40_000).map(|day| Duration::from_secs(day * DAY + 3_661)) {
            assert_eq!(read(&write(day)), Some(day));
        }
        for text in ["", "2026-01-01T00:00:00Z", "20261301T000000Z", "20260101T240000Z", "20260101T000000", "20260100T000000Z"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
