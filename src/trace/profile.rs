//! One profile of either kind, read into its devices' iterations and bubbles.

use super::kineto::Kineto;
use super::nsys::Nsys;
use super::pending;
use super::scan::{CollectiveEnd, DeviceScan, Gap, LaunchTiming, Totals};
use super::source::{self, Catalogue, Found, ProfileSource};
use super::windows::Window;
use crate::records::bubbles::{BubbleClass, KernelName, MeasuredBubble};
use crate::units::counted;
use crate::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What is asked of a profile.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Length in ns from which a bubble is listed; shorter ones are in the totals only.
    pub min_gap_ns: u64,
    /// The one iteration to look at, counted from 0; `None` is all of them.
    pub iteration: Option<u64>,
    /// The streams whose kernels count as compute; on others only communication and copies count. `None` is all
    /// streams.
    pub compute_streams: Option<Vec<u64>>,
}

/// A device of one profile, its times on the profile's own clock.
#[derive(Debug)]
pub struct DeviceProfile {
    /// The GPU's number in the profile.
    pub number: u64,
    /// The iterations asked for: number, interval, and time covered by each activity within it.
    pub windows: Vec<(u64, Window, Totals)>,
    /// Bubbles of the iterations asked for, in order of time.
    pub bubbles: Vec<MeasuredBubble>,
    /// Names and ends of collectives in ns, by which the clocks of several profiles are aligned.
    pub collective_ends: Vec<(KernelName, u64)>,
}

/// One profile as its devices' iterations and bubbles.
#[derive(Debug)]
pub struct Profile {
    /// The devices that computed something, by their numbers.
    pub devices: Vec<DeviceProfile>,
    /// Wall-clock time of the profile's time zero, in ns since 1970; `None` where the profile does not say.
    pub epoch_ns: Option<u64>,
    /// The rank that wrote the profile; `None` where the profile does not say, as in every nsys export.
    pub rank: Option<u64>,
    /// How the profile's iterations were found.
    pub found: Found,
    /// What was left out or could not be told, a sentence each.
    pub notes: Vec<String>,
}

/// Reads a profile, whose first bytes tell its kind. Fails if it is of no known kind, is broken, holds no compute
/// kernel within an iteration, or lacks the iteration asked for.
pub fn read(path: &Path, options: &Options) -> Result<Profile> {
    let streams = options.compute_streams.as_deref();
    let mut file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut head = Vec::new();
    (&mut file).take(64).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    let place = path.display().to_string();
    match kind(path, &head)? {
        Kind::Sqlite => digest(&mut Nsys::open(path, streams)?, &place, options),
        Kind::Json => digest(&mut Kineto::open(head.as_slice().chain(file), path, streams)?, &place, options),
    }
}

/// Reads a trace that is in memory or comes through a pipe, JSON without gzip; `place` names it in errors.
pub fn read_json(text: impl Read, place: &str, options: &Options) -> Result<Profile> {
    digest(&mut Kineto::read(text, place, options.compute_streams.as_deref())?, place, options)
}

/// Reads an nsys export that is open already; `place` names it in errors.
pub fn read_sqlite(connection: rusqlite::Connection, place: &str, options: &Options) -> Result<Profile> {
    digest(&mut Nsys::of(connection, place.into(), options.compute_streams.as_deref())?, place, options)
}

enum Kind {
    Sqlite,
    Json,
}

/// By the first bytes; an extension may be wrong.
fn kind(path: &Path, head: &[u8]) -> Result<Kind> {
    let place = path.display();
    let first = head.iter().find(|b| !b.is_ascii_whitespace());
    if head.starts_with(b"SQLite format 3\0") {
        Ok(Kind::Sqlite)
    } else if head.starts_with(&[0x1f, 0x8b]) || matches!(first, Some(b'{' | b'[')) {
        Ok(Kind::Json)
    } else if head.is_empty() {
        Err(Error::input(format!("{place} is empty"), "record or export it again"))
    } else if path.extension().is_some_and(|e| e == "nsys-rep" || e == "qdrep") {
        Err(Error::input(
            format!("{place} is an nsys report, which only nsys reads"),
            format!("export it: nsys export --type sqlite {place}"),
        ))
    } else {
        Err(Error::input(
            format!("{place} is neither an nsys .sqlite export nor a Kineto or Chrome .json trace"),
            "record one of them: docs/traces.md shows how",
        ))
    }
}

