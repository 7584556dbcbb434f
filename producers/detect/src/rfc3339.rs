//! Whether a text is a moment as RFC 3339 has it, which CloudEvents demands of `time`.
//!
//! A registry's own form (`+0000` without a colon, a date alone) must never pass as one.

/// Whether the text is an RFC 3339 date-time.
pub(crate) fn is_moment(text: &str) -> bool {
    check(text.as_bytes()).is_some()
}

fn check(text: &[u8]) -> Option<()> {
    let (year, month, day) = (number(text, 0, 4)?, number(text, 5, 2)?, number(text, 8, 2)?);
    let (hour, minute, second) = (number(text, 11, 2)?, number(text, 14, 2)?, number(text, 17, 2)?);
    let separated = text.get(4) == Some(&b'-')
        && text.get(7) == Some(&b'-')
        && matches!(text.get(10), Some(b'T' | b't'))
        && text.get(13) == Some(&b':')
        && text.get(16) == Some(&b':');
    // A leap second is written as 60.
    let in_range = (1..=days(year, month)?).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    (separated && in_range).then_some(())?;
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    match rest {
        [b'Z' | b'z'] => Some(()),
        [b'+' | b'-', _, _, b':', _, _] => (number(rest, 1, 2)? < 24 && number(rest, 4, 2)? < 60).then_some(()),
        _ => None,
    }
}

fn number(text: &[u8], start: usize, digits: usize) -> Option<u32> {
    text.get(start..start + digits)?.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

fn days(year: u32, month: u32) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::is_moment;

    #[test]
    fn only_rfc_3339_is_a_moment() {
        for good in [
            "2022-07-05T04:01:39.613Z",
            "2022-07-05T04:01:39Z",
            "2022-07-05t04:01:39z",
            "2024-02-29T23:59:60+02:00",
            "2000-02-29T00:00:00-11:30",
        ] {
            assert!(is_moment(good), "{good}");
        }
        for bad in [
            "",
            "2022-07-05",
            "2022-07-05T04:01:39",
            "2022-07-05 04:01:39Z",
            "2022-07-05T04:01:39.Z",
            "2022-07-05T04:01:39+0000",
            "2022-07-05T04:01:39.000+0000",
            "2022-07-05T04:01:39Z ",
            "2022-07-05T04:01:39Z[Europe/Oslo]",
            "2022-02-29T04:01:39Z",
            "1900-02-29T04:01:39Z",
            "2022-13-01T04:01:39Z",
            "2022-00-01T04:01:39Z",
            "2022-01-00T04:01:39Z",
            "2022-01-01T24:00:00Z",
            "2022-01-01T00:60:00Z",
            "2022-01-01T00:00:00+24:00",
            "+022-01-01T00:00:00Z",
            "２022-01-01T00:00:00Z",
        ] {
            assert!(!is_moment(bad), "{bad}");
        }
    }
}
