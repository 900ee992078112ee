//! Times and sizes as people write them: `"20s"`, `"1m30s"`, `"4MiB"`.
//!
//! Pure. A number without a unit is refused where a time is expected, because `timeout = 30` has been read as
//! milliseconds and as seconds by too many programs; a plain number is a size in bytes.

use std::time::Duration;

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A time: one or more whole numbers with `ms`, `s`, `m`, `h` or `d`, in any order, for instance `1m30s`.
pub fn time(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit.trim())?;
        total = total.checked_add(number.checked_mul(*factor)?)?;
        rest = after;
    }
    Some(Duration::from_millis(total))
}

/// A size in bytes: a whole number, alone or with `B`, `KiB`, `MiB`, `GiB` (or `kB`, `MB`, `GB`).
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number(text.trim())?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// A time as a person would write it, in its largest whole unit.
pub fn show_time(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fit = TIMES.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
    fit.map_or_else(|| format!("{ms}ms"), |(unit, factor)| format!("{}{unit}", ms / factor))
}

/// A size as a person would write it, in its largest whole binary unit.
pub fn show_size(bytes: u64) -> String {
    let fit = SIZES[..3].iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    fit.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_may_have_several() {
        for (text, ms) in
            [("20s", 20_000), ("1m30s", 90_000), ("250ms", 250), ("7d", 604_800_000), (" 2h ", 7_200_000)]
        {
            assert_eq!(time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "1w", "99999999999999999999s", "20 seconds"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in
            [("4MiB", 4 << 20), ("64kib", 64 << 10), ("100", 100), ("2 MB", 2_000_000), ("0", 0)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "4X", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for ms in [1, 250, 1_000, 90_000, 86_400_000] {
            let shown = show_time(Duration::from_millis(ms));
            assert_eq!(time(&shown), Some(Duration::from_millis(ms)), "{shown}");
        }
        assert_eq!(show_size(4 << 20), "4MiB");
        assert_eq!(show_size(1000), "1000B");
    }
}