fn digest(source: &mut dyn ProfileSource, place: &str, options: &Options) -> Result<Profile> {
    let (mut scans, found) = source::scan(source, options.min_gap_ns)?;
    let catalogue = source.take_catalogue();
    if scans.is_empty() {
        return Err(nothing(&catalogue, place, options));
    }
    let most = scans.iter().map(|s| s.windows.len()).max().unwrap_or(0);
    if let Some(wanted) = options.iteration.filter(|&i| i >= most as u64) {
        return Err(Error::input(
            format!("--iteration {wanted}: {place} holds {}, counted from 0", counted(most, "iteration")),
            if most == 1 { "give 0, or all".to_string() } else { format!("give 0 to {}, or all", most - 1) },
        ));
    }
    let chosen = |window: u64| options.iteration.is_none_or(|i| i == window);
    let mut notes = source.notes();
    for scan in &mut scans {
        scan.gaps.retain(|g| chosen(u64::from(g.window)));
    }
    let asked = scans.iter().flat_map(|s| &s.gaps).any(Gap::asks);
    if asked && !pending::resolve(&mut scans, |pending| source.launches(pending))? {
        notes.push("it holds no launches: what was launched late cannot be told from what waited".into());
    }
    let mut devices: Vec<DeviceProfile> = scans.into_iter().map(|scan| device(scan, &catalogue, &chosen)).collect();
    devices.retain(|d| !d.windows.is_empty());
    Ok(Profile { devices, epoch_ns: source.epoch_ns(), rank: source.rank(), found, notes })
}

fn nothing(catalogue: &Catalogue, place: &str, options: &Options) -> Error {
    if options.compute_streams.is_some() && catalogue.has_kernels {
        return Error::input(
            format!("{place} holds no kernel on the streams of --compute-streams"),
            "name the streams that compute, or leave the option out",
        );
    }
    if !catalogue.has_kernels {
        return Error::input(
            format!("{place} holds no GPU kernels"),
            "record it with the GPU's activity on: nsys profile --trace=cuda,nvtx, or ProfilerActivity.CUDA",
        );
    }
    Error::input(
        format!("{place} holds no compute kernel within an iteration"),
        "record whole training iterations, and their kernels with them",
    )
}

fn device(scan: DeviceScan, catalogue: &Catalogue, chosen: &dyn Fn(u64) -> bool) -> DeviceProfile {
    let name = |id| catalogue.names.get(id).clone();
    // In place: both kinds are equally large, and there may be millions.
    let bubbles = scan.gaps.into_iter().map(|gap| MeasuredBubble {
        iteration: u64::from(gap.window),
        start_ns: gap.start_ns,
        end_ns: gap.end_ns,
        class: class(&gap),
        previous_kernel: gap.previous.map(name),
        next_kernel: gap.next.map(name),
    });
    let numbered = scan.windows.iter().enumerate().map(|(i, (window, totals))| (i as u64, *window, *totals));
    DeviceProfile {
        number: scan.number,
        bubbles: bubbles.collect(),
        windows: numbered.filter(|w| chosen(w.0)).collect(),
        collective_ends: scan.collective_ends.iter().map(|m: &CollectiveEnd| (name(m.name), m.end_ns)).collect(),
    }
}

fn class(gap: &Gap) -> BubbleClass {
    if gap.send_recv {
        BubbleClass::Dependency
    } else if gap.collective {
        BubbleClass::Communication
    } else if gap.next.is_none() {
        BubbleClass::Tail
    } else if gap.launched == LaunchTiming::Late {
        BubbleClass::Launch
    } else {
        BubbleClass::Dependency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_gaps_becomes_one_of_bubbles_in_place() {
        assert_eq!((size_of::<Gap>(), align_of::<Gap>()), (size_of::<MeasuredBubble>(), align_of::<MeasuredBubble>()));
    }
}
