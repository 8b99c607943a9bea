//! A live gate as somebody who looks on sees it.

use super::page::{Page, PageLayout, SidePlace};
use super::process::{Life, ProcessId, main_life, time_namespace};
use super::protocol::{self, OPEN, SHUT_DOWN, generation, phase, standing};
use crate::Result;
use crate::corun::time::now_ns;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

/// The schema of [`GateRecord`].
pub const SCHEMA: &str = "bubblebench.gate/1";

/// What a side does at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// No side is there, or none that is ready to work.
    Idle,
    /// A side is attached and does not work: the gate is shut, or it has not come to it yet.
    Armed,
    /// The gate is open and the side works.
    Running,
    /// The gate is closed, or the time is up, and the side has not said yet that it stands still.
    Draining,
    /// The side has worked and stands still.
    Stopped,
}

impl GateState {
    /// The word for it: `idle`, `armed`, `running`, `draining` or `stopped`.
    pub const fn name(self) -> &'static str {
        match self {
            GateState::Idle => "idle",
            GateState::Armed => "armed",
            GateState::Running => "running",
            GateState::Draining => "draining",
            GateState::Stopped => "stopped",
        }
    }
}

/// Main or side of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// Its process id, in its own id namespace.
    pub pid: u32,
    /// Whether it is there, as far as this process can tell.
    pub life: Life,
    /// How long ago it started, where this process's table knows it.
    pub age: Option<Duration>,
    /// How long ago it gave a sign of life on the page; `None` where it has not.
    pub silent: Option<Duration>,
}

/// What a gate's page says, and what follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct GateStatus {
    /// As a script reads it.
    pub record: GateRecord,
    /// The creator of the page.
    pub main: Party,
    /// Who is attached and ready to work.
    pub side: Option<Party>,
    /// A side holds the place and gets ready.
    pub side_gets_ready: bool,
}

/// A gate as `gate status --json` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateRecord {
    /// `bubblebench.gate/1`.
    pub schema: String,
    /// What the side does.
    pub state: GateState,
    /// The gate is open.
    pub open: bool,
    /// The main has shut it down for good.
    pub shut_down: bool,
    /// A device opens and closes it, not the main's calls.
    pub by_device: bool,
    /// The main's process id, in its own id namespace.
    pub main_pid: u32,
    /// Whether the main lives; null where nobody can tell.
    pub main_alive: Option<bool>,
    /// The side's process id; null where none is ready to work.
    pub side_pid: Option<u32>,
    /// How often the side's place was taken.
    pub sides: u64,
    /// Number of the bubble that the gate was last opened for.
    pub bubble: u64,
    /// Number of openings.
    pub openings: u64,
    /// Number of closings.
    pub closings: u64,
    /// Operations that all sides finished.
    pub operations: u64,
    /// Openings in which a side worked and stopped by the clock, before the closing.
    pub self_stops: u64,
    /// Nanoseconds from the last closing until the side stood still, 0 where it did before; null while it has not.
    pub stop_latency_ns: Option<u64>,
    /// Nanoseconds that the gate has stood open.
    pub open_ns: u64,
    /// Nanoseconds from the first operation of an opening to standing still or the closing, all openings together.
    pub work_ns: u64,
    /// Nanoseconds that are left of this opening, negative behind its expected close; null while the gate is closed.
    pub left_ns: Option<i64>,
}

impl GateStatus {
    /// The main has ended, in good order or not, as far as this process can tell.
    pub fn is_over(&self) -> bool {
        self.record.shut_down || self.main.life == Life::Gone
    }
}

/// Reads the page at `path` without taking part; an error where there is no gate page of this version, or its clock is
/// another.
pub fn status(path: &Path) -> Result<GateStatus> {
    let (page, file) = Page::look_on(path)?;
    if page.layout().header.time_namespace.load(Relaxed) != time_namespace() {
        let name = path.display().to_string();
        return Err(super::other_clock(&name, "look from within its time namespace"));
    }
    Ok(of(&page, &file))
}

