//! Numbers of figures as text: ticks, cells and their units.

use crate::figures::chart::Quantity;
use crate::figures::figure::{Cell, Column};
use crate::report::html::svg::short;
use crate::units::{format_bytes, format_ns, significant};

/// What numbers of a quantity are divided by where the largest is this one, and the unit that they are in then. Times and
/// sizes carry their unit with each number.
pub const fn unit(quantity: Quantity, largest: f64) -> (f64, &'static str) {
    match quantity {
        Quantity::Nanoseconds | Quantity::Bytes | Quantity::Ratio | Quantity::Count => (1.0, ""),
        Quantity::GigaflopPerSecond if largest >= 1e4 => (1e3, "TFLOP/s"),
        Quantity::GigaflopPerSecond => (1.0, "GFLOP/s"),
        Quantity::GigabytePerSecond if largest >= 1e4 => (1e3, "TB/s"),
        Quantity::GigabytePerSecond => (1.0, "GB/s"),
        Quantity::FlopPerByte => (1.0, "FLOP/byte"),
        Quantity::Percent => (1.0, "%"),
        Quantity::Megahertz => (1.0, "MHz"),
        Quantity::Watts => (1.0, "W"),
        Quantity::Minutes => (1.0, "min"),
        Quantity::PerSecond => (1.0, "1/s"),
    }
}

/// A tick's text.
pub fn tick(value: f64, quantity: Quantity, (divisor, _): (f64, &str)) -> String {
    match quantity {
        _ if value == 0.0 => "0".into(),
        Quantity::Nanoseconds => time(value),
        Quantity::Bytes => size(value),
        // Not `significant`: of 0.0002 it would leave 0.
        _ if (value / divisor).abs() < 1e-3 => format!("{:e}", value / divisor),
        _ => short(value / divisor),
    }
}

/// `1 µs`: a round time.
fn time(ns: f64) -> String {
    let text = format_ns(ns);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

fn size(bytes: f64) -> String {
    if bytes >= 1.0 && bytes.fract() == 0.0 && bytes < 9e15 {
        spaced(&format_bytes(bytes as u64))
    } else {
        format!("{bytes:.1} B")
    }
}

/// `64 KiB` of `64KiB`.
fn spaced(text: &str) -> String {
    let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    format!("{} {}", &text[..at], &text[at..])
}

/// A number with its unit, for a sentence: `101.3 GFLOP/s`.
pub fn in_unit(value: f64, quantity: Quantity) -> String {
    match quantity {
        Quantity::Nanoseconds => format_ns(value),
        Quantity::Bytes => size(value),
        _ => {
            let (divisor, unit) = unit(quantity, value);
            let number = significant(value / divisor);
            if unit.is_empty() { number } else { format!("{number} {unit}") }
        }
    }
}

/// A column's heading without the unit that its cells carry: `median` of `median_ns`.
pub fn heading(column: Column) -> String {
    let endings: &[&str] = match column.quantity {
        Some(Quantity::Nanoseconds) => &["_ns"],
        _ => &[],
    };
    let name = endings.iter().find_map(|ending| column.name.strip_suffix(ending)).unwrap_or(column.name);
    let words = match column.quantity {
        Some(Quantity::GigaflopPerSecond) => name.replace("gflop_per_s", "GFLOP/s"),
        Some(Quantity::GigabytePerSecond) => name.replace("gb_per_s", "GB/s"),
        Some(Quantity::FlopPerByte) => name.replace("flop_per_byte", "FLOP/byte"),
        Some(Quantity::PerSecond) => name.replace("per_s", "per second"),
        Some(Quantity::Megahertz) => name.replace("mhz", "MHz"),
        Some(Quantity::Watts) => name.replace("power_w", "power W"),
        Some(Quantity::Percent) => name.replace("percent", "%"),
        _ => name.replace("ci95", "95 %"),
    };
    words.replace("ci95", "95 %").replace('_', " ")
}

/// A cell for people.
pub fn cell(cell: &Cell, column: Column) -> String {
    match (cell, column.quantity) {
        (Cell::Text(text), _) => text.clone(),
        (Cell::Empty, _) => "–".into(),
        (Cell::Number(number), Some(Quantity::Nanoseconds)) => format_ns(*number),
        (Cell::Number(number), Some(Quantity::Bytes)) => size(*number),
        (Cell::Number(number), Some(Quantity::Count)) => format!("{number:.0}"),
        // Progress of a probe is counted in FLOP or bytes.
        (Cell::Number(number), Some(Quantity::PerSecond)) if *number >= 1e6 => format!("{number:.2e}"),
        (Cell::Number(number), _) => significant(*number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_carry_their_unit_where_it_changes() {
        assert_eq!(tick(1e3, Quantity::Nanoseconds, (1.0, "")), "1 µs");
        assert_eq!(tick(2.5e7, Quantity::Nanoseconds, (1.0, "")), "25 ms");
        assert_eq!(tick(65536.0, Quantity::Bytes, (1.0, "")), "64 KiB");
        assert_eq!(tick(2e5, Quantity::GigaflopPerSecond, unit(Quantity::GigaflopPerSecond, 3e5)), "200");
        assert_eq!(tick(0.0001, Quantity::GigabytePerSecond, (1.0, "GB/s")), "1e-4");
        assert_eq!(in_unit(1e5, Quantity::GigaflopPerSecond), "100.0 TFLOP/s");
    }

    #[test]
    fn headings_lose_what_cells_say() {
        let heading = |name, quantity| heading(Column { name, quantity: Some(quantity) });
        assert_eq!(heading("ci95_low_ns", Quantity::Nanoseconds), "95 % low");
        assert_eq!(heading("busbw_gb_per_s", Quantity::GigabytePerSecond), "busbw GB/s");
        assert_eq!(heading("bubble_used_percent", Quantity::Percent), "bubble used %");
    }
}
