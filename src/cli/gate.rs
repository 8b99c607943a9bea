//! `bubblebench gate`: a live gate as a person sees it, once or again and again.

use super::terminal::{self, note};
use crate::corun::gate::process::Life;
use crate::corun::gate::status::Party;
use crate::corun::gate::{GateRecord, GateStatus, status};
use crate::report::Screen;
use crate::units::{counted, format_ns, parse_ns};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What `bubblebench gate` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench gate status /dev/shm/stage-3\n  \
    bubblebench gate watch /dev/shm/stage-3")]
pub struct GateArgs {
    #[command(subcommand)]
    command: GateCommand,
}

#[derive(Debug, clap::Subcommand)]
enum GateCommand {
    /// Show a gate as it is now
    Status(StatusArgs),
    /// Show a gate again and again, until its main ends
    Watch(WatchArgs),
}

/// What `bubblebench gate status` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "States: idle (no side), armed (a side is there and does not work),\n\
    running, draining (closed, or its time is up, with an operation in flight),\n\
    stopped. The page is only read.")]
struct StatusArgs {
    /// The path that the main program made its gate at
    path: PathBuf,
    /// Print JSON (bubblebench.gate/1) instead of text
    #[arg(long)]
    json: bool,
}

/// What `bubblebench gate watch` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "On a terminal one picture is drawn over and over; elsewhere each look is\n\
    a line, with what came since the look before.")]
struct WatchArgs {
    /// The path that the main program made its gate at
    path: PathBuf,
    /// How often to look
    #[arg(long, value_name = "TIME", value_parser = parse_ns, default_value = "500ms")]
    interval: u64,
}

/// Looks at the gate and prints what is there.
pub fn run(args: &GateArgs) -> Result<()> {
    match &args.command {
        GateCommand::Status(StatusArgs { path, json: true }) => super::print_json(&status(path)?.record),
        GateCommand::Status(StatusArgs { path, json: false }) => {
            super::print(&picture(path, &status(path)?, terminal::screen()))
        }
        GateCommand::Watch(args) => watch(args),
    }
}

/// A look more often than this would take a core from what it looks at.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

fn watch(args: &WatchArgs) -> Result<()> {
    let interval = Duration::from_nanos(args.interval);
    if interval < LEAST_INTERVAL {
        return Err(Error::input(
            "--interval is shorter than 10 ms",
            "look less often: each look takes time from a core",
        ));
    }
    let mut before: Option<(Instant, GateStatus)> = None;
    let mut drawn = None;
    loop {
        let now = match status(&args.path) {
            Ok(now) => now,
            // A main that ends takes its page away.
            Err(_) if before.is_some() && !args.path.exists() => {
                note(format_args!("the gate {} is gone: its main has ended", args.path.display()));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some((_, before)) = &before
            && before.main.pid != now.main.pid
        {
            note(format_args!(
                "process {} has made a new gate at {}: that of process {} is gone",
                now.main.pid,
                args.path.display(),
                before.main.pid
            ));
            return Ok(());
        }
        let text = picture(&args.path, &now, terminal::screen());
        let lines = text.lines().count();
        let read = if terminal::fits(&text) {
            // Up to where the last one began, and everything below it away.
            let over = drawn.replace(lines).map_or(String::new(), |drawn| format!("\x1b[{drawn}A\x1b[J"));
            super::print_while_read(&(over + &text))?
        } else {
            drawn = None;
            let since = before.as_ref().map(|(at, status)| (at.elapsed(), &status.record));
            super::print_while_read(&terminal::screen().prose(&line(&now.record, since), 2))?
        };
        if !read {
            return Ok(());
        }
        if now.is_over() {
            if !now.record.shut_down {
                note(format_args!("the main of {} (process {}) is gone", args.path.display(), now.main.pid));
            }
            return Ok(());
        }
        before = Some((Instant::now(), now));
        std::thread::sleep(interval);
    }
}

/// One look as a line: totals, and what came since the look before.
fn line(now: &GateRecord, before: Option<(Duration, &GateRecord)>) -> String {
    let rate = before.filter(|(since, _)| !since.is_zero()).map(|(since, before)| {
        let per_s = |now: u64, before: u64| now.saturating_sub(before) as f64 / since.as_secs_f64();
        let (openings, operations) = (per_s(now.openings, before.openings), per_s(now.operations, before.operations));
        let used = share(now.work_ns.saturating_sub(before.work_ns), now.open_ns.saturating_sub(before.open_ns));
        format!(", {openings:.0} openings/s, {operations:.0} operations/s, {used} used")
    });
    format!(
        "{}{}, {}, {}{}\n",
        now.state.name(),
        if now.shut_down { " (shut down)" } else { "" },
        counted(now.openings, "opening"),
        counted(now.operations, "operation"),
        rate.unwrap_or_default()
    )
}

/// Totals are read while both programs add to them, and of one that was killed the last opening is missing.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.0} %", 100.0 * (part as f64 / whole as f64).min(1.0)) }
}

/// All that the page says, a line a fact.
fn picture(path: &Path, now: &GateStatus, screen: Screen) -> String {
    let GateStatus { record, main, side, side_gets_ready } = now;
    let mut text = screen.prose(&format!("{}: {}\n", path.display(), record.state.name()), 2);
    let mut fact = |name: &str, value: String| text += &screen.prose(&format!("  {name:<11}{value}\n"), 11);
    fact("main", party(main));
    fact(
        "side",
        match side {
            Some(side) => party(side),
            None if *side_gets_ready => "one gets ready".into(),
            None => "none".into(),
        },
    );
    fact("gate", gate(record));
    if record.openings > 0 && !record.by_device {
        let (open, work) = (format_ns(record.open_ns as f64), format_ns(record.work_ns as f64));
        fact("use", format!("{}: a side at work for {work} of {open} open", share(record.work_ns, record.open_ns)));
    }
    fact("operations", record.operations.to_string());
    fact("self-stops", format!("{}, by the clock before the closing", counted(record.self_stops, "opening")));
    if let (Some(ns), false) = (record.stop_latency_ns, record.by_device) {
        fact(
            "last stop",
            match ns {
                0 => "the side stood still before the closing".into(),
                ns => format!("{} after the closing", format_ns(ns as f64)),
            },
        );
    }
    text
}

fn gate(now: &GateRecord) -> String {
    let mut text = match (now.shut_down, now.open, now.left_ns) {
        (true, ..) => "shut down".to_string(),
        (_, false, _) => "closed".into(),
        (_, true, None) => "open".into(),
        (_, true, Some(left)) if left >= 0 => format!("open, {} left", format_ns(left as f64)),
        (_, true, Some(left)) => format!("open, {} past its expected close", format_ns(-left as f64)),
    };
    text += &format!(", {}", counted(now.openings, "opening"));
    if now.by_device {
        text += ", by a device";
    }
    text
}

fn party(party: &Party) -> String {
    let life = match party.life {
        Life::Running => "lives",
        Life::Gone => "is gone",
        Life::Unknown => "in another container",
    };
    let ago = |time: Duration| format_ns(time.as_nanos() as f64);
    let mut text = format!("process {}, {life}", party.pid);
    if let Some(age) = party.age {
        text += &format!(", started {} ago", ago(age));
    }
    if let Some(silent) = party.silent {
        text += &format!(", last sign {} ago", ago(silent));
    }
    text
}
