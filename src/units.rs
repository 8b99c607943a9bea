//! Quantities with their units: how they are written for people and read from the command line.
//!
//! Numbers inside the program are plain (`f64` nanoseconds when measured, `u64` nanoseconds in schedules, `u64` bytes);
//! the unit is in the field's name. This file is the one place where they become text and come back.

use crate::{Error, Result};

/// Writes nanoseconds for people, as `1.234 ms`, `56.70 µs` or `2.100 s`, with the digits of [`significant`].
pub fn format_ns(ns: f64) -> String {
    let (value, unit) = match ns.abs() {
        v if v < 1e3 => (ns, "ns"),
        v if v < 1e6 => (ns / 1e3, "µs"),
        v if v < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", significant(value))
}

/// Writes a number without an exponent and with about four significant digits: 1.234, 12.34, 123.4, 1234. Numbers below
/// 1 have three decimals too, those from 1000 on none.
pub fn significant(value: f64) -> String {
    // What rounds up to the next power of ten has its digits.
    let decimals = match value.abs() {
        v if v >= 999.95 => 0,
        v if v >= 99.995 => 1,
        v if v >= 9.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    // A zero has no sign.
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| b == b'0' || b == b'.') => digits.to_string(),
        _ => text,
    }
}

/// A count with what it counts: `1 rank`, `2 ranks`, `0 micro-batches`, `3 copies`. `noun` is the word for one.
pub fn counted(count: impl std::fmt::Display, noun: &str) -> String {
    let count = count.to_string();
    if count == "1" {
        return format!("1 {noun}");
    }
    let before_y = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match before_y {
        Some(stem) => format!("{count} {stem}ies"),
        None if noun.ends_with(['s', 'x']) || noun.ends_with("ch") => format!("{count} {noun}es"),
        None => format!("{count} {noun}s"),
    }
}

/// Writes exact binary sizes as they stand in case names: `8B`, `64KiB`, `16MiB`, `1GiB`; anything else in bytes.
pub fn format_bytes(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Reads a size in bytes from `64KiB`, `64K`, `16MiB`, `1GiB`, `8B` or `8`. It is an error where the text is no such
/// size or does not fit 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" | "B" => 1u64,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => 0,
    };
    match text[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(bytes) if unit > 0 => Ok(bytes),
        _ => Err(Error::input(format!("`{text}` is not a size"), "write it like 8B, 64KiB, 16MiB or 1GiB")),
    }
}

/// Reads `18.522ms`, `601us`, `601µs`, `5ns`, `1.5s` into whole nanoseconds. The unit is required; a negative time is
/// an error.
pub fn parse_ns(text: &str) -> Result<u64> {
    let wrong = |why: &str| {
        Error::input(format!("`{text}` is not a time: {why}"), "write it like 18.522ms, 601us, 250ns or 1.5s")
    };
    let split = text.find(|c: char| c.is_alphabetic() || c == 'µ').ok_or_else(|| wrong("it has no unit"))?;
    let scale = match &text[split..] {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(wrong("the unit is not one of ns, us, ms, s")),
    };
    let value: f64 = text[..split].trim().parse().map_err(|_| wrong("the number cannot be read"))?;
    if !value.is_finite() || value < 0.0 {
        return Err(wrong("it must be zero or more"));
    }
    let ns = value * scale;
    if ns > 1e18 {
        return Err(wrong("it is longer than 30 years"));
    }
    Ok(ns.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_ns("18.522ms").unwrap(), 18_522_000);
        assert_eq!(parse_ns("601us").unwrap(), 601_000);
        assert_eq!(parse_ns("601µs").unwrap(), 601_000);
        assert_eq!(parse_ns("0ns").unwrap(), 0);
        for bad in ["", "12", "-1ms", "1h", "msms", "NaNs", "1e40s", "infs"] {
            assert!(parse_ns(bad).unwrap_err().to_string().contains("is not a time"), "{bad}");
        }
    }

    #[test]
    fn sizes_go_both_ways() {
        for (bytes, text) in [(8, "8B"), (65536, "64KiB"), (16 << 20, "16MiB"), (1 << 30, "1GiB"), (1025, "1025B")] {
            assert_eq!(format_bytes(bytes), text);
            assert_eq!(parse_bytes(text).unwrap(), bytes);
        }
        assert!(parse_bytes("12XB").is_err() && parse_bytes("").is_err() && parse_bytes("99999999999GiB").is_err());
    }

    #[test]
    fn one_is_one_and_all_other_counts_are_many() {
        assert_eq!(counted(1, "rank"), "1 rank");
        assert_eq!(counted(0, "rank"), "0 ranks");
        assert_eq!(counted(24, "micro-batch"), "24 micro-batches");
        assert_eq!(counted(1, "micro-batch"), "1 micro-batch");
        assert_eq!(counted(3, "GPU"), "3 GPUs");
        assert_eq!(counted(2, "process"), "2 processes");
        assert_eq!(counted(2, "copy"), "2 copies");
        assert_eq!(counted(2, "key"), "2 keys");
    }

    #[test]
    fn times_are_written_with_four_digits() {
        assert_eq!(format_ns(12.0), "12.00 ns");
        assert_eq!(format_ns(1_234_000.0), "1.234 ms");
        assert_eq!(format_ns(2.5e9), "2.500 s");
    }
}
