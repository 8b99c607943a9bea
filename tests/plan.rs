//! `bubblebench plan` from the outside: the page, measured bubbles, and what it answers to input that cannot be planned.

use assert_cmd::Command;
use bubblebench::fill::{self, measured, measured::IterationChoice, plan::FillPlan};
use bubblebench::pipeline::BubbleKind;
use bubblebench::pipeline::job::{Job, Side};
use bubblebench::records::bubbles::{BubbleClass, BubblesRecord, DeviceBubbles, KernelName, MeasuredBubble, SCHEMA};
use bubblebench::records::cost_model::GateCost;
use bubblebench::records::store::Journal;
use bubblebench::records::{CostModel, Measurement};
use bubblebench::stats::SplitMix;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const EXAMPLE: &str = "examples/gpt-rtx3090-4.toml";

fn program() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("bubblebench"))
}

fn model() -> CostModel {
    serde_json::from_str(include_str!("../results/published/rtx3090/cost_model.json")).unwrap()
}

fn job() -> Job {
    Job::read(Path::new(EXAMPLE)).unwrap()
}

/// Exit 2, one line, and the words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = program().args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {text}, not {word}");
    }
}

/// A run whose every stage does exactly what the simulator says, `repeat` times; the clock of each device begins at `epoch`.
fn as_if_measured(plan: &FillPlan, repeat: u64, epoch: u64) -> BubblesRecord {
    let iteration = plan.record.pipeline_ns;
    let devices = plan.record.stage.iter().map(|stage| {
        let list = |k: u64| {
            stage.bubbles.iter().map(move |b| MeasuredBubble {
                iteration: k,
                start_ns: epoch + k * iteration + b.start_ns,
                end_ns: epoch + k * iteration + b.end_ns,
                class: if b.kind == BubbleKind::Tail { BubbleClass::Tail } else { BubbleClass::Dependency },
                previous_kernel: (b.kind != BubbleKind::Warmup).then(|| KernelName::from("gemm")),
                next_kernel: (b.kind != BubbleKind::Tail).then(|| KernelName::from("gemm")),
            })
        };
        DeviceBubbles {
            device: stage.stage,
            iterations: repeat,
            window_ns: repeat * iteration,
            compute_ns: repeat * stage.busy_ns,
            communication_ns: 0,
            absent_ns: repeat * (iteration - stage.busy_ns),
            bubble_ratio: (iteration - stage.busy_ns) as f64 / iteration as f64,
            bubbles: (0..repeat).flat_map(list).collect(),
        }
    });
    BubblesRecord { schema: SCHEMA.into(), source: "rank*.sqlite".into(), devices: devices.collect() }
}

/// The same bubbles, once simulated and once read from a file, make the same plan; memory is matched by position, never more than
/// there is.
#[test]
fn bubbles_measured_as_simulated_are_planned_alike() {
    let (mut job, model) = (job(), model());
    // Losses that vanish in waits of the simulated pipeline add up in a measured one: without them the limit is no matter.
    job.side.iter_mut().for_each(|side| side.after_ns = Some(0.0));
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    as_if_measured(&simulated, 3, 1_760_000_000_000_000_000).write(&path).unwrap();
    let measured = measured::plan(&job, &model, &[], &path, IterationChoice::Number(1)).unwrap();
    let (a, b) = (&simulated.record, &measured.record);
    assert!((a.bubble_ratio - b.bubble_ratio).abs() < 1e-9, "{} {}", a.bubble_ratio, b.bubble_ratio);
    assert!((a.outcome.gain / b.outcome.gain - 1.0).abs() < 0.005, "{} {}", a.outcome.gain, b.outcome.gain);
    for (x, y) in a.stage.iter().zip(&b.stage) {
        assert_eq!(x.busy_ns, y.busy_ns);
        let positions = |s: &fill::record::PlanStage| -> Vec<(u64, u64, BubbleKind)> {
            s.bubbles.iter().map(|b| (b.start_ns, b.end_ns, b.kind)).collect()
        };
        assert_eq!(positions(x), positions(y), "stage {}", x.stage);
        for (x, y) in x.bubbles.iter().zip(y.bubbles.iter()) {
            assert!(y.free_bytes.unwrap() <= x.free_bytes.unwrap(), "{x:?} {y:?}");
            assert!(x.live_micro_batches == 0.0 || y.live_micro_batches <= x.live_micro_batches + 1.0);
        }
    }
    let from = b.measured.as_ref().unwrap();
    assert_eq!((from.iteration, from.iterations, from.simulated_ns), (1, 3, a.pipeline_ns));
    assert_eq!(from.communication_ns + from.launch_ns, 0);
}

