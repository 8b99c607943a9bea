//! The bubbles of a real run for people: a picture of one iteration, and tables by device, class, position and length.

use super::timeline::{columns, key};
use super::{Screen, Table};
use crate::pipeline::BubbleKind;
use crate::records::bubbles::{BubbleClass, DeviceBubbles, MeasuredBubble};
use crate::trace::positions::{self, Evidence, Positions};
use crate::trace::run::{Analysis, DeviceExtras};
use crate::units::{counted, format_ns};
use std::fmt::Write;

/// Headline, picture and tables. `min_gap_ns` is what was asked for.
pub fn render(run: &Analysis, min_gap_ns: u64, screen: Screen) -> String {
    let devices = &run.record.devices;
    let (window, absent) = devices.iter().fold((0, 0), |(w, a), d| (w + d.window_ns, a + d.absent_ns));
    let mut text = format!(
        "{}\n{}; no compute kernel runs for {} of {} ({:.1} %)\n\n",
        run.record.source,
        counted(devices.len(), "device"),
        format_ns(absent as f64),
        format_ns(window as f64),
        100.0 * absent as f64 / (window as f64).max(1.0)
    );
    text = screen.prose(&text, 2) + &picture(run, screen);
    let windows: Vec<&[(u64, u64, u64)]> = run.extras.iter().map(|b| b.iterations.as_slice()).collect();
    let positions = positions::of_record(&run.record, &windows);
    for table in [
        by_device(devices, &run.extras, min_gap_ns),
        by_class(devices),
        by_position(devices, &positions),
        histogram(devices),
    ] {
        if !table.is_empty() {
            let _ = write!(text, "\n{}", table.terminal(screen));
        }
    }
    text
}

/// One line a device, of the iteration in the middle: compute, and every listed bubble by its class.
fn picture(run: &Analysis, screen: Screen) -> String {
    let Some(first) = run.extras.first().filter(|b| !b.iterations.is_empty()) else { return String::new() };
    let number = first.iterations[first.iterations.len() / 2].0;
    let rows: Vec<(&DeviceBubbles, (u64, u64))> = run
        .record
        .devices
        .iter()
        .zip(&run.extras)
        .filter_map(|(d, b)| b.iterations.iter().find(|i| i.0 == number).map(|i| (d, (i.1, i.2))))
        .collect();
    let begin = rows.iter().map(|r| r.1.0).min().unwrap_or(0);
    let end = rows.iter().map(|r| r.1.1).max().unwrap_or(0);
    let longest = rows.iter().map(|r| r.1.1 - r.1.0).max().unwrap_or(0).max(1);
    // Clocks that are far apart are no common one: then every device's iteration begins at the left.
    let common = end - begin <= 2 * longest;
    let span = if common { end - begin } else { longest };
    let label = rows.iter().map(|r| r.0.device.to_string().len()).max().unwrap_or(1);
    let columns = columns(screen, label);
    let mut text = format!("iteration {number}\n");
    for (device, window) in &rows {
        let from = if common { begin } else { window.0 };
        let line = line(device, number, *window, from, span, columns);
        let _ = writeln!(text, "{:>label$} │{line}│", device.device);
    }
    let entries = format!(
        "█ compute  d dependency  c communication  l launch  t tail  (one column {}{})",
        format_ns(span as f64 / columns as f64),
        if common { "" } else { "; clocks not aligned" }
    );
    screen.text(&text) + &key(screen, label, &entries)
}

fn line(device: &DeviceBubbles, number: u64, window: (u64, u64), from: u64, span: u64, columns: usize) -> String {
    let column = span as f64 / columns as f64;
    let place = |time: u64| ((time - from) as f64 / column).clamp(0.0, columns as f64);
    // The share of every column that its longest-lasting class covers; compute is what is left.
    let mut covered = vec![[0.0f64; 4]; columns];
    for bubble in device.bubbles.iter().filter(|b| b.iteration == number) {
        let (start, end) = (place(bubble.start_ns), place(bubble.end_ns));
        let last = (end.ceil() as usize).min(columns);
        for (index, cell) in covered.iter_mut().enumerate().take(last).skip(start as usize) {
            cell[bubble.class as usize] += (end.min(index as f64 + 1.0) - start.max(index as f64)).max(0.0);
        }
    }
    let (left, right) = (place(window.0).round() as usize, place(window.1).round() as usize);
    (0..columns)
        .map(|index| {
            if index < left || index >= right {
                return ' ';
            }
            let absent: f64 = covered[index].iter().sum();
            let most = (0..4).max_by(|a, b| covered[index][*a].total_cmp(&covered[index][*b])).unwrap_or(0);
            if absent >= 0.5 { ['d', 'c', 'l', 't'][most] } else { '█' }
        })
        .collect()
}

fn by_device(devices: &[DeviceBubbles], beside: &[DeviceExtras], min_gap_ns: u64) -> Table {
    let note = format!(
        "Means of one iteration. Communication and copies may run beside compute; listed are bubbles of at least {}.",
        format_ns(min_gap_ns as f64)
    );
    let mut table = Table::new(
        "Devices",
        &note,
        &[
            "device",
            "iterations",
            "iteration",
            "compute",
            "communication",
            "copies",
            "bubbles",
            "bubble ratio",
            "listed",
            "longest",
        ],
    )
    .spare(&["copies", "longest", "listed", "iterations"]);
    for (device, beside) in devices.iter().zip(beside) {
        let mean = |ns: u64| time(ns as f64 / device.iterations.max(1) as f64);
        table.row(vec![
            device.device.to_string(),
            device.iterations.to_string(),
            mean(device.window_ns),
            mean(device.compute_ns),
            mean(device.communication_ns),
            mean(beside.copy_ns),
            mean(device.absent_ns),
            format!("{:.4}", device.bubble_ratio),
            per_iteration(device.bubbles.len(), device),
            time(device.bubbles.iter().map(MeasuredBubble::length_ns).max().unwrap_or(0) as f64),
        ]);
    }
    table
}

