//! `bubblebench simulate`: bubbles of a schedule from times given by hand.

use super::known::known;
use super::schedule::{self, Asked};
use super::{print, print_json, terminal};
use crate::export::perfetto::{self, Counter};
use crate::pipeline::activations::DEFAULT_WEIGHT_SHARE;
use crate::pipeline::record::TimelineRecord;
use crate::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Timeline, Times, given, operations, simulate};
use crate::{Error, Result, report, units};
use std::path::{Path, PathBuf};

/// Show where a pipeline schedule leaves its stages idle, from times given by hand.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "bubblebench simulate [OPTIONS] --schedule <NAME> --stages <P>\n                            --micro-batches <M>\n       bubblebench simulate [OPTIONS] --schedule <FILE>",
    after_help = "Example:\n  bubblebench simulate --schedule 1f1b --stages 8 --micro-batches 24 \\\n    --forward 18.522ms --backward-input 18.086ms --backward-weight 9.337ms \\\n    --send-recv 601us"
)]
pub struct SimulateArgs {
    /// The schedule, in which order each stage runs its micro-batches: a name, or a JSON file of operations
    /// (docs/pipeline.md)
    #[arg(long, value_name = "NAME|FILE", value_parser = known(ScheduleName::ALL.map(ScheduleName::text)))]
    schedule: String,
    /// Pipeline stages; a file of operations has its own
    #[arg(long, value_name = "P")]
    stages: Option<usize>,
    /// Micro-batches of one iteration; a file of operations has its own
    #[arg(long, value_name = "M")]
    micro_batches: Option<usize>,
    /// Forward of one micro-batch on one stage, e.g. 18.522ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    forward: Option<String>,
    /// Backward of one micro-batch on one stage to the inputs
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    backward_input: Option<String>,
    /// Backward of one micro-batch on one stage to the weights
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    backward_weight: Option<String>,
    /// A forward and a whole backward of one stage side by side (dualpipe, dualpipev); their sum if not given
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    overlapped: Option<String>,
    /// Message from one stage to the next
    #[arg(long, value_name = "TIME", default_value = "0ns", allow_hyphen_values = true)]
    send_recv: String,
    /// Chunks of layers per stage (interleaved)
    #[arg(long, value_name = "V")]
    chunks: Option<usize>,
    /// Most activations a stage may hold, in micro-batches
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    memory_limit: Option<f64>,
    /// Part of a micro-batch's activations, 0 to 1, that the backward to the weights still needs
    #[arg(long, value_name = "SHARE", default_value_t = DEFAULT_WEIGHT_SHARE, allow_hyphen_values = true)]
    weight_share: f64,
    /// JSON list with the three times of every stage, instead of the three flags
    #[arg(long, value_name = "FILE", conflicts_with_all = ["forward", "backward_input", "backward_weight", "overlapped"])]
    per_stage: Option<PathBuf>,
    /// Print the timeline as JSON (bubblebench.timeline/1)
    #[arg(long)]
    json: bool,
    /// Put every operation into the JSON: stage, kind, micro-batch, chunk, start, end
    #[arg(long, requires = "json")]
    operations: bool,
    /// Write a trace for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Simulates the schedule, writes what was asked for and prints the timeline.
pub fn run(args: &SimulateArgs) -> Result<()> {
    let timeline = timeline(args)?;
    if let Some(path) = &args.trace {
        let share = timeline.schedule.chunk_share();
        let value = |_, live: crate::pipeline::activations::Live| live.micro_batches(share, args.weight_share);
        perfetto::write_file(path, &timeline, &Counter { name: "activations (micro-batches)", value: &value }, &[])?;
    }
    if args.json {
        let mut record = TimelineRecord::new(&timeline, args.weight_share);
        record.operations = args.operations.then(|| operations::of_timeline(&timeline));
        print_json(&record)
    } else {
        print(&report::timeline::render(&timeline, args.weight_share, terminal::screen()))
    }
}

fn timeline(args: &SimulateArgs) -> Result<Timeline> {
    match schedule::asked(&args.schedule)? {
        Asked::Name(name) => built(args, name),
        Asked::File(path) => from_file(args, &path),
    }
}

fn built(args: &SimulateArgs, name: ScheduleName) -> Result<Timeline> {
    let needed = |flag: &str, given: Option<usize>| {
        given.ok_or_else(|| {
            Error::input(
                format!("{flag} is missing"),
                "give --stages and --micro-batches, or a file of operations as --schedule",
            )
        })
    };
    let (stages, micro_batches) = (needed("--stages", args.stages)?, needed("--micro-batches", args.micro_batches)?);
    if stages == 0 || stages > 1 << 20 {
        return Err(Error::input(format!("--stages is {stages}"), "give 1 to 1048576 stages"));
    }
    let times = times(args, stages, name.text(), name.overlaps())?;
    let schedule = Schedule::build(&ScheduleSpec {
        name,
        stages,
        micro_batches,
        chunks: args.chunks,
        memory_limit: args.memory_limit,
        weight_share: args.weight_share,
        times: &times,
    })?;
    simulate(schedule, times)
}

/// The sizes are the file's own; flags may only say the same.
fn from_file(args: &SimulateArgs, path: &Path) -> Result<Timeline> {
    let schedule = given::read(path)?;
    let sizes = [
        ("--stages", args.stages, schedule.stages),
        ("--micro-batches", args.micro_batches, schedule.micro_batches),
        ("--chunks", args.chunks, schedule.chunks),
    ];
    for (flag, said, held) in sizes {
        if let Some(said) = said.filter(|&said| said != held) {
            return Err(Error::input(
                format!("{flag} is {said}, {} has {held}", path.display()),
                format!("leave {flag} out: the file says it"),
            ));
        }
    }
    let times = times(args, schedule.stages, &path.display().to_string(), schedule.name.overlaps())?;
    schedule.check_given(args.memory_limit, args.weight_share, &times)?;
    simulate(schedule, times)
}

fn times(args: &SimulateArgs, stages: usize, schedule: &str, overlaps: bool) -> Result<Times> {
    let send_recv_ns = time("--send-recv", &args.send_recv)?;
    Ok(match &args.per_stage {
        Some(path) => Times::new(Times::read_stages(path, stages)?, send_recv_ns),
        None => Times {
            overlapped_ns: overlapped(args, schedule, overlaps)?,
            ..Times::even(stages, even_times(args)?, send_recv_ns)
        },
    })
}

fn even_times(args: &SimulateArgs) -> Result<StageTimes> {
    let required = |flag: &str, given: &Option<String>| match given {
        Some(text) => time(flag, text),
        None => Err(Error::input(
            format!("{flag} is missing"),
            "give --forward, --backward-input and --backward-weight, or --per-stage FILE",
        )),
    };
    Ok(StageTimes {
        forward_ns: required("--forward", &args.forward)?,
        backward_input_ns: required("--backward-input", &args.backward_input)?,
        backward_weight_ns: required("--backward-weight", &args.backward_weight)?,
    })
}

/// A pair takes no longer than its halves one after the other, and no less than the longer of them.
fn overlapped(args: &SimulateArgs, schedule: &str, overlaps: bool) -> Result<Option<u64>> {
    let Some(text) = &args.overlapped else { return Ok(None) };
    let (pair, t) = (time("--overlapped", text)?, even_times(args)?);
    if !overlaps {
        return Err(Error::input(
            format!("--overlapped is not a choice of {schedule}"),
            "leave it out, or use dualpipe or dualpipev, or a file with pairs",
        ));
    }
    if pair > t.total_ns() || pair < t.forward_ns.max(t.backward_ns()) {
        return Err(Error::input(
            format!("--overlapped `{text}` does not fit the other times"),
            "give from the longer of F and B + W to F + B + W",
        ));
    }
    Ok(Some(pair))
}

fn time(flag: &str, text: &str) -> Result<u64> {
    units::parse_ns(text).map_err(|e| match e {
        Error::Input { what, cure } => Error::input(format!("{flag} {what}"), cure),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn with(change: &str) -> Result<Timeline> {
        let base = format!("x --stages 4 {change}");
        timeline(&Program::try_parse_from(base.split_whitespace()).unwrap().args)
    }

    const TIMES: &str = "--forward 2ms --backward-input 1ms --backward-weight 500us";

    #[test]
    fn a_right_input_is_answered() {
        let timeline = with(&format!("--schedule 1f1b --micro-batches 8 {TIMES}")).unwrap();
        assert_eq!(timeline.iteration_ns, 11 * 3_500_000);
    }

    #[test]
    fn wrong_inputs_name_the_flag() {
        let wrong = |change: &str| with(change).unwrap_err().to_string();
        let m8 = "--micro-batches 8";
        assert!(wrong(&format!("--schedule 1f1c {m8} {TIMES}")).contains("`1f1b`"));
        let negative = format!("--schedule 1f1b {m8} --forward -1ms --backward-input 1ms --backward-weight 1ms");
        assert!(wrong(&negative).starts_with("--forward `-1ms` is not a time"), "{}", wrong(&negative));
        let unitless = format!("--schedule 1f1b {m8} --forward 1ms --backward-input 12 --backward-weight 1ms");
        assert!(wrong(&unitless).contains("--backward-input"));
        assert!(wrong(&format!("--schedule 1f1b {m8} --forward 1ms")).contains("--backward-input is missing"));
        assert!(wrong(&format!("--schedule 1f1b --micro-batches 0 {TIMES}")).contains("micro-batches is 0"));
        let odd = wrong(&format!("--schedule interleaved --micro-batches 7 --chunks 2 {TIMES}"));
        assert!(odd.contains("micro-batches 7 cannot be divided by stages 4"));
        assert!(wrong(&format!("--schedule 1f1b {m8} --memory-limit -3 {TIMES}")).contains("memory limit"));
    }

    #[test]
    fn a_per_stage_file_must_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("times.json");
        let entry = r#"{"forward_ns":10,"backward_input_ns":10,"backward_weight_ns":5}"#;
        let use_file = || with(&format!("--schedule zb-h1 --micro-batches 8 --per-stage {}", path.display()));
        std::fs::write(&path, format!("[{}]", [entry; 4].join(","))).unwrap();
        assert_eq!(use_file().unwrap().busy_ns(3), 8 * 25);
        std::fs::write(&path, format!("[{}]", [entry; 3].join(","))).unwrap();
        assert!(use_file().unwrap_err().to_string().contains("holds 3 stages, the pipeline has 4"));
        std::fs::write(&path, r#"[{"forward_ns":-1}]"#).unwrap();
        assert!(use_file().unwrap_err().to_string().contains("times.json"));
        std::fs::remove_file(&path).unwrap();
        assert!(use_file().unwrap_err().to_string().contains("times.json"));
    }
}
