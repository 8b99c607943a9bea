//! `bubblebench side`: one of the suite's small models as the side of a live gate, in a process of its own.

use super::known::known;
use super::terminal::{self, note};
use crate::corun::gate::{self, SideEnd};
use crate::corun::gated::Ended;
use crate::corun::live_side::{self, LiveOutcome, LiveTraining, Resume, Told};
use crate::machine::threads;
use crate::models::side::{MOST_ROWS, SEED};
use crate::models::{ModelState, SideKind, SideSpec};
use crate::ops::host::HostConfig;
use crate::records::safetensors::{self, Tensors};
use crate::records::{files, schema};
use crate::suite::watch::{self, ProcessWatch};
use crate::units::{counted, format_ns, significant};
use crate::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What `bubblebench side` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench side --model mlp --gate /dev/shm/stage-3\n  \
    bubblebench side --model lstm --gate /dev/shm/stage-3 \\\n      \
    --checkpoint lstm.safetensors --resume\n\n\
    It trains on the CPU. Before it starts to work it times each operation of a training step; from then on an operation \
    starts only where what is left of the opening is long enough for it. It ends with its main, at --steps, at Ctrl-C or \
    SIGTERM, and then prints what it did.")]
pub struct SideArgs {
    /// The small model that trains
    #[arg(long, value_name = "NAME", value_parser = known(SideKind::ALL.map(SideKind::name)))]
    model: String,
    /// The path that the main program makes its gate at
    #[arg(long, value_name = "PATH")]
    gate: PathBuf,
    /// Rows, images or sequences of a batch [default: mlp 8, convnet 4, lstm 16, gpt 1]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Stop behind step N, the steps before a resume included
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// The seed of the first weights; a training that goes on keeps its own
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// At the end, write weights, optimizer state and step number to this file (safetensors)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint, if it is there
    #[arg(long, requires = "checkpoint")]
    resume: bool,
    /// Threads that compute
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Niceness of these threads: 19 leaves the cores to every other program
    #[arg(long, value_name = "N", default_value_t = 19, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: i32,
    /// How long to wait for the gate to be there
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    wait: f64,
}

/// A gate that is not there yet is looked for this often.
const LOOK: Duration = Duration::from_millis(20);
const NO_GATE: (&str, &str) = ("there is no gate yet: it is waited for", "no gate was made there");
/// What is drawn on a terminal changes this often.
const REDRAW: Duration = Duration::from_millis(500);

/// Trains until the end of the gate, and prints what was done.
pub fn run(args: &SideArgs) -> Result<()> {
    let spec = args.spec()?;
    let wait = Duration::try_from_secs_f64(args.wait)
        .map_err(|_| Error::input(format!("--wait {} is no time", args.wait), "give seconds, such as 60"))?;
    let (mut seed, mut resume) = (args.seed, None);
    if let Some(path) = &args.checkpoint {
        // Found out now, not after hours of training.
        can_be_written(path)?;
        match (args.resume, std::fs::metadata(path)) {
            (true, Err(e)) if e.kind() == ErrorKind::NotFound => {
                note(format_args!("there is no checkpoint at {} yet: the training begins", path.display()));
            }
            (true, _) => {
                let (state, from) = read_checkpoint(path, spec)?;
                note(format_args!("goes on behind {}", counted(state.steps, "step")));
                (resume, seed) = (Some(Resume { state, place: path.display().to_string() }), from);
            }
            (false, Ok(there)) if there.is_file() => {
                return Err(Error::input(
                    format!("{} is there: a new training does not write over it", path.display()),
                    "give --resume to go on from it, or another name",
                ));
            }
            (false, _) => {}
        }
    }
    let cores = threads::available_cores().len();
    if args.threads > cores {
        let what = format!("--threads {} is more than the {} of this process", args.threads, counted(cores, "core"));
        return Err(Error::input(what, format!("give {cores} at most")));
    }
    let host = HostConfig { threads: args.threads, cores: None, nice: Some(args.nice) };
    let _watch = ProcessWatch::start()?;
    let Some(gate) = wait_for_gate(&args.gate, wait)? else { return Ok(()) };
    let training = LiveTraining { spec, seed, host, resume, most_steps: args.steps, asked: watch::interrupted };
    let mut display = Display::new(spec);
    let outcome = live_side::train(&training, gate, &mut |told| display.show(told))?;
    display.bar.finish_and_clear();
    let written = args.checkpoint.as_deref().map_or(Ok(()), |path| write_checkpoint(path, spec, seed, &outcome.state));
    super::print(&terminal::screen().prose(&summary(spec, &outcome), 2))?;
    written?;
    match outcome.ended {
        None | Some(Ended::ShutDown | Ended::Asked) => Ok(()),
        Some(ended) => Err(ended.error()),
    }
}

impl SideArgs {
    fn spec(&self) -> Result<SideSpec> {
        let kind: SideKind = self.model.parse()?;
        let batch = self.batch.unwrap_or(short_batch(kind));
        if !(1..=MOST_ROWS).contains(&batch) {
            return Err(Error::input(format!("--batch {batch} is not possible"), format!("give 1 to {MOST_ROWS}")));
        }
        Ok(SideSpec { kind, batch })
    }
}

/// The batch with which no operation of a step takes much more than 0.3 ms of one core; that of the suite's cases fills a
/// core better and a bubble worse. The update of `mlp`'s largest matrix takes longer with any batch.
const fn short_batch(kind: SideKind) -> usize {
    match kind {
        SideKind::Mlp => 8,
        SideKind::Convnet => 4,
        SideKind::Lstm => 16,
        SideKind::Gpt => 1,
    }
}

