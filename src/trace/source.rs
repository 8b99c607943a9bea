//! What both readers offer, and what they share: devices, names with their activities, notes for the user.

use super::classify;
use super::order::SpanStop;
use super::pending::PendingLaunches;
use super::scan::DeviceScan;
use super::span::{Activity, NameId, Names, Span};
use super::windows::{self, IterationRange, Launched, Window};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// A profile that can be asked, in this order: ranges, then spans, then the launches of some of them.
pub trait ProfileSource {
    /// The ranges whose names say that they may be iterations. Fails if the profile cannot be read.
    fn ranges(&mut self) -> Result<Vec<IterationRange>>;

    /// For each time, in order, the first kernel that the process launched then or later; `None` where that cannot be
    /// told. Fails if the profile cannot be read.
    fn launches_after(&mut self, process: u64, times: &[u64]) -> Result<Vec<Option<Launched>>>;

    /// Gives every span to `take` in the order of starts. Fails with [`SpanStop::Late`] if they are too far out of
    /// order, but never where `any_order` is set, which is slower.
    fn spans(&mut self, any_order: bool, take: &mut dyn FnMut(&Span, &Catalogue)) -> Result<(), SpanStop>;

    /// Tells the gaps that ask for it when their next kernels were launched; false if the profile holds no launches.
    fn launches(&mut self, pending: &mut PendingLaunches) -> Result<bool>;

    /// Takes out the names and devices, which are complete once the spans have been read.
    fn take_catalogue(&mut self) -> Catalogue;

    /// What was left out or should be known about the profile, a sentence each.
    fn notes(&self) -> Vec<String>;

    /// Wall-clock time of the profile's time zero, in ns since 1970; `None` where the profile does not say.
    fn epoch_ns(&self) -> Option<u64>;

    /// The rank of the process that was profiled; `None` where the profile does not say.
    fn rank(&self) -> Option<u64>;
}

/// A device of a profile, and the processes that used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    /// The GPU's number in the profile.
    pub number: u64,
    /// The processes that used the device, in the order in which they were seen.
    pub processes: Vec<u64>,
}

/// The names and devices of one profile, into which spans hold indices.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The names of all kernels.
    pub names: Names,
    activities: Vec<Activity>,
    optimizer: Vec<bool>,
    /// The devices, in the order in which they were seen.
    pub devices: Vec<DeviceKey>,
    /// Whether any span was a kernel, rather than a copy or fill of memory.
    pub has_kernels: bool,
    /// Number, process and index of the device asked for last.
    last_device: Option<(u64, u64, usize)>,
}

/// A profile with more devices than this is not one.
const MOST_DEVICES: usize = 4096;
/// Processes of one device that are told apart.
const MOST_PROCESSES: usize = 64;
/// One may come late, and one may find only at its end which process of a device has iterations.
const MOST_PASSES: usize = 3;

impl Catalogue {
    /// The id and activity of a kernel's name, with the collective PyTorch names beside it. `None` once the names are
    /// too many.
    pub fn kernel(&mut self, name: &str, collective: Option<&str>) -> Option<(NameId, Activity)> {
        let id = self.names.intern(name)?;
        if self.activities.len() <= id as usize {
            self.activities.push(classify::kernel(name));
            self.optimizer.push(classify::is_optimizer(name));
        }
        let activity = match collective {
            Some(_) => classify::with_collective(name, collective),
            None => self.activities[id as usize],
        };
        Some((id, activity))
    }

    /// Whether a kernel of this name is a step of an optimizer.
    pub fn is_optimizer(&self, id: NameId) -> bool {
        self.optimizer.get(id as usize).copied().unwrap_or(false)
    }

