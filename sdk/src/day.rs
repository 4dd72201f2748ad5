//! Days of the calendar.

use std::fmt;

use crate::db::Value;

const DAY_MS: u64 = 86_400_000;

/// A day of the calendar in UTC, from 1970-01-01 on. Its text is the date: `2026-03-01`.
///
/// SQLite's `date` does the same, but the host does not keep statements with it prepared, because it may also
/// tell the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u64);

impl Day {
    /// The day of a time in milliseconds since 1970-01-01 UTC.
    pub fn of(time_ms: u64) -> Self {
        Self(time_ms / DAY_MS)
    }
}

/// Counts in eras of 400 years that begin in March, as the calendar repeats: Howard Hinnant,
/// `civil_from_days`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.0 + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        write!(f, "{:04}-{month:02}-{day:02}", 400 * era + year)
    }
}

impl From<Day> for Value {
    fn from(day: Day) -> Self {
        Self::Text(day.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (20_088, "2024-12-31"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Day(day).to_string(), expected);
        }
    }

    #[test]
    fn a_day_lasts_from_midnight_to_midnight() {
        assert_eq!(Day::of(DAY_MS - 1), Day(0));
        assert_eq!(Day::of(DAY_MS), Day(1));
    }
}
