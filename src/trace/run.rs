//! A run: one profile, or one a rank, as the record of its devices' bubbles.

use super::align::{Alignment, ProfileClock, align};
use super::profile::{self, DeviceProfile, Options, Profile};
use super::source::Found;
use crate::records::bubbles::{BubblesRecord, DeviceBubbles, SCHEMA};
use crate::{Error, Result};
use std::path::PathBuf;

/// The record of a run's bubbles, and what reports show beside it.
#[derive(Debug)]
pub struct Analysis {
    /// The bubbles of every device, as `bubbles --json` prints them.
    pub record: BubblesRecord,
    /// What the record does not hold, one entry a device in the record's order.
    pub extras: Vec<DeviceExtras>,
    /// What the reader should know about the profiles and their clocks, a sentence each.
    pub notes: Vec<String>,
}

/// Figures of one device that reports show and the record does not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceExtras {
    /// Time within the iterations in which copies and fills of memory ran, in ns.
    pub copy_ns: u64,
    /// Every iteration looked at: number, start and end in ns on the common clock.
    pub iterations: Vec<(u64, u64, u64)>,
}

/// Reads the profiles of one run, one file or one a rank. Fails if one of them cannot be read as a profile.
pub fn read(paths: &[PathBuf], options: &Options) -> Result<Analysis> {
    let mut files: Vec<(String, Profile)> = Vec::new();
    for path in paths {
        files.push((path.display().to_string(), profile::read(path, options)?));
    }
    assemble(files)
}

/// Makes one record of profiles with their names, in the order given, or in that of their ranks if all say theirs and
/// differ. Fails if times on the common clock leave 63 bits.
pub fn assemble(mut files: Vec<(String, Profile)>) -> Result<Analysis> {
    let mut ranks: Vec<u64> = files.iter().filter_map(|f| f.1.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    if ranks.len() == files.len() {
        files.sort_by_key(|f| f.1.rank);
    }
    let alignment = alignment(&files);
    let notes = notes(&files, &alignment);
    let source: Vec<&str> = files.iter().map(|f| f.0.as_str()).collect();
    let mut record = BubblesRecord { schema: SCHEMA.into(), source: source.join(", "), devices: Vec::new() };
    let (several, mut extras) = (files.len() > 1, Vec::new());
    for ((place, profile), shift) in files.into_iter().zip(alignment.shift_ns) {
        for mut device in profile.devices {
            shift_device(&mut device, shift).ok_or_else(|| beyond(&place))?;
            extras.push(DeviceExtras {
                copy_ns: device.windows.iter().map(|w| w.2.copy_ns).sum(),
                iterations: device.windows.iter().map(|w| (w.0, w.1.start_ns, w.1.end_ns)).collect(),
            });
            let number = if several { record.devices.len() as u64 } else { device.number };
            record.devices.push(totals(device, number));
        }
    }
    Ok(Analysis { record, extras, notes })
}

fn beyond(place: &str) -> Error {
    Error::input(
        format!("{place}: its times and the start of its session together lie beyond the end of time"),
        "give the profiles one by one",
    )
}

fn alignment(files: &[(String, Profile)]) -> Alignment {
    let clocks: Vec<ProfileClock> = files
        .iter()
        .map(|(_, profile)| ProfileClock {
            epoch_ns: profile.epoch_ns,
            collective_ends: profile.devices.first().map_or(&[], |d| d.collective_ends.as_slice()),
        })
        .collect();
    align(&clocks)
}

fn notes(files: &[(String, Profile)], alignment: &Alignment) -> Vec<String> {
    let mut notes = Vec::new();
    for (place, profile) in files {
        notes.extend(profile.notes.iter().map(|n| format!("{place}: {n}")));
        match profile.found {
            Found::Ranges => {}
            Found::Period => {
                notes.push(format!("{place}: no ranges name its iterations; cut where its kernels repeat"))
            }
            Found::Whole => notes.push(format!(
                "{place}: no ranges name its iterations and nothing repeats; it counts as one (docs/traces.md)"
            )),
        }
    }
    if files.len() > 1 {
        let wall = files.iter().all(|f| f.1.epoch_ns.is_some());
        let first = if wall {
            "are aligned by the nodes' wall clocks"
        } else {
            "are as recorded: not every profile says when it began"
        };
        let then = match alignment.corrected {
            0 => "no common collective corrects them".into(),
            n => format!(
                "corrected by common collectives for {n} of {}, by up to {:.1} µs",
                files.len() - 1,
                alignment.largest_correction_ns.unsigned_abs() as f64 / 1000.0
            ),
        };
        notes.push(format!("clocks of the profiles {first}; {then}"));
    }
    notes
}

/// Onto the common clock; None if that overflows.
fn shift_device(device: &mut DeviceProfile, shift: u64) -> Option<()> {
    let limit = i64::MAX as u64;
    let move_on = |time: &mut u64| -> Option<()> {
        *time = time.checked_add(shift).filter(|t| *t <= limit)?;
        Some(())
    };
    for bubble in &mut device.bubbles {
        move_on(&mut bubble.start_ns)?;
        move_on(&mut bubble.end_ns)?;
    }
    for (_, window, _) in &mut device.windows {
        move_on(&mut window.start_ns)?;
        move_on(&mut window.end_ns)?;
    }
    Some(())
}

fn totals(device: DeviceProfile, number: u64) -> DeviceBubbles {
    let sum = |of: &dyn Fn(&(u64, super::windows::Window, super::scan::Totals)) -> u64| -> u64 {
        device.windows.iter().map(of).sum()
    };
    let window_ns = sum(&|w| w.1.length_ns());
    let compute_ns = sum(&|w| w.2.compute_ns);
    let absent_ns = window_ns - compute_ns;
    DeviceBubbles {
        device: number,
        iterations: device.windows.len() as u64,
        window_ns,
        compute_ns,
        communication_ns: sum(&|w| w.2.communication_ns),
        absent_ns,
        bubble_ratio: if window_ns == 0 { 0.0 } else { absent_ns as f64 / window_ns as f64 },
        bubbles: device.bubbles,
    }
}