/// A number of bubbles in one iteration, on average.
fn per_iteration(count: usize, device: &DeviceBubbles) -> String {
    let mean = count as f64 / device.iterations.max(1) as f64;
    if mean.fract() == 0.0 { format!("{mean:.0}") } else { format!("{mean:.1}") }
}

fn time(ns: f64) -> String {
    if ns == 0.0 { "–".into() } else { format_ns(ns) }
}

/// Count and time of the bubbles that are `kept`, in one iteration.
fn cell(device: &DeviceBubbles, kept: impl Fn(usize, &MeasuredBubble) -> bool) -> String {
    let list = device.bubbles.iter().enumerate().filter(|(i, b)| kept(*i, b));
    let (count, sum) = list.fold((0, 0), |(count, sum), (_, b)| (count + 1, sum + b.length_ns()));
    if count == 0 {
        return "–".into();
    }
    format!("{} × {}", per_iteration(count, device), format_ns(sum as f64 / count as f64))
}

fn by_class(devices: &[DeviceBubbles]) -> Table {
    let header: Vec<&str> = ["device"].into_iter().chain(BubbleClass::ALL.map(BubbleClass::name)).collect();
    let mut table = Table::new(
        "Why",
        "Listed bubbles of one iteration by class, number × mean length: a peer's message is awaited, another collective is exposed, the host launched late, the iteration is over.",
        &header,
    );
    for device in devices.iter().filter(|d| !d.bubbles.is_empty()) {
        let mut row = vec![device.device.to_string()];
        row.extend(BubbleClass::ALL.map(|class| cell(device, |_, b| b.class == class)));
        table.row(row);
    }
    table
}

fn by_position(devices: &[DeviceBubbles], positions: &[Positions]) -> Table {
    let names = BubbleKind::ALL.map(|k| k.name().replace('_', " "));
    let mut header = vec!["device"];
    header.extend(names.iter().map(String::as_str));
    header.push("told by");
    let mut table = Table::new(
        "Where in the schedule",
        "The same bubbles by their place in a pipeline schedule: start of the iteration, before the first backward, between, after the last forward, end.",
        &header,
    );
    for (device, positions) in devices.iter().zip(positions).filter(|(d, _)| !d.bubbles.is_empty()) {
        let mut row = vec![device.device.to_string()];
        row.extend(BubbleKind::ALL.map(|kind| cell(device, |index, _| positions.kinds[index] == kind)));
        row.push(
            match positions.evidence {
                Evidence::KernelNames => "kernel names",
                Evidence::Rank => "rank, as 1F1B",
                Evidence::Missing => "start and end only",
            }
            .into(),
        );
        table.row(row);
    }
    table
}

/// Lower edges of the histogram's bins, ns.
const EDGES: [u64; 11] =
    [0, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000, 100_000_000, 1_000_000_000];
/// More devices than this are shown together only.
const MOST_COLUMNS: usize = 8;

fn histogram(devices: &[DeviceBubbles]) -> Table {
    let names: Vec<String> = devices.iter().map(|d| format!("device {}", d.device)).collect();
    let mut header = vec!["length", "count", "together", "share"];
    if (2..=MOST_COLUMNS).contains(&devices.len()) {
        header.extend(names.iter().map(String::as_str));
    }
    let mut table = Table::new(
        "Lengths",
        "All listed bubbles by length: how many, their time, its share, how many a device.",
        &header,
    );
    let all: u64 = devices.iter().flat_map(|d| &d.bubbles).map(MeasuredBubble::length_ns).sum();
    for (index, &low) in EDGES.iter().enumerate() {
        let high = EDGES.get(index + 1).copied().unwrap_or(u64::MAX);
        let within = |d: &DeviceBubbles| -> (usize, u64) {
            let list = d.bubbles.iter().map(MeasuredBubble::length_ns).filter(|l| (low..high).contains(l));
            list.fold((0, 0), |(count, sum), length| (count + 1, sum + length))
        };
        let counts: Vec<(usize, u64)> = devices.iter().map(within).collect();
        let (count, sum) = counts.iter().fold((0, 0), |(c, s), (count, sum)| (c + count, s + sum));
        if count == 0 {
            continue;
        }
        let share = sum as f64 / all.max(1) as f64;
        let mut row = vec![
            bin(low, high),
            count.to_string(),
            format_ns(sum as f64),
            format!("{:.0} % {}", 100.0 * share, "▇".repeat((20.0 * share).round() as usize)),
        ];
        row.extend(counts.iter().take(header.len() - 4).map(|c| c.0.to_string()));
        table.row(row);
    }
    table
}

fn bin(low: u64, high: u64) -> String {
    let short = |ns: u64| match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    };
    if high == u64::MAX { format!("over {}", short(low)) } else { format!("{} – {}", short(low), short(high)) }
}