/// Takes the side's place once a main that lives has made the gate; `None` where this program is to end before that.
fn wait_for_gate(path: &Path, wait: Duration) -> Result<Option<SideEnd>> {
    let begun = Instant::now();
    let mut said = false;
    if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        // Mains make no folders: nobody will ever be there.
        return Err(Error::input(format!("there is no folder for the gate {}", path.display()), "check the path"));
    }
    loop {
        // What is said of it, while it is waited for and at last.
        let (missing, lasts) = match gate::status(path) {
            Ok(status) if !status.is_over() => match gate::attach(path) {
                Ok(gate) => return Ok(Some(gate)),
                // Taken away between the two looks.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => NO_GATE,
                Err(error) => return Err(error),
            },
            Ok(_) => {
                ("the main of this gate has ended: a new one is waited for", "its main has ended, and no other came")
            }
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => NO_GATE,
            Err(error) => return Err(error),
        };
        if begun.elapsed() >= wait {
            return Err(Error::input(
                format!("{}: {lasts} within {} s", path.display(), significant(wait.as_secs_f64())),
                "start the main program, which makes the gate at this path, or give a longer --wait",
            ));
        }
        if watch::interrupted() {
            return Ok(None);
        }
        if !said && begun.elapsed() >= REDRAW {
            said = true;
            note(format_args!("{}: {missing}", path.display()));
        }
        std::thread::sleep(LOOK.min(wait.saturating_sub(begun.elapsed())));
    }
}

/// What is said on stderr meanwhile.
struct Display {
    spec: SideSpec,
    bar: ProgressBar,
    drawn: Instant,
}

impl Display {
    fn new(spec: SideSpec) -> Self {
        let target = if terminal::may_draw() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        Display { spec, bar, drawn: Instant::now() }
    }

    fn show(&mut self, told: Told<'_>) {
        match told {
            Told::Ready(profile) => {
                let longest = profile.needs_ns().iter().max().map_or(0.0, |&ns| ns as f64);
                note(format_args!(
                    "{} is ready: a step has {} and takes {}; the longest needs {} of an opening",
                    self.spec,
                    counted(profile.operations(), "operation"),
                    format_ns(profile.step_ns()),
                    format_ns(longest)
                ));
            }
            // Drawn between two steps, and seldom: it takes from an opening.
            Told::Step { steps, loss } if self.drawn.elapsed() >= REDRAW => {
                self.drawn = Instant::now();
                self.bar.set_message(format!("step {steps}, loss {}", significant(loss)));
            }
            Told::Step { .. } => {}
        }
    }
}

/// What was done, in one line.
fn summary(spec: SideSpec, outcome: &LiveOutcome) -> String {
    let LiveOutcome { steps, operations, losses, usage, .. } = outcome;
    let mut text = format!("{spec}: {}, {}", counted(steps, "step"), counted(operations, "operation"));
    if let Some((first, last)) = losses {
        text += &format!(", loss {} → {}", significant(*first), significant(*last));
    }
    text += &format!("; at work for {}", format_ns(usage.work_ns as f64));
    if !usage.by_device {
        let open = format_ns(usage.open_ns as f64);
        text += &match usage.open_ns {
            0 => " of no time open".to_string(),
            ns => format!(" of {open} open ({:.0} %)", 100.0 * usage.work_ns as f64 / ns as f64),
        };
        text += &format!(", stopped by the clock in {} of {}", usage.self_stops, counted(usage.openings, "opening"));
    }
    text + "\n"
}

/// The kind of file that a checkpoint says it is.
const KIND: &str = "checkpoint";

/// An error where no file can be made beside `path`.
fn can_be_written(path: &Path) -> Result<()> {
    let kind = std::fs::metadata(path).ok();
    if kind.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Of writers that were killed.
    files::sweep_temporaries(folder);
    let made = match kind {
        Some(there) if there.is_dir() => Err(ErrorKind::IsADirectory.into()),
        _ => tempfile::tempfile_in(folder).map(drop),
    };
    made.map_err(|source| Error::io("write", path, source))
}

fn write_checkpoint(path: &Path, spec: SideSpec, seed: u64, state: &ModelState) -> Result<()> {
    let texts = [
        ("schema", schema::name(KIND)),
        ("model", spec.to_string()),
        ("steps", state.steps.to_string()),
        ("seed", seed.to_string()),
    ];
    let metadata: Map<String, Value> = texts.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
    safetensors::write(path, &Tensors { metadata, tensors: state.tensors.clone() })
}

/// A model's state and the seed it began from; an error where the file is damaged or another model's.
fn read_checkpoint(path: &Path, spec: SideSpec) -> Result<(ModelState, u64)> {
    let place = path.display().to_string();
    let own = |metadata: &Map<String, Value>| {
        schema::check(&Value::Object(metadata.clone()), KIND, &place)?;
        check_model(metadata, spec, &place)
    };
    let Tensors { metadata, tensors } = safetensors::read(path, own)?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| {
        text(name).parse::<u64>().map_err(|_| {
            Error::input(format!("{place} does not say its {name}"), "give a file that `bubblebench side` wrote")
        })
    };
    Ok((ModelState { steps: number("steps")?, tensors }, number("seed")?))
}

/// An error where a checkpoint says that it is another model's.
fn check_model(metadata: &Map<String, Value>, spec: SideSpec, place: &str) -> Result<()> {
    let model = metadata.get("model").and_then(Value::as_str).unwrap_or_default();
    if model == spec.to_string() {
        return Ok(());
    }
    let cure = model.parse::<SideSpec>().map(|of| format!("give --model {} --batch {}", of.kind.name(), of.batch));
    Err(Error::input(
        format!("{place} is a checkpoint of `{model:.40}`, not of {spec}"),
        cure.unwrap_or("give a checkpoint of this model".into()),
    ))
}
