//! When a table's line comes next: cron's five fields, or a word for one, in a time zone. Pure: the time is passed in.
//!
//! The line is read against the wall clock of its zone. A time that a clock leaps over comes as much later as the leap is
//! wide, one that it shows twice comes once: a job of half past two runs once a day on every day of the year.
//!
//! # Invariants
//! - The next time is always later than the one that it is asked for, and there is one for every [`Calendar`].

use cronexpr::{Crontab, MakeTimestamp};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use time::OffsetDateTime;

/// The longest line, and the longest name of a zone.
const MAX_LINE: usize = 256;
/// What cron daemons take for a line.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// From when on it is looked whether a line ever comes: four years are looked through, with a leap year among them.
const SOME_DAY: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::days(20_454));
/// A leap of the clock hides an hour or two, and so 120 lines' times at most.
const MAX_STEPS: usize = 1000;

/// A line that comes again and again.
#[derive(Clone, Debug)]
pub struct Calendar {
    line: Crontab,
    zone: TimeZone,
}

// === impl Calendar ===

impl Calendar {
    /// Reads a line; no zone is UTC.
    ///
    /// # Errors
    /// With what is wrong with it, and what would be right.
    pub fn read(line: &str, zone: Option<&str>) -> Result<Self, String> {
        let shown = |text: &str| text.chars().take(100).collect::<String>();
        let wrong = |why: &str| {
            let expected = "expected MINUTE HOUR DAY MONTH WEEKDAY, as '0 3 * * *', or @hourly, @daily, @weekly, @monthly, @yearly";
            format!("the schedule {:?} {why}: {expected}", shown(line))
        };
        if line.len() > MAX_LINE {
            return Err(wrong("is too long"));
        }
        let word = WORDS.iter().find(|(word, _)| line.trim().eq_ignore_ascii_case(word));
        let fields: Vec<&str> = word.map_or(line, |(_, fields)| fields).split_whitespace().collect();
        if fields.len() != 5 {
            return Err(wrong("has not five fields"));
        }
        // Its times are the wall clock's: what they mean in the zone is found out here.
        let parsed = cronexpr::parse_crontab(&format!("{} UTC", fields.join(" ")));
        let parsed = parsed.map_err(|error| {
            let said = error.to_string();
            wrong(&format!(
                "cannot be read ({})",
                said.lines().last().unwrap_or_default().trim_matches([' ', '^'])
            ))
        })?;
        let name = zone.unwrap_or("UTC");
        // Those that are built in: the same in an image without any file.
        let zone = (name.len() <= MAX_LINE).then(|| TimeZoneDatabase::bundled().get(name).ok()).flatten();
        let zone = zone.ok_or_else(|| {
            format!("there is no time zone {:?}: expected a name like Europe/Berlin or UTC", shown(name))
        })?;
        let calendar = Self { line: parsed, zone };
        match calendar.following(SOME_DAY) {
            Some(_) => Ok(calendar),
            None => Err(wrong("never comes")),
        }
    }

    /// The first time after `now`.
    pub fn next(&self, now: OffsetDateTime) -> OffsetDateTime {
        // A line that came once comes again within the years that are looked through; should that ever fail, in a year.
        self.following(now).unwrap_or(now + time::Duration::days(365))
    }

    fn following(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let now = Timestamp::from_second(now.unix_timestamp()).ok()?;
        let wall = now.to_zoned(self.zone.clone()).datetime();
        let mut wall = TimeZone::UTC.to_timestamp(wall).ok()?;
        for _ in 0..MAX_STEPS {
            let next = self.line.find_next(MakeTimestamp(wall)).ok()?;
            wall = next.timestamp();
            let at = self.zone.to_timestamp(next.datetime()).ok()?;
            if at > now {
                return OffsetDateTime::from_unix_timestamp(at.as_second()).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        OffsetDateTime::parse(text, &Rfc3339).unwrap()
    }

    /// The next times, as the zone's own clock is read in UTC.
    fn times(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let calendar = Calendar::read(line, Some(zone)).unwrap();
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = calendar.next(now);
                now.format(&Rfc3339).unwrap()
            })
            .collect()
    }

    #[test]
    fn lines_and_words_are_read_in_their_zone() {
        let from = "2026-11-22T12:34:56Z";
        for (line, zone, next) in [
            ("0 3 * * *", "UTC", "2026-11-23T03:00:00Z"),
            ("*/5 * * * *", "UTC", "2026-11-22T12:35:00Z"),
            ("0 3 * * *", "Europe/Berlin", "2026-11-23T02:00:00Z"),
            ("0 3 * * *", "Asia/Kathmandu", "2026-11-22T21:15:00Z"),
            ("  30 4  1,15 * 5 ", "UTC", "2026-11-27T04:30:00Z"),
            ("@daily", "America/New_York", "2026-11-23T05:00:00Z"),
            ("@Hourly", "UTC", "2026-11-22T13:00:00Z"),
            ("@yearly", "UTC", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "UTC", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(times(line, zone, from, 1), [next], "{line} {zone}");
        }
        assert!(Calendar::read("0 3 * * *", None).is_ok());
    }

    #[test]
    fn clocks_that_leap_neither_hide_a_run_nor_double_it() {
        let spring = times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(spring, ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"], "03:30, then 02:30 of summer");
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"], "the first of the two");
        let quarters = times("*/15 * * * *", "Europe/Berlin", "2026-03-29T00:40:00Z", 3);
        assert_eq!(quarters[..2], ["2026-03-29T00:45:00Z", "2026-03-29T01:00:00Z"]);
    }

    #[test]
    fn what_is_no_line_is_said_with_the_way_out() {
        for (line, zone, word) in [
            ("", None, "five fields"),
            ("* * * *", None, "five fields"),
            ("* * * * * *", None, "five fields"),
            ("61 * * * *", None, "0..=59"),
            ("@reboot", None, "five fields"),
            ("0 0 30 2 *", None, "never comes"),
            ("x * * * *", None, "cannot be read"),
            ("0 3 * * *", Some("Europe/Atlantis"), "no time zone"),
            ("0 3 * * *", Some(""), "no time zone"),
            ("0 3 * * *", Some("../../etc/passwd"), "no time zone"),
        ] {
            let error = Calendar::read(line, zone).unwrap_err();
            assert!(
                error.contains(word) && error.contains("expected") && !error.contains('\n'),
                "{line}: {error}"
            );
        }
        assert!(Calendar::read(&"1,".repeat(500), None).unwrap_err().len() < 400);
    }

    proptest! {
        #[test]
        fn any_line_is_refused_or_goes_on_for_ever(
            line in "[0-9*,/@LW#A-Z-]{1,6}( [0-9*,/LW#A-Z-]{1,5}){4}|\\PC{0,40}",
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tehran"]),
            from in 1_500_000_000_i64..2_000_000_000,
        ) {
            if let Ok(calendar) = Calendar::read(&line, Some(zone)) {
                let mut now = OffsetDateTime::from_unix_timestamp(from).unwrap();
                for _ in 0..50 {
                    let next = calendar.next(now);
                    prop_assert!(next > now);
                    now = next;
                }
            }
        }
    }
}
