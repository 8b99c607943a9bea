//! Axes as `plotters` wants them: where a value lies, and at which values ticks stand.

use super::text;
use crate::figures::chart::{Axis, Quantity, Scale};
use crate::report::html::svg::round_step;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// What an axis reaches to, whatever its points say: numbers beyond are drawn at its ends.
const LARGEST: f64 = 1e18;
const SMALLEST: f64 = 1e-9;

/// An axis with its ends and its ticks.
#[derive(Debug, Clone)]
pub struct DrawnScale {
    logarithmic: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    /// What the axis's numbers are divided by, and the unit that they are in then.
    unit: (f64, &'static str),
    quantity: Quantity,
}

impl DrawnScale {
    /// The axis over these values, with about so many ticks.
    pub fn new(axis: &Axis, values: impl Iterator<Item = f64>, count: usize) -> Self {
        if let Scale::Rows(names) = &axis.scale {
            // The first on top, half a row around all.
            let (low, high) = (names.len() as f64 - 0.5, -0.5);
            let unit = (1.0, "");
            return DrawnScale { logarithmic: false, low, high, ticks: Vec::new(), unit, quantity: axis.quantity };
        }
        let logarithmic = axis.scale != Scale::Linear;
        let usable = |v: &f64| v.abs() <= LARGEST && (!logarithmic || *v >= SMALLEST);
        let all = values.chain(axis.holds.iter().copied()).filter(usable);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let (low, high) = padded(low, high, logarithmic, &axis.holds);
        let unit = text::unit(axis.quantity, high);
        let ticks = match axis.scale {
            Scale::Linear => round(low / unit.0, high / unit.0, count).into_iter().map(|tick| tick * unit.0).collect(),
            Scale::Log2 => powers_of_two(low, high, count),
            _ => powers_of_ten(low / unit.0, high / unit.0, count).into_iter().map(|tick| tick * unit.0).collect(),
        };
        DrawnScale { logarithmic, low, high, ticks, unit, quantity: axis.quantity }
    }

    /// Where a value lies between both ends, 0 to 1; what lies beyond an end is drawn at it.
    pub fn share(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// A tick's text.
    pub fn tick(&self, value: f64) -> String {
        text::tick(value, self.quantity, self.unit)
    }

    /// Ticks with their texts.
    pub fn key_ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        self.ticks.iter().map(|tick| (*tick, self.tick(*tick)))
    }

    /// The axis's name with its unit.
    pub fn label(&self, axis: &Axis) -> String {
        match self.unit.1 {
            "" => axis.label.to_string(),
            unit => format!("{} ({unit})", axis.label),
        }
    }
}

impl Ranged for DrawnScale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light lines between the ticks would say nothing.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// Some room around the values, none beyond an end that the axis holds on purpose.
fn padded(low: f64, high: f64, logarithmic: bool, holds: &[f64]) -> (f64, f64) {
    let kept = |end: f64| holds.contains(&end);
    if logarithmic {
        let room = if high / low < 1.5 { 1.5 } else { (high / low).powf(0.04).max(1.05) };
        return (low / room, high * room);
    }
    let room = if high > low { 0.05 * (high - low) } else { 0.1 * high.abs().max(1.0) };
    (if kept(low) { low } else { low - room }, if kept(high) { high } else { high + room })
}

/// About `count` round values between both ends.
fn round(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count.max(1) as f64;
    if !(raw > 0.0 && raw.is_finite()) {
        return vec![low];
    }
    let step = round_step(raw);
    let first = (low / step - 1e-9).ceil();
    let last = (high / step + 1e-9).floor();
    (0..=(last - first).max(0.0) as usize).map(|k| (first + k as f64) * step).collect()
}

/// Powers of ten between both ends, with their twos and fives where there are few, and only each second, third … where many.
fn powers_of_ten(low: f64, high: f64, count: usize) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within = |factors: &[f64], stride: usize| -> Vec<f64> {
        let powers = (first..=last).filter(|power| power.rem_euclid(stride.max(1) as i32) == 0);
        let all = powers.flat_map(|power| factors.iter().map(move |f| f * 10f64.powi(power)));
        all.filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect()
    };
    let tens = within(&[1.0], 1);
    match tens.len() {
        0 | 1 => within(&[1.0, 2.0, 5.0], 1),
        2 if count > 3 => within(&[1.0, 3.0], 1),
        n if n > count => within(&[1.0], n.div_ceil(count)),
        _ => tens,
    }
}

/// Powers of two between both ends, about `count` of them.
fn powers_of_two(low: f64, high: f64, count: usize) -> Vec<f64> {
    let (first, last) = ((low.log2() - 1e-9).ceil() as i32, (high.log2() + 1e-9).floor() as i32);
    let stride = ((last - first).max(0) as usize / count.max(1) + 1) as i32;
    // Even strides stand at KiB, MiB and the like.
    let stride = [1, 2, 5, 10, 20].into_iter().find(|s| *s >= stride).unwrap_or(stride);
    (first..=last).filter(|power| power.rem_euclid(stride) == 0).map(|power| 2f64.powi(power)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(round(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(round(0.9, 2.1, 5), [1.0, 1.25, 1.5, 1.75, 2.0]);
        assert_eq!(round(5.0, 5.0, 5), [5.0]);
        assert_eq!(powers_of_ten(0.5, 3000.0, 6), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(powers_of_ten(90.0, 450.0, 6), [100.0, 200.0]);
        assert_eq!(powers_of_ten(1.0, 1e9, 4).len(), 4);
        assert_eq!(powers_of_two(8.0, 1024.0, 8), [8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]);
        assert_eq!(powers_of_two(8.0, 67108864.0, 5), [32.0, 1024.0, 32768.0, 1048576.0, 33554432.0]);
    }

    #[test]
    fn values_lie_where_they_should() {
        let axis = Axis::new("time", Scale::Log, Quantity::Nanoseconds);
        let scale = DrawnScale::new(&axis, [1e3, 1e6].into_iter(), 5);
        assert!((scale.share(31_622.8) - 0.5).abs() < 1e-3);
        assert_eq!((scale.share(0.0), scale.share(1e12), scale.share(f64::NAN)), (0.0, 1.0, 0.0));
        let rows = Axis::new("", Scale::Rows(vec!["a".into(), "b".into()]), Quantity::Count);
        let scale = DrawnScale::new(&rows, std::iter::empty(), 5);
        assert!(scale.share(0.0) > scale.share(1.0), "the first on top");
        let empty = DrawnScale::new(&axis, std::iter::empty(), 5);
        assert!(empty.share(5.0) > 0.0);
        // Numbers that cannot be end nothing.
        for kind in [Scale::Log, Scale::Log2, Scale::Linear] {
            let axis = Axis::new("time", kind, Quantity::Nanoseconds);
            for values in [[5e-324, 1e308], [-1e308, 1e308], [1e-300, 1e-290], [f64::NAN, f64::INFINITY]] {
                let scale = DrawnScale::new(&axis, values.into_iter(), 5);
                assert!(scale.key_ticks().count() < 40, "{values:?}");
                assert!(values.iter().all(|v| (0.0..=1.0).contains(&scale.share(*v))), "{values:?}");
            }
        }
    }
}
