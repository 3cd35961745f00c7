//! Dates and ages, as operands on the time of an entry.

/// Seconds in a day.
const DAY: i64 = 86_400;

/// Reads an age such as `-7d`: seconds before now. Units are w, d, h, m, s.
pub(super) fn age(word: &str) -> Option<f64> {
    let amount = word.strip_prefix('-')?;
    let unit = amount.chars().next_back()?;
    let seconds = match unit {
        'w' => 604_800.0,
        'd' => 86_400.0,
        'h' => 3_600.0,
        'm' => 60.0,
        's' => 1.0,
        _ => return None,
    };
    let amount = amount.strip_suffix(unit)?;
    if amount.is_empty() || !amount.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let age = amount.parse::<f64>().ok()? * seconds;
    age.is_finite().then_some(age)
}

/// Reads a date, with a time of day or without, in UTC: `2026-11-22`, `2026-11-22T10:30`, `2026-11-22T10:30:00`.
/// Gives seconds since the epoch.
pub(super) fn date(word: &str) -> Option<f64> {
    let (date, clock) = word.split_once('T').map_or((word, None), |(date, clock)| (date, Some(clock)));
    let mut parts = date.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let day = number(parts.next()?, 2)?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let mut seconds = days_since_epoch(year, month, day) * DAY;
    if let Some(clock) = clock {
        let clock = clock.strip_suffix('Z').unwrap_or(clock);
        let mut parts = clock.splitn(3, ':');
        let hour = number(parts.next()?, 2)?;
        let minute = number(parts.next()?, 2)?;
        let second = parts.next().map_or(Some(0), |second| number(second, 2))?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        seconds += hour * 3_600 + minute * 60 + second;
    }
    // Exact: a date of four-digit years is far below 2**53 seconds.
    #[allow(clippy::cast_precision_loss)]
    Some(seconds as f64)
}

fn number(digits: &str, width: usize) -> Option<i64> {
    let fits = digits.len() == width && digits.bytes().all(|byte| byte.is_ascii_digit());
    if fits { digits.parse().ok() } else { None }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    before * 365 + leap_days + months + day - 1 - 719_162
}