fn of(page: &Page, file: &File) -> GateStatus {
    let layout = page.layout();
    let PageLayout { header, main, side, place, device, .. } = layout;
    let now = now_ns();
    let host_state = main.state.load(Acquire);
    let by_device = header.by_device();
    let shut_down = phase(host_state) == SHUT_DOWN;
    let (is_open, current) = match by_device {
        true => (!shut_down && device.open.load(Acquire) != 0, u64::from(device.generation.load(Acquire))),
        false => (phase(host_state) == OPEN, generation(host_state)),
    };
    let attached = attached(place, now);
    let Ok(stop_latency_ns) = protocol::stopped(page);
    let side_generation = place.generation.load(Acquire);
    let started = side.started.load(Acquire);
    let stands = |generation| side.stopped.load(Acquire) == standing(side_generation, generation);
    let past_close = !by_device && now > main.expected_close.load(Relaxed).saturating_add(main.grace.load(Relaxed));
    let last_opening = current - u64::from(!by_device && !is_open && current > 0);
    let state = match attached {
        None => GateState::Idle,
        Some(_) if is_open && started == current && stands(current) => GateState::Stopped,
        Some(_) if is_open && started == current && past_close => GateState::Draining,
        Some(_) if is_open && started == current => GateState::Running,
        Some(_) if !is_open && stop_latency_ns.is_none() && started == last_opening && started > 0 => {
            GateState::Draining
        }
        Some(_) if !is_open && stop_latency_ns.is_some() && started > 0 => GateState::Stopped,
        Some(_) => GateState::Armed,
    };
    let opened_at = main.opened_at.load(Relaxed);
    let main_is = header
        .main
        .load()
        .map(|id| party(id, main_life(Some(file), id, time_namespace()), main.heartbeat.load(Relaxed), now));
    let main_is = main_is.unwrap_or(NOBODY);
    let expected_close = main.expected_close.load(Relaxed);
    let running = matches!(state, GateState::Running | GateState::Draining);
    let (closed_open, worked) = (main.open_ns.load(Relaxed), side.work_ns.load(Relaxed));
    // Of a main that died with the gate open nobody knows when it would have closed it.
    let open_until = if main_is.life == Life::Gone { now.min(expected_close) } else { now };
    let open_now = if is_open && !by_device { open_until.saturating_sub(opened_at) } else { 0 };
    let until = if is_open || by_device { now } else { main.closed_at.load(Relaxed).min(now) };
    let work_now = if running { until.saturating_sub(side.started_at.load(Relaxed)) } else { 0 };
    let left = expected_close as i128 - now as i128;
    let lasts = place.lease_until.load(Acquire) > now;
    let side_is = attached.map(|id| party(id, id.life(), side.heartbeat.load(Relaxed), now));
    let gets_ready = lasts && place.holder().is_some_and(|id| id.life() != Life::Gone);
    let record = GateRecord {
        schema: SCHEMA.into(),
        state,
        open: is_open,
        shut_down,
        by_device,
        main_pid: main_is.pid,
        main_alive: match main_is.life {
            Life::Running => Some(true),
            Life::Gone => Some(false),
            Life::Unknown => None,
        },
        side_pid: side_is.map(|side| side.pid),
        sides: side_generation,
        bubble: if by_device { u64::from(device.bubble.load(Relaxed)) } else { main.bubble.load(Relaxed) },
        openings: if by_device { current } else { main.openings.load(Relaxed) },
        closings: if by_device { current.saturating_sub(u64::from(is_open)) } else { main.closings.load(Relaxed) },
        operations: side.operations.load(Acquire),
        self_stops: side.self_stops.load(Relaxed),
        stop_latency_ns: stop_latency_ns.filter(|_| main.closed_at.load(Relaxed) > 0 && started > 0),
        open_ns: closed_open.saturating_add(open_now),
        work_ns: worked.saturating_add(work_now),
        left_ns: (is_open && !by_device).then(|| left.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
    };
    GateStatus { record, main: main_is, side: side_is, side_gets_ready: side_is.is_none() && gets_ready }
}

/// A page names its main before it has a name itself.
const NOBODY: Party = Party { pid: 0, life: Life::Gone, age: None, silent: None };

fn attached(place: &SidePlace, now: u64) -> Option<ProcessId> {
    let side = place.process.load()?;
    let there = match side.life() {
        Life::Running => true,
        Life::Gone => false,
        Life::Unknown => place.lease_until.load(Acquire) > now,
    };
    there.then_some(side)
}

fn party(id: ProcessId, life: Life, heartbeat: u64, now: u64) -> Party {
    let silent = (heartbeat > 0).then(|| Duration::from_nanos(now.saturating_sub(heartbeat)));
    Party { pid: id.pid, life, age: id.age(), silent }
}