/// The middle one of three iterations by idle time is taken; bubbles in which a collective runs or the host was late stay empty.
#[test]
fn the_median_iteration_is_planned_and_only_waits_for_peers_are_filled() {
    let (job, model) = (job(), model());
    let mut record = as_if_measured(&fill::plan(&job, &model, &[]).unwrap(), 3, 0);
    for device in &mut record.devices {
        let mut spared = 0;
        for b in &mut device.bubbles {
            // Iteration 0 waits least, 2 less than 1.
            let shorter = [b.length_ns() / 2, 0, b.length_ns() / 4][b.iteration as usize];
            b.end_ns -= shorter;
            spared += shorter;
        }
        device.absent_ns -= spared;
        device.compute_ns += spared;
        device
            .bubbles
            .iter_mut()
            .filter(|b| b.next_kernel.is_some())
            .step_by(2)
            .for_each(|b| b.class = BubbleClass::Launch);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    record.write(&path).unwrap();
    let plan = measured::plan(&job, &model, &[], &path, IterationChoice::Median).unwrap().record;
    assert_eq!(plan.measured.as_ref().unwrap().iteration, 2);
    let all = || plan.stage.iter().flat_map(|s| s.bubbles.iter());
    assert!(all().filter(|b| b.class == Some(BubbleClass::Launch)).all(|b| b.fills.is_empty()));
    assert!(all().any(|b| b.class == Some(BubbleClass::Dependency) && !b.fills.is_empty()));
    assert!(plan.measured.unwrap().launch_ns > 0);
    let text = program().args(["plan", EXAMPLE, "--bubbles"]).arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(
        text.contains("measured: iteration 2 of 3") && text.contains("(launch)") && text.contains("█ compute"),
        "{text}"
    );
}

/// Many iterations, each bubble of a varying length: a bubble is planned for what the gate will open for, not for the luck of one
/// iteration; the dial moves it, and the plan says what late ends cost.
#[test]
fn lengths_are_learned_from_iterations_that_line_up() {
    let (mut job, model) = (job(), model());
    job.side.iter_mut().for_each(|side| side.after_ns = Some(0.0));
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    let mut record = as_if_measured(&simulated, 21, 0);
    let mut random = SplitMix(11);
    for device in &mut record.devices {
        let mut spared = 0;
        for b in &mut device.bubbles {
            // Up to a tenth shorter, and nothing is seen of a fill that was forgotten.
            let shorter = (0.1 * random.unit() * b.length_ns() as f64) as u64;
            b.end_ns -= shorter;
            spared += shorter;
        }
        device.absent_ns -= spared;
        device.compute_ns += spared;
        // One iteration lacks a bubble, and is left out.
        let first = device.bubbles.iter().position(|b| b.iteration == 4).unwrap();
        let lost = device.bubbles.remove(first).length_ns();
        device.absent_ns -= lost;
        device.compute_ns += lost;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    record.write(&path).unwrap();
    let plan = |job: &Job, wanted| measured::plan(job, &model, &[], &path, wanted).unwrap().record;
    let learned = plan(&job, IterationChoice::Usual);
    let lengths = learned.lengths.clone().unwrap();
    assert_eq!((lengths.iterations, lengths.quantile, lengths.jitter), (Some(20), 0.1, None));
    let ratio = lengths.expected_ns as f64 / lengths.median_ns as f64;
    assert!((0.93..0.99).contains(&ratio), "{ratio}: 91 % against 95 % of the whole length");
    for (index, stage) in learned.stage.iter().enumerate() {
        let (mut position, device) = (0, &record.devices[index]);
        for b in stage.bubbles.iter() {
            let of = |iteration: u64| device.bubbles.iter().filter(move |b| b.iteration == iteration).nth(position);
            let mut seen: Vec<u64> = (0..21).filter(|k| *k != 4).map(|k| of(k).unwrap().length_ns()).collect();
            seen.sort_unstable();
            assert_eq!(b.expected_ns, Some(seen[1]), "the lower of the two at 10 % of 20 lengths");
            assert_eq!(b.end_ns - b.start_ns, seen[9], "drawn as long as the median");
            assert!(b.fills.iter().all(|fill| fill.end_ns <= b.start_ns + seen[1]), "{b:?}");
            position += 1;
        }
    }
    assert!(lengths.overrun_ns > 0.0 && learned.outcome.main_slowdown > 1.0);
    // The median is used more, and overrun more.
    job.limits.bubble_quantile = Some(0.5);
    let longer = plan(&job, IterationChoice::Learned);
    assert!(longer.outcome.bubble_used > learned.outcome.bubble_used);
    assert!(longer.lengths.unwrap().overrun_ns > 2.0 * lengths.overrun_ns);
    // One iteration has one length a bubble.
    let one = plan(&job, IterationChoice::Median);
    assert!(one.lengths.is_none() && one.stage[0].overrun_ns.is_none());
    assert!(one.stage.iter().flat_map(|s| s.bubbles.iter()).all(|b| b.expected_ns.is_none()));
}

/// Schedules that a learned plan is compared with are simulated. Their bubbles vary as the run's did, so that one iteration in twenty that
/// was half as long takes as much from them as from the plan.
#[test]
fn what_a_learned_plan_is_compared_with_varies_as_the_run_did() {
    let (mut job, model) = (job(), model());
    (job.limits.main_slowdown, job.side[0].after_ns) = (0.1, Some(0.0));
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    let mut plan = |halved: Option<u64>, jitter: Option<f64>| {
        let mut random = SplitMix(5);
        let mut record = as_if_measured(&simulated, 20, 0);
        for device in &mut record.devices {
            let mut spared = 0;
            for b in &mut device.bubbles {
                let shorter = if Some(b.iteration) == halved { 0.5 } else { 0.02 * random.unit() };
                let shorter = (shorter * b.length_ns() as f64) as u64;
                b.end_ns -= shorter;
                spared += shorter;
            }
            (device.absent_ns, device.compute_ns) = (device.absent_ns - spared, device.compute_ns + spared);
        }
        record.write(&path).unwrap();
        job.limits.bubble_jitter = jitter;
        measured::plan(&job, &model, &[], &path, IterationChoice::Learned).unwrap().record
    };
    let (usual, halved) = (plan(None, None), plan(Some(7), None));
    let filled_for = |record: &fill::record::PlanRecord| {
        let lengths = record.lengths.as_ref().unwrap();
        let noted = format!(
            "filled for {:.1} % of their length",
            100.0 * lengths.expected_ns as f64 / lengths.median_ns as f64
        );
        assert!(record.notes.iter().any(|note| note.contains(&noted)), "{noted}: {:?}", record.notes);
    };
    filled_for(&usual);
    filled_for(&halved);
    let own = halved.outcome.gain / usual.outcome.gain;
    assert!((0.95..0.995).contains(&own), "{own}");
    let mut compared = 0;
    for (a, b) in usual.alternatives.iter().zip(&halved.alternatives).filter(|(a, _)| a.kind == "schedule") {
        assert_eq!(a.describes, b.describes);
        let (Some(before), Some(after)) = (a.gain_filled, b.gain_filled) else { continue };
        // What bubbles give lies above 1. Late ends vanish in waits of a simulated schedule, and add up in a measured one.
        let (lost, lost_by_own) =
            ((before - after) / (before - 1.0), (1.0 - own) * usual.outcome.gain / (usual.outcome.gain - 1.0));
        assert!((0.01..lost_by_own + 0.02).contains(&lost), "{}: {lost} against {lost_by_own}", a.describes);
        compared += 1;
    }
    assert!(compared > 0);
    // Unless the job says how they vary.
    let other = plan(Some(7), Some(0.2));
    assert!(other.notes.iter().any(|note| note.contains("bubble_jitter counts for other schedules only")));
    let gains = |record: &fill::record::PlanRecord| -> Vec<Option<f64>> {
        record.alternatives.iter().map(|other| other.gain_filled).collect()
    };
    assert_ne!(gains(&other), gains(&halved));
}

/// What the command prints of it, and what it answers where nothing can be learned.
#[test]
fn a_learned_plan_says_so() {
    let (job, model) = (job(), model());
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    let file = path.to_str().unwrap();
    let print = |flags: &[&str]| {
        let output = program().args(["plan", EXAMPLE, "--bubbles", file]).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    as_if_measured(&simulated, 8, 0).write(&path).unwrap();
    let text = print(&["--bubbles-quantile", "2%"]);
    assert!(text.contains("measured: learned from 8 of 8 iterations in"), "{text}");
    assert!(text.contains("are filled for the 2 % quantile of their lengths"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&print(&["--bubbles-quantile", "0.02", "--json"])).unwrap();
    assert_eq!((json["lengths"]["iterations"].as_u64(), json["lengths"]["quantile"].as_f64()), (Some(8), Some(0.02)));
    assert!(print(&["--iteration", "3"]).contains("measured: iteration 3 of 8"));
    assert!(text.contains("as all of them were that long; ") && !text.contains("later ones"), "{text}");
    // Of five the quantile is the shortest, which is said.
    let mut record = as_if_measured(&simulated, 5, 0);
    for device in &mut record.devices {
        let shorter = device.bubbles[0].length_ns() / 50;
        device.bubbles[0].end_ns -= shorter;
        (device.absent_ns, device.compute_ns) = (device.absent_ns - shorter, device.compute_ns + shorter);
    }
    record.write(&path).unwrap();
    let five = print(&[]);
    assert!(
        five.contains("quantile of their lengths (the shortest of 5: about 17 % of later ones are shorter)"),
        "{five}"
    );
    assert!(five.contains("learned from 5 of 5 iterations"), "{five}");
    // They are five of eight, where the run had as many, and too few of a hundred.
    let of = |had: u64| {
        let mut record = as_if_measured(&simulated, 5, 0);
        record.devices.iter_mut().for_each(|device| device.iterations = had);
        record.write(&path).unwrap();
        print(&[])
    };
    assert!(of(8).contains("learned from 5 of 8 iterations"));
    let hundred = of(100);
    assert!(hundred.contains("of 100 in") && hundred.contains("in 5 iterations of 100, and 5 and more"), "{hundred}");
    // Four are a sample, whoever says otherwise; and a quantile that counts for nothing is said to.
    as_if_measured(&simulated, 4, 0).write(&path).unwrap();
    let four = print(&[]);
    assert!(four.contains("measured: iteration 1 of 4") && !four.contains("quantile"), "{four}");
    let asked = print(&["--bubbles-quantile", "10%"]);
    assert!(asked.contains("note: the bubbles' quantile counts for nothing"), "{asked}");
    refused(&["plan", EXAMPLE, "--bubbles", file, "--iteration", "learned"], &["in 4 iterations, and 5"]);
    as_if_measured(&simulated, 1, 0).write(&path).unwrap();
    assert!(print(&[]).contains("measured: the only iteration in"));
    refused(&["plan", EXAMPLE, "--bubbles", file, "--iteration", "learned"], &["in 1 iteration, and 5"]);
    let mut record = as_if_measured(&simulated, 6, 0);
    for device in &mut record.devices {
        let mut count = 0;
        device.bubbles.retain(|b| {
            count += 1;
            b.iteration % 2 == 0 || count % 2 == 0
        });
    }
    record.write(&path).unwrap();
    assert!(print(&[]).contains("note: one iteration is planned on, with its luck: device 0 has the same bubbles"));
    let bubbles = ["plan", EXAMPLE, "--bubbles", file];
    refused(&[&bubbles[..], &["--iteration", "learned"]].concat(), &["lengths cannot be learned", "3 iterations of 6"]);
    refused(&[&bubbles[..], &["--bubbles-quantile", "0.9"]].concat(), &["from 0.001 to 0.5"]);
    refused(&[&bubbles[..], &["--bubbles-quantile", "1e-300"]].concat(), &["from 0.001 to 0.5"]);
    let both = ["--iteration", "median", "--bubbles-quantile", "0.1"];
    refused(&[&bubbles[..], &both].concat(), &["--bubbles-quantile with a single iteration"]);
    refused(&["plan", EXAMPLE, "--bubbles-quantile", "0.1"], &["without lengths that vary", "bubble_jitter"]);
}

/// Simulated bubbles whose lengths are said to vary: the plan against the same plan carried out event by event. Use to a point and a
/// half of the bubbles, slowdown to a quarter of it and a fiftieth of a point.
#[test]
fn a_plan_of_varying_bubbles_is_what_a_gate_makes_of_it() {
    let text = fs::read_to_string("examples/steps-against-segments.toml").unwrap();
    for (jitter, quantile) in [("1%", "10%"), ("5%", "10%"), ("5%", "2%"), ("10%", "50%"), ("30%", "50%")] {
        let keys = format!("bubble_jitter = \"{jitter}\"\nbubble_quantile = \"{quantile}\"");
        let text = text.replace("bubble_jitter = \"5%\"", &keys);
        let mut job = Job::parse(Path::new("examples/varying.toml"), &text).unwrap();
        let mut model: CostModel =
            serde_json::from_str(&fs::read_to_string(&job.hardware.cost_models[0]).unwrap()).unwrap();
        job.model.attention = Some(bubblebench::cost::predict::usual_attention(&model));
        // A measured gate keeps to the time. Of one that nobody measured the plan says at least what the best published one costs.
        let (unknown, notes) = fill::segments::compare(&job, &model, &[]).unwrap();
        assert!(notes.iter().any(|note| note.starts_with("the cost model has no gate")), "{notes:?}");
        for grain in unknown.iter().flat_map(|side| [side.whole_steps, side.segments]) {
            let slower = grain.carried_out.slowdown.unwrap() - 1.0;
            assert!(grain.slowdown - 1.0 > 0.75 * slower - 0.0001, "{jitter} {quantile}: {grain:?}");
        }
        let (open_ns, drain_ns, drain_by_side_ns) = (50e3, 400e3, BTreeMap::new());
        model.gate = Some(GateCost { open_ns, close_ns: 5e3, drain_ns, drain_by_side_ns, restart_ns: 20e3 });
        for side in fill::segments::compare(&job, &model, &[]).unwrap().0 {
            for grain in [side.whole_steps, side.segments] {
                let came = grain.carried_out.came;
                let (used, slower) = (came.work_ns / came.bubble_ns, grain.carried_out.slowdown.unwrap());
                let allowed = 0.015;
                assert!((used - grain.used).abs() < allowed, "{jitter} {quantile} {}: {grain:?}", side.side);
                let allowed = 0.0002 + 0.25 * (slower - 1.0);
                assert!((slower - grain.slowdown).abs() < allowed, "{jitter} {quantile} {}: {grain:?}", side.side);
            }
            assert!(side.segments.used > side.whole_steps.used, "{side:?}");
        }
    }
    let path = "examples/steps-against-segments.toml";
    let output = program().arg("plan").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("bubbles vary by 5 % and are filled for the 10 % quantile of their lengths"), "{text}");
    // A limit that lets nothing in leaves them as they are; 0 % says that they do not vary.
    let folder = tempfile::tempdir().unwrap();
    let written = |text: String| {
        let path = folder.path().join("job.toml");
        let models = fs::canonicalize("results").unwrap();
        fs::write(&path, text.replace("../results", models.to_str().unwrap())).unwrap();
        path
    };
    let shut = written(fs::read_to_string(path).unwrap().replace("main_slowdown = \"5%\"", "main_slowdown = \"0%\""));
    let output = program().arg("plan").arg(shut).arg("--segments").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("0 % (0)") && !text.contains("No bubble is known to vary"), "{text}");
    let still = "bubble_jitter = \"0%\"\nbubble_quantile = \"2%\"";
    let still = written(fs::read_to_string(path).unwrap().replace("bubble_jitter = \"5%\"", still));
    let output = program().arg("plan").arg(&still).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("bubbles do not vary, as the job says") && !text.contains("vary by"), "{text}");
    assert!(text.contains("bubble_quantile counts for nothing: bubble_jitter says"), "{text}");
    let still = still.to_str().unwrap();
    refused(&["plan", still, "--bubbles-quantile", "2%"], &["do not vary", "`bubble_jitter` is 0 %"]);
}

/// Whole steps of small models against segments, by the command that README.md has.
#[test]
fn segments_use_what_whole_steps_leave() {
    let output = program().args(["plan", "examples/steps-against-segments.toml", "--segments"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["Whole steps against segments", "step-88.9ms", "17 % (17)", "93 % (93)"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let bare = fs::read_to_string(EXAMPLE).unwrap();
    let bare = bare.split("\n[[side]]").next().unwrap();
    let models = fs::canonicalize("results").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.toml");
    fs::write(&path, bare.replace("../results", models.to_str().unwrap())).unwrap();
    refused(&["plan", path.to_str().unwrap(), "--segments"], &["names no [[side]]"]);
    refused(&["plan", EXAMPLE, "--segments", "--json"], &["--segments"]);
}

/// A measured overrun stands whatever the lengths say; a receive that keeps multiprocessors slows sides down, and is said to.
#[test]
fn what_was_measured_and_what_is_assumed() {
    let (mut job, model) = (job(), model());
    let plan = |job: &Job| fill::plan(job, &model, &[]).unwrap().record;
    let record = plan(&job);
    let side = &record.side[1];
    assert!((side.receive_rate - (1.0 - 2.0 / 82.0)).abs() < 1e-12, "{}", side.receive_rate);
    assert!(side.receive_rate_low < side.receive_rate && side.receive_rate < side.receive_rate_high);
    assert!(record.assumed.iter().any(|what| what.contains("waiting receive") && what.contains("2 of 82")));
    let fill = |r: &fill::record::PlanRecord, tail: bool| {
        let of = |s: &fill::record::PlanStage| s.bubbles.iter().collect::<Vec<_>>();
        let bubbles: Vec<_> = r.stage.iter().flat_map(of).filter(|b| (b.kind == BubbleKind::Tail) == tail).collect();
        bubbles.into_iter().flat_map(|b| b.fills).collect::<Vec<_>>()
    };
    assert!(fill(&record, true).iter().all(|f| f.work_ns.is_none()), "nothing is received in a tail");
    let slowed = fill(&record, false);
    let rate = |f: &fill::record::PlanFill| f.work_ns.unwrap() as f64 / (f.end_ns - f.start_ns) as f64;
    assert!(!slowed.is_empty() && slowed.iter().all(|f| (rate(f) - side.receive_rate).abs() < 1e-4));
    job.side.iter_mut().for_each(|side| side.receive_rate = Some(1.0));
    let full = plan(&job);
    assert!(full.outcome.bubble_used > record.outcome.bubble_used && full.side[0].receive_rate == 1.0);
    assert!(!full.assumed.iter().any(|what| what.contains("waiting receive")));
}

/// A side that was measured in filled stages: what the main waited there on average is the least that it waits in the plan; how the
/// bubbles vary may make it more. Operations and whole steps count for themselves.
#[test]
fn a_measured_overrun_is_the_least_of_its_grain() {
    let (mut job, model) = (job(), model());
    let read = Journal::read(Path::new("results/published/amd-epyc-2c")).unwrap().measurements;
    let stages = |m: &&Measurement| m.id.starts_with("fill/1f1b") && m.fill.is_some();
    let stage = read.iter().find(stages).unwrap();
    let name = stage.param_str("side").unwrap().to_string();
    job.side.truncate(1);
    job.side[0] = Side { measured: Some(name), gpt: None, after_ns: None, kernel_ns: Some(2e5), ..job.side[0].clone() };
    job.limits.main_slowdown = 1.0;
    let cost =
        |job: &Job, measurements: &[Measurement]| fill::plan(job, &model, measurements).unwrap().record.side[0].cost_ns;
    let with = |grain: &str, mean: Option<f64>, median: f64| {
        let mut changed = read.clone();
        for stage in changed.iter_mut().filter(|m| stages(&&**m)) {
            stage.params.insert("grain".into(), grain.into());
            stage.params.insert("after_bubble_ns".into(), 70_000.0.into());
            let fill = stage.fill.as_mut().unwrap();
            (fill.overrun_mean_ns, fill.overrun_p50_ns, fill.overrun_p99_ns) = (mean, Some(median), Some(2e6));
        }
        changed
    };
    let near = |ns: f64, expected: f64| assert!((ns - expected).abs() < 1.0, "{ns}, not {expected}");
    let close = 5_000.0;
    // A line of earlier days has a median and a rare one, of which no mean is made up; what is lost behind a bubble holds it.
    near(cost(&job, &with("operation", None, -50_000.0)), close + 70_000.0);
    // The median overrun is a part of the difference of medians, if it is one at all.
    near(cost(&job, &with("operation", Some(40_000.0), -50_000.0)), close + 70_000.0 + 40_000.0);
    near(cost(&job, &with("operation", Some(40_000.0), 10_000.0)), close + 60_000.0 + 40_000.0);
    // Whole steps are not what was measured of operations, and the other way round: they end late by as much more as they are longer.
    let side = |job: &Job, of: &[Measurement]| fill::plan(job, &model, of).unwrap().record.side[0].clone();
    let whole = Job { side: vec![Side { split: false, ..job.side[0].clone() }], ..job.clone() };
    let operations = with("operation", Some(40_000.0), -50_000.0);
    let pieces = side(&whole, &operations);
    let longer = pieces.step_ns / pieces.longest_kernel_ns as f64;
    near(pieces.cost_ns, close + 70_000.0 + 40_000.0 * longer);
    assert!(longer > 2.0, "{longer}");
    near(cost(&whole, &with("step", Some(900_000.0), -50_000.0)), close + 70_000.0 + 900_000.0);
    near(cost(&job, &with("step", Some(900_000.0), -50_000.0)), close + 70_000.0 + 900_000.0 / longer);
    // Where the other grain has no mean, what was published of a gate that nobody measured stands; that the job says what is lost in all
    // leaves nothing.
    let nobody = CostModel { gate: None, ..model.clone() };
    let cost_of = |job: &Job, of: &[Measurement]| fill::plan(job, &nobody, of).unwrap().record.side[0].cost_ns;
    near(cost_of(&whole, &with("operation", None, 0.0)), close + 70_000.0 + 0.085 * pieces.step_ns);
    near(cost_of(&whole, &with("step", None, 0.0)), close + 70_000.0);
    let mut given = whole.clone();
    given.side[0].after_ns = Some(70_000.0);
    near(cost_of(&given, &with("operation", None, 0.0)), close + 70_000.0);
    // What the job says holds late ends too, as long as it is not known how lengths vary; then it is what is lost beyond them.
    (given.side[0].split, given.side[0].after_ns) = (true, Some(50_000.0));
    near(cost(&given, &operations), close + 50_000.0);
    given.limits.bubble_jitter = Some(0.0001);
    near(cost(&given, &operations), close + 50_000.0 + 40_000.0);
    // Where lengths vary the closed form counts, and never for less than was measured.
    for (jitter, quantile) in [(0.0001, 0.1), (0.2, 0.5)] {
        job.limits.bubble_jitter = Some(jitter);
        job.limits.bubble_quantile = Some(quantile);
        let [none, some, more] = [0.0, 40_000.0, 1e9].map(|mean| cost(&job, &with("operation", Some(mean), 0.0)));
        let form = none - close - 70_000.0;
        assert_eq!(form > 40_000.0, jitter > 0.1, "{form}");
        near(some, close + 70_000.0 + form.max(40_000.0));
        assert!(more >= some);
    }
}

/// Nobody measured the gate: a variation that is known replaces the published share of a kernel, but a tiny one does not make the gate
/// a perfect one, and how dear gates are still moves the plan.
#[test]
fn a_known_variation_does_not_make_a_gate_perfect() {
    let (mut job, mut model) = (job(), model());
    model.gate = None;
    job.side.truncate(1);
    job.side[0] = Side {
        after_ns: None,
        gpt: None,
        step_ns: Some(4e6),
        kernel_ns: Some(1e6),
        memory_gib: Some(0.5),
        ..job.side[0].clone()
    };
    job.limits.main_slowdown = 0.2;
    let plan = |job: &Job| fill::plan(job, &model, &[]).unwrap().record;
    let cost = |jitter: Option<f64>| {
        let mut job = job.clone();
        job.limits.bubble_jitter = jitter;
        let record = plan(&job);
        let interval = record.outcome.main_slowdown_high / record.outcome.main_slowdown_low;
        let note = record.notes.iter().find(|note| note.contains("no gate figures")).unwrap().clone();
        (record.side[0].cost_ns - 105_000.0, interval, note)
    };
    let (unknown, _, note) = cost(None);
    assert!((unknown - 85_000.0).abs() < 1.0 && note.contains("8.5 %"), "{unknown} {note}");
    let (tiny, interval, note) = cost(Some(0.0001));
    assert!((tiny - 6_000.0).abs() < 1.0, "{tiny}: the cheapest published gate's");
    assert!(interval > 1.001, "{interval}");
    assert!(note.contains("by late ends at least 0.6 %") && !note.contains("8.5"), "{note}");
    // That bubbles do not vary is as good as that they hardly do; it is another thing to know nothing of it.
    let (still, _, of_still) = cost(Some(0.0));
    assert!((still - tiny).abs() < 1.0 && of_still == note, "{still} {of_still}");
    assert!(cost(Some(0.2)).0 > 10_000.0, "the closed form");
    // What is put nowhere would have cost as much, and nothing is late by less than nothing.
    let mut none = job.clone();
    (none.limits.bubble_jitter, none.limits.main_slowdown) = (Some(0.0001), 0.0);
    let none = plan(&none);
    assert!(
        (none.side[0].cost_ns - 105_000.0 - tiny).abs() < 1.0 && none.side[0].unused.is_some(),
        "{:?}",
        none.side[0]
    );
    let late = none.lengths.unwrap().overrun_ns;
    assert!(
        late == 0.0 && late.is_sign_positive() && none.stage.iter().all(|s| s.overrun_ns.unwrap().is_sign_positive())
    );
    job.side[0].after_ns = Some(1e5);
    let note = plan(&job).notes.into_iter().find(|note| note.contains("no gate figures")).unwrap();
    assert!(!note.contains('%'), "what is lost behind a bubble is given: {note}");
}

/// What counts for nothing is refused where a flag says it, and noted where the job or the run does.
#[test]
fn nothing_that_was_asked_for_is_ignored_silently() {
    let table = ["plan", "examples/steps-against-segments.toml", "--segments"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    let trace = path.to_str().unwrap();
    for (first, second) in [
        (&table[..], &["--operations"][..]),
        (&table, &["--json", "--operations"]),
        (&table, &["--iteration", "3"]),
        (&table, &["--bubbles", "x.json", "--iteration", "3"]),
        (&table, &["--brief"]),
        (&table, &["--trace", trace]),
        (&table, &["--html", trace]),
        (&table, &["--sweep"]),
        (&["plan", EXAMPLE, "--brief"], &["--operations"]),
        (&["plan", EXAMPLE, "--sweep"], &["--iteration", "3"]),
        (&["plan", EXAMPLE, "--trace", trace], &["--iteration", "3"]),
    ] {
        refused(&[first, second].concat(), &["cannot be used with"]);
    }
    refused(&["plan", EXAMPLE, "--sweep", "--bubbles-quantile", "0.1"], &["--sweep"]);
    let (mut job, model) = (job(), model());
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    job.limits.bubble_quantile = Some(0.2);
    let notes = fill::plan(&job, &model, &[]).unwrap().record.notes;
    assert!(notes.iter().any(|note| note.contains("bubble_quantile counts for nothing")), "{notes:?}");
    (job.limits.bubble_quantile, job.limits.bubble_jitter) = (None, Some(0.05));
    let path = folder.path().join("bubbles.json");
    as_if_measured(&simulated, 8, 0).write(&path).unwrap();
    let measured = |job: &Job, wanted| measured::plan(job, &model, &[], &path, wanted).unwrap().record;
    let notes = measured(&job, IterationChoice::Usual).notes;
    assert!(notes.iter().any(|note| note.contains("bubble_jitter counts for other schedules only")), "{notes:?}");
    // Of one iteration the jitter counts for nothing at all: the plan and what it is compared with are known alike.
    let one = measured(&job, IterationChoice::Median);
    assert!(one.notes.iter().any(|note| note.contains("bubble_jitter counts for nothing")), "{:?}", one.notes);
    let mut without = job.clone();
    without.limits.bubble_jitter = None;
    let filled = |record: &fill::record::PlanRecord| -> Vec<Option<f64>> {
        record.alternatives.iter().map(|other| other.gain_filled).collect()
    };
    assert_eq!(filled(&one), filled(&measured(&without, IterationChoice::Median)));
    // A job without a bubble has no quantile of its bubbles' lengths.
    let one = fs::read_to_string(EXAMPLE).unwrap().replace("pipeline = 4", "pipeline = 1");
    let mut one = Job::parse(Path::new(EXAMPLE), &one).unwrap();
    one.limits.bubble_jitter = Some(0.05);
    assert!(fill::plan(&one, &model, &[]).unwrap().record.lengths.is_none());
}

/// Jobs made to have a billion events are cut short, and say so: many pieces, many iterations, and a great many short pieces behind a
/// long one, which are carried out one by one.
#[test]
fn a_comparison_of_grains_ends() {
    let text = fs::read_to_string("examples/steps-against-segments.toml").unwrap();
    let models = fs::canonicalize("results").unwrap();
    let text = text.replace("../results", models.to_str().unwrap());
    let (head, _) = text.split_once("[[side]]").unwrap();
    let (side, limits) =
        ("[[side]]\nname = \"tiny\"\nmemory_gib = 2\n", "[limits]\nmain_slowdown = \"5%\"\nbubble_jitter = \"5%\"\n");
    let alike = "step_ns = 1e5\nkernel_ns = 1\n".to_string();
    let uneven = format!("kernels_ns = [{}1e6]\n", "1, ".repeat(60_000));
    let long = head.replace("global_batch = 144", "global_batch = 480000");
    let folder = tempfile::tempdir().unwrap();
    for (head, kernels, iterations) in [
        (head, &alike, "over 200 iterations"),
        (&long, &alike, "over 1 iteration."),
        (head, &uneven, "over 200 iterations"),
    ] {
        let path = folder.path().join("job.toml");
        fs::write(&path, format!("{head}{side}{kernels}{limits}")).unwrap();
        let output = program().arg("plan").arg(&path).arg("--segments").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            flat.contains("tiny") && flat.contains(iterations),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Lengths near the largest number are refused in a line, or added up as they are; nothing overflows.
#[test]
fn absurd_lengths_do_not_overflow() {
    let (job, model) = (job(), model());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    let simulated = fill::plan(&job, &model, &[]).unwrap();
    for (power, refused) in [(62, true), (53, false)] {
        let mut record = as_if_measured(&simulated, 6, 0);
        for device in &mut record.devices {
            let whole = 1u64 << power;
            (device.window_ns, device.absent_ns, device.compute_ns) = (whole, whole, 0);
            let each = whole / (2 * device.bubbles.len() as u64);
            for (index, b) in device.bubbles.iter_mut().enumerate() {
                (b.start_ns, b.end_ns) = (2 * index as u64 * each, (2 * index as u64 + 1) * each);
            }
        }
        record.write(&path).unwrap();
        for wanted in [IterationChoice::Usual, IterationChoice::Median] {
            let planned = measured::plan(&job, &model, &[], &path, wanted);
            assert_eq!(planned.is_err(), refused, "{:?}", planned.err().map(|e| e.to_string()));
        }
    }
}

#[test]
fn bubbles_that_are_not_this_jobs_are_refused() {
    let (job, model) = (job(), model());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bubbles.json");
    let file = path.to_str().unwrap();
    let mut record = as_if_measured(&fill::plan(&job, &model, &[]).unwrap(), 2, 0);
    record.write(&path).unwrap();
    refused(&["plan", EXAMPLE, "--bubbles", file, "--iteration", "7"], &["no bubble of iteration 7", "0 to 1"]);
    refused(&["plan", EXAMPLE, "--bubbles", file, "--iteration", "x"], &["give `learned`, `median` or a number"]);
    refused(&["plan", EXAMPLE, "--bubbles", file, "--trace", "x"], &["--trace"]);
    refused(&["plan", EXAMPLE, "--iteration", "1"], &["--bubbles"]);
    refused(
        &["plan", EXAMPLE, "--bubbles", "results/published/rtx3090/cost_model.json"],
        &["bubblebench.cost_model/2", "bubbles"],
    );
    refused(&["plan", EXAMPLE, "--bubbles", "nowhere.json"], &["nowhere.json"]);
    record.devices.pop();
    record.write(&path).unwrap();
    refused(&["plan", EXAMPLE, "--bubbles", file], &["3 devices, the job has 4 stages", "one device a stage"]);
    record = as_if_measured(&fill::plan(&job, &model, &[]).unwrap(), 1, 0);
    record.devices.iter_mut().for_each(|d| d.bubbles.clear());
    record.write(&path).unwrap();
    refused(&["plan", EXAMPLE, "--bubbles", file], &["lists no bubble", "--min-gap"]);
}

/// One file that needs nothing else, with its pictures, and with what a job file says kept from becoming markup.
#[test]
fn the_page_is_whole_and_safe() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    let model = fs::canonicalize("results/published/rtx3090/cost_model.json").unwrap();
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let text = text.replace("\"classifier\"", "\"<script>alert(1)</script>\"");
    let text = text.replace("../results/published/rtx3090/cost_model.json", model.to_str().unwrap());
    fs::write(&job, text).unwrap();
    let page = folder.path().join("plan.html");
    program().arg("plan").arg(&job).arg("--html").arg(&page).assert().success();
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    // No request goes anywhere: the only address is SVG's namespace.
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("http"));
    assert!(!html.contains("NaN") && !html.contains("\"inf") && !html.contains(">inf"), "a number went missing");
    for part in [
        "stage 3",
        "prefers-color-scheme:dark",
        "PipeFisher",
        "Would other flags do?",
        "before backward",
        "GiB free at peak",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.matches("<svg viewBox=\"0 0 1130").count() == 4, "timeline, time, memory, schedules");
    refused(&["plan", EXAMPLE, "--html", "/no/such/folder/plan.html"], &["/no/such/folder"]);
}

/// The straw man of old: a job on eight GPUs that one flag makes as fast as filling does is told so, with how well that is
/// known; where memory keeps the model from being copied, filling pays.
#[test]
fn the_headline_compares_with_everything_a_flag_changes() {
    let plan = |example: &str| {
        let mut job = Job::read(Path::new(example)).unwrap();
        let model: Option<CostModel> = job
            .hardware
            .cost_models
            .first()
            .map(|path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap());
        let model = model.unwrap_or_else(|| {
            let sheet = bubblebench::cost::datasheet::find(job.hardware.gpu.as_deref().unwrap()).unwrap();
            bubblebench::cost::datasheet::model(&sheet)
        });
        job.model.attention = Some(bubblebench::cost::predict::usual_attention(&model));
        fill::plan(&job, &model, &[]).unwrap().record
    };
    let r = plan("examples/gpt-a100-8.toml");
    let o = &r.outcome;
    assert_eq!(o.best_alternative.as_deref(), Some("pipeline 1, data 8"));
    assert!(o.best_alternative_gain > o.best_schedule_gain && o.best_schedule_gain > 1.0, "{o:?}");
    assert_eq!(o.net_gain, o.gain / o.best_alternative_gain);
    let kinds = ["schedule", "layout", "recompute", "division"];
    for kind in kinds {
        assert!(r.alternatives.iter().any(|a| a.kind == kind), "{kind}");
    }
    for (low, value, high) in [
        (o.gain_low, o.gain, o.gain_high),
        (o.net_gain_low, o.net_gain, o.net_gain_high),
        (o.main_slowdown_low, o.main_slowdown, o.main_slowdown_high),
        (o.best_alternative_gain_low, o.best_alternative_gain, o.best_alternative_gain_high),
        (r.side[0].steps_per_s_low, r.side[0].steps_per_s, r.side[0].steps_per_s_high),
    ] {
        assert!(low <= value && value <= high && high < 3.0 * value, "{low} {value} {high}");
    }
    for a in &r.alternatives {
        assert!(a.iteration_low_ns <= a.iteration_ns && a.iteration_ns <= a.iteration_high_ns, "{a:?}");
        assert!(a.gain_low <= a.gain && a.gain <= a.gain_high && !a.describes.is_empty(), "{a:?}");
        assert!(a.gain_filled.unwrap() >= 0.999 * a.gain, "{a:?}");
        assert!(!a.sure || a.fits_memory != Some(true) || o.best_alternative_gain_high >= 0.98 * a.gain, "{a:?}");
        assert_eq!(a.pipeline * a.tensor * a.data, 8);
        // What is wrong in both is wrong in their ratio no more: a schedule's gain is known better than its iteration.
        let width = |low: f64, high: f64, value: f64| (high - low) / value;
        let of = width(a.iteration_low_ns as f64, a.iteration_high_ns as f64, a.iteration_ns as f64);
        assert!(a.describes != "zb-h1" || width(a.gain_low, a.gain_high, a.gain) < of, "{a:?}");
    }
    assert_eq!(plan("examples/gpt-175b-finetune-a100-8x8.toml").outcome.filling_pays, Some(true));
    // The best of several is wrong by what any of them may be wrong by: other divisions are nearly as good here, and less sure.
    let o = plan("examples/gpt-1.3b-rtx3090-4.toml").outcome;
    assert!(o.filling_pays.is_none() && o.net_gain_low < 0.95 && o.best_alternative_gain_high > 1.4, "{o:?}");
    assert_eq!(plan("examples/llama2-70b-h100-4x8.toml").outcome.filling_pays, Some(false));
}

/// What an alternative says of itself is what its own job says: the layout that goes with another division puts other
/// parameters on the fullest device.
#[test]
fn an_alternative_is_the_job_that_it_describes() {
    let planned = |text: &str| {
        let mut job = Job::parse(Path::new("examples/own.toml"), text).unwrap();
        let model: CostModel =
            serde_json::from_str(&fs::read_to_string(&job.hardware.cost_models[0]).unwrap()).unwrap();
        job.model.attention = Some(bubblebench::cost::predict::usual_attention(&model));
        fill::plan(&job, &model, &[]).unwrap().record
    };
    let text = fs::read_to_string("examples/gpt-a100-4x8.toml").unwrap();
    let record = planned(&text);
    let describes = "pipeline 2, data 16, zero 1, zb-h2, layers 17 15";
    let variant = record.alternatives.iter().find(|a| a.describes == describes).unwrap();
    let changes = [
        ("pipeline = 8", "pipeline = 2\nzero = 1\nlayout = [17, 15]"),
        ("data = 4", "data = 16"),
        ("schedule = \"1f1b\"", "schedule = \"zb-h2\""),
    ];
    let text = changes.iter().fold(text, |text, (from, to)| text.replace(from, to));
    let own = planned(&text);
    assert_eq!(own.iteration_ns, variant.iteration_ns);
    assert!((own.bubble_ratio - variant.bubble_ratio).abs() < 1e-9, "{} {}", own.bubble_ratio, variant.bubble_ratio);
    let filled = variant.gain_filled.unwrap() / variant.gain;
    assert!((own.outcome.gain / filled - 1.0).abs() < 1e-9, "{} {filled}", own.outcome.gain);
}

/// Whether it pays, by how much, and with what: on the first screen, whole with `--brief`.
#[test]
fn the_answer_stands_first() {
    let print = |flags: &[&str]| {
        let mut command = program();
        command.env("COLUMNS", "80").args(["plan", "examples/llama2-70b-h100-4x8.toml"]).args(flags);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let (brief, whole) = (print(&["--brief"]), print(&[]));
    assert!(whole.starts_with(&brief), "{brief}");
    for words in [
        "Filling does not pay here: ",
        "  gain ",
        "  without filling  ",
        "  net ",
        "  main job ",
        "  fill with ",
        "  prices ",
    ] {
        assert!(brief.contains(words), "{words}: {brief}");
    }
    assert!(!brief.contains("Stages") && whole.contains("Stages") && whole.contains("Other flags"), "{whole}");
    refused(&["plan", EXAMPLE, "--brief", "--json"], &["--brief"]);
    refused(&["plan", EXAMPLE, "--brief", "--sweep"], &["--brief"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = fs::canonicalize("results/published/rtx3090/cost_model.json").unwrap();
    let write = |change: &dyn Fn(String) -> String| {
        let text = fs::read_to_string(EXAMPLE).unwrap();
        let text = text.replace("../results/published/rtx3090/cost_model.json", model.to_str().unwrap());
        let path = folder.path().join("job.toml");
        fs::write(&path, change(text)).unwrap();
        path.to_str().unwrap().to_string()
    };
    let path = write(&|t| t.replace("memory_gib = 24", "memory_gib = 0.5"));
    refused(&["plan", &path], &["needs", "for weights, gradients and optimizer", "0.5 GiB"]);
    let path =
        write(&|t| t.replace("memory_gib = 0.4", "memory_gib = 40").replace("resident_gib = 0.1", "resident_gib = 30"));
    let output = program().args(["plan", &path]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(text.contains("side classifier is put nowhere: the 30.00 GiB it keeps between steps"), "{text}");
    let path = write(&|t| t.replace("sides_per_bubble", "side_per_bubble"));
    refused(&["plan", &path], &["job.toml:46", "did you mean `sides_per_bubble`"]);
    let path = write(&|t| t.replace("sides_per_bubble = 2", "beside_compute = \"priority\""));
    let output = program().args(["plan", &path, "--json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(
        text.contains("side classifier is not put beside compute: the cost model of published/rtx3090 has no main"),
        "{text}"
    );
}

/// The operations of a plan, read back: the same plan, its memory and its fills too. Of every placement and with pairs.
#[test]
fn a_plan_on_its_own_operations_is_the_same_plan() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let file = file.to_str().unwrap();
    let answer = |arguments: &[&str]| -> serde_json::Value {
        let output = program().args([&["plan", EXAMPLE, "--json"], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for name in ["1f1b", "zb-h2", "v-half", "chimera", "dualpipev"] {
        let mut plan = answer(&["--schedule", name, "--operations"]);
        assert_eq!(plan["schedule"], name);
        fs::write(file, plan.to_string()).unwrap();
        let mut again = answer(&["--schedule", file]);
        assert!(again.get("operations").is_none());
        let listed = plan["operations"].as_array().unwrap().len() as u64;
        let number = |key: &str| plan[key].as_u64().unwrap();
        let passes =
            number("stages") * number("micro_batches") * if name == "v-half" || name == "dualpipev" { 2 } else { 1 };
        assert!((2 * passes..=3 * passes).contains(&listed), "{name}: {listed}");
        // A list is no schedule of ours, so its own is among the others.
        for plan in [&mut plan, &mut again] {
            let plan = plan.as_object_mut().unwrap();
            plan.retain(|key, _| !["operations", "alternatives", "outcome"].contains(&key.as_str()));
        }
        assert_eq!(plan, again, "{name}");
    }
}

/// An order of one's own is planned like any other, and compared with the schedules that have names.
#[test]
fn a_list_takes_the_place_of_the_jobs_schedule() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.json");
    let micro_batches = job().micro_batches();
    // 1F1B whose stages run at most two micro-batches ahead: less memory, longer waits.
    let of_stage = |stage: u64| {
        let entry = move |kind: &str, m: u64| serde_json::json!({"stage": stage, "kind": kind, "micro_batch": m});
        let ahead = (3 - stage).min(2);
        let first = (0..ahead).map(move |m| entry("F", m));
        let steady =
            move |m| (m + ahead < micro_batches).then(|| entry("F", m + ahead)).into_iter().chain([entry("B", m)]);
        first.chain((0..micro_batches).flat_map(steady))
    };
    fs::write(&file, serde_json::to_string(&(0..4).flat_map(of_stage).collect::<Vec<_>>()).unwrap()).unwrap();
    let file = file.to_str().unwrap();
    let output = program().args(["plan", EXAMPLE, "--schedule", file, "--json"]).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["schedule"], "list");
    assert_eq!(plan["stage"][0]["peak_activations"].as_f64(), Some(3.0));
    assert!(plan["stage"].as_array().unwrap().iter().any(|s| s["filled_ns"].as_u64() > Some(0)));
    let others = plan["alternatives"].as_array().unwrap();
    assert!(others.iter().any(|o| o["schedule"] == "1f1b"), "{others:?}");
    let output = program().args(["plan", EXAMPLE, "--schedule", file]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("list") && text.contains("F forward  B backward  ") && !text.contains("W backward"),
        "{text}"
    );
    refused(&["plan", "examples/gpt-a100-8.toml", "--schedule", file], &["the job has 8 stages", "has 4 stages"]);
    refused(&["plan", EXAMPLE, "--schedule", file, "--sweep"], &["--sweep with the operations of"]);
    refused(&["plan", EXAMPLE, "--schedule", "interleavd"], &["did you mean `interleaved`"]);
}