    /// The index of a device by its number, with a process that uses it. `None` once the devices are too many.
    pub fn device(&mut self, number: u64, process: u64) -> Option<u32> {
        if let Some((_, _, index)) = self.last_device.filter(|last| (last.0, last.1) == (number, process)) {
            return Some(index as u32);
        }
        let found = self.devices.iter().position(|d| d.number == number);
        let index = found.unwrap_or(self.devices.len());
        if found.is_none() {
            if self.devices.len() == MOST_DEVICES {
                return None;
            }
            self.devices.push(DeviceKey { number, processes: Vec::new() });
        }
        let processes = &mut self.devices[index].processes;
        if !processes.contains(&process) && processes.len() < MOST_PROCESSES {
            processes.push(process);
        }
        self.last_device = Some((number, process, index));
        Some(index as u32)
    }
}

/// How the iterations of a profile were found, the surest way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Ranges that the framework or the user wrote name them.
    Ranges,
    /// The profile was cut where its kernels repeat, for at least one of its devices.
    Period,
    /// Nothing repeats on at least one device, and its whole profile is one iteration.
    Whole,
}

/// Passes over the spans and cuts them into iterations; devices without compute are left out, the others come in the
/// order of their numbers. Fails if the profile cannot be read.
pub fn scan(source: &mut dyn ProfileSource, min_gap_ns: u64) -> Result<(Vec<DeviceScan>, Found)> {
    let windows = range_windows(source)?;
    let mut scans = pass(source, &windows, min_gap_ns)?;
    let mut found = Found::Ranges;
    // A device on which nothing computed says nothing about how iterations were found.
    for scan in scans.iter_mut().filter(|s| s.windows.is_empty() && s.first_compute_ns.is_some()) {
        let cut = super::period::cut(scan);
        found = found.max(if cut { Found::Period } else { Found::Whole });
    }
    scans.retain(|s| s.windows.iter().any(|w| w.1.compute_ns > 0));
    scans.sort_by_key(|s| s.number);
    Ok((scans, found))
}

/// The iterations of every process that wrote ranges.
fn range_windows(source: &mut dyn ProfileSource) -> Result<BTreeMap<u64, Vec<Window>>> {
    let ranges = source.ranges()?;
    let mut processes: Vec<u64> = ranges.iter().map(|r| r.process).collect();
    processes.sort_unstable();
    processes.dedup();
    let mut all = BTreeMap::new();
    for process in processes {
        let chosen = windows::choose(&ranges, process);
        let starts: Vec<u64> = chosen.iter().map(|w| w.start_ns).collect();
        let first = source.launches_after(process, &starts)?;
        let windows = windows::follow_device(&chosen, &first);
        if !windows.is_empty() {
            all.insert(process, windows);
        }
    }
    Ok(all)
}

fn pass(
    source: &mut dyn ProfileSource,
    windows: &BTreeMap<u64, Vec<Window>>,
    min_gap_ns: u64,
) -> Result<Vec<DeviceScan>> {
    // Ranges of the only process that wrote any stand for the others too: a launcher may write them for its workers.
    let windows_of = |processes: &[u64]| match windows.len() {
        1 => windows.values().next(),
        _ => processes.iter().find_map(|process| windows.get(process)),
    };
    let mut any_order = false;
    for _ in 0..MOST_PASSES {
        let mut scans: Vec<DeviceScan> = Vec::new();
        // Devices without windows so far: another process on the device may have some.
        let mut bare: Vec<bool> = Vec::new();
        let mut outdated = false;
        let mut take = |span: &Span, catalogue: &Catalogue| {
            let index = span.device as usize;
            while scans.len() <= index {
                let key = &catalogue.devices[scans.len()];
                let found = windows_of(&key.processes);
                bare.push(found.is_none() && windows.len() > 1);
                scans.push(DeviceScan::new(key.number, found.map_or(&[][..], Vec::as_slice), min_gap_ns));
            }
            outdated |= bare[index] && windows_of(&catalogue.devices[index].processes).is_some();
            scans[index].add(span, catalogue.is_optimizer(span.name));
        };
        match source.spans(any_order, &mut take) {
            Ok(()) if outdated => {}
            Ok(()) => {
                scans.iter_mut().for_each(DeviceScan::finish);
                return Ok(scans);
            }
            Err(SpanStop::Late) => any_order = true,
            Err(SpanStop::Error(error)) => return Err(error),
        }
    }
    Err(Error::bug("the profile's events cannot be put in order"))
}
