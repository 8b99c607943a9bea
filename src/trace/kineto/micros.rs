//! Microseconds written in decimals, as whole nanoseconds, without a way through floating point: a time since 1970 in
//! microseconds has sixteen digits before its point and an f64 no room for those behind it.

/// Microseconds as whole nanoseconds: `1760000000000000.123` → 1760000000000000123, halves rounded up. `None` where the
/// text is no number; what is too large to be a time is clamped.
pub fn to_ns(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text.first()? {
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    let (digits, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], exponent(&text[at + 1..])?),
        None => (text, 0),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &digits[..0]),
    };
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    // Three places for the nanoseconds, and as many as the exponent says.
    let places = 3 + exponent;
    let mut value: i128 = 0;
    let mut half = false;
    let count = whole.len() as i64 + places;
    for (index, digit) in whole.iter().chain(fraction).enumerate() {
        let digit = i128::from(digit - b'0');
        match (index as i64).cmp(&count) {
            std::cmp::Ordering::Less => value = (value * 10 + digit).min(i128::from(i64::MAX)),
            std::cmp::Ordering::Equal => half = digit >= 5,
            std::cmp::Ordering::Greater => break,
        }
    }
    for _ in (whole.len() + fraction.len()) as i64..count {
        value = (value * 10).min(i128::from(i64::MAX));
    }
    value = (value + i128::from(half)).min(i128::from(i64::MAX));
    Some(if negative { -value } else { value } as i64)
}

fn exponent(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: i64 = text.strip_prefix('+').unwrap_or(text).parse().ok()?;
    Some(value.clamp(-200, 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_exact_nanoseconds() {
        for (text, ns) in [
            ("0", 0),
            ("5000.003", 5_000_003),
            ("1760000000000000.123", 1_760_000_000_000_000_123),
            ("1.5", 1500),
            ("0.001", 1),
            ("0.0005", 1),
            ("0.00049", 0),
            ("1.2345678e2", 123_457),
            ("1e3", 1_000_000),
            ("1.76E+15", 1_760_000_000_000_000_000),
            ("12e-3", 12),
            ("-2.5", -2500),
            ("9999999999999999999999", i64::MAX),
            ("1e200", i64::MAX),
            ("1e-200", 0),
            ("-1e9999", -i64::MAX),
        ] {
            assert_eq!(to_ns(text.as_bytes()), Some(ns), "{text}");
        }
        for text in ["", "-", ".5", "1.2.3", "1e", "abc", "1x", "1e99999999999999999999"] {
            assert_eq!(to_ns(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn every_nanosecond_of_a_long_trace_survives() {
        for ns in (0..2_000_000_000_000_000_000i64).step_by(777_777_777_777_777) {
            let text = format!("{}.{:03}", ns / 1000, ns % 1000);
            assert_eq!(to_ns(text.as_bytes()), Some(ns));
        }
    }
}
