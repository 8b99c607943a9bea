//! A run of several visits on a scripted machine: what its journal holds, also after it was killed between two of them.

use super::*;
use crate::records::machine::{Cpu, MachineRecord, RunInfo};
use crate::records::measurement::Kind;
use crate::records::store::{Journal, MEASUREMENTS, RunRequest};
use crate::suite::Detail;
use crate::suite::case::Sampling;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

fn request(folder: &Path) -> RunRequest {
    let machine = MachineRecord {
        schema: crate::records::machine::SCHEMA.into(),
        name: "test-2c".into(),
        cpu: Cpu { model: "test".into(), cores: 2, last_level_cache_bytes: None, features: vec![], governor: None },
        memory_bytes: None,
        gpus: vec![],
        versions: Default::default(),
        topology: vec![],
        kernel: "test".into(),
        hostname: None,
        environment: Default::default(),
        run: RunInfo {
            id: "run".into(),
            commit: Some("abc".into()),
            preset: "quick".into(),
            device: "host".into(),
            command: vec![],
            started: "2026-01-01T00:00:00Z".into(),
            case_definitions: None,
        },
    };
    RunRequest { folder: folder.into(), machine, fresh: false, selection: None }
}

/// What happened, in order: `a checked`, `a made`, `forgotten`.
type Log = Rc<RefCell<Vec<String>>>;

/// The machine: every visit is 1 % slower than the one before it, and Ctrl-C comes before the n-th look at it.
#[derive(Clone)]
struct Machine {
    log: Log,
    clock: Rc<Cell<u64>>,
    looks_left: Rc<Cell<u64>>,
}

impl Machine {
    fn new(looks: u64) -> Self {
        Machine { log: Log::default(), clock: Rc::default(), looks_left: Rc::new(Cell::new(looks)) }
    }
    fn note(&self, what: String) {
        self.log.borrow_mut().push(what);
    }
    fn count(&self, what: &str) -> usize {
        self.log.borrow().iter().filter(|line| *line == what).count()
    }
}

impl Watch for Machine {
    fn elapsed_ns(&self) -> u64 {
        self.clock.get()
    }
    fn interrupted(&self) -> bool {
        self.looks_left.set(self.looks_left.get().saturating_sub(1));
        self.looks_left.get() == 0
    }
}

#[derive(Clone)]
struct Scripted {
    info: CaseInfo,
    machine: Machine,
    revisited: bool,
    /// From which making on it cannot be made, and from which on its result is wrong.
    fails_at: usize,
    wrong_at: usize,
}

impl Scripted {
    fn made(&self) -> usize {
        self.machine.count(&format!("{} checked", self.info.id)) + self.machine.count(&format!("{} made", self.info.id))
    }
    fn make(&self, how: &str) -> Result<Option<Verified>> {
        self.machine.note(format!("{} {how}", self.info.id));
        if self.made() >= self.fails_at {
            return Err(Error::machine("no memory", "buy some"));
        }
        let wrong = u64::from(self.made() >= self.wrong_at);
        Ok((how == "checked" || wrong > 0).then(|| Verified { against: "f64".into(), max_error: 0.0, wrong }))
    }
}

impl Spec for Scripted {
    fn id(&self) -> String {
        self.info.id.clone()
    }
    fn build(&self, _: &Context) -> Result<Box<dyn Case>> {
        Ok(Box::new(self.clone()))
    }
    fn forget(&self) {
        self.machine.note("forgotten".into());
    }
}

impl Case for Scripted {
    fn info(&self) -> &CaseInfo {
        &self.info
    }
    fn sampling(&self) -> Sampling {
        Sampling { revisited: self.revisited, ..Sampling::default() }
    }
    fn prepare(&mut self) -> Result<Option<Verified>> {
        self.make("checked")
    }
    fn prepare_again(&mut self) -> Result<Option<Verified>> {
        self.make("made")
    }
    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let ns = (1e6 + 1e4 * self.made() as f64) * n as f64;
        self.machine.clock.set(self.machine.clock.get() + ns as u64);
        Ok(vec![RawSample { detail: Detail::Isolated { ns: 2.0 * ns }, ..RawSample::new(ns, n) }])
    }
}

fn case(id: &str, machine: &Machine) -> Scripted {
    let info = CaseInfo::new(id, Kind::Collective, Backend::Host);
    Scripted { info, machine: machine.clone(), revisited: true, fails_at: usize::MAX, wrong_at: usize::MAX }
}

/// A run as both drivers make it; the sentences it told.
fn run(folder: &Path, specs: Vec<Scripted>, machine: &Machine) -> Result<Vec<String>> {
    let context =
        Context { preset: Preset::Quick, platform: Platform::Host, cores: 2, last_level_cache_bytes: 1 << 20 };
    let mut recorder = Recorder::new(JournalRun::open(request(folder))?, context, "test".into());
    let specs: Vec<Box<dyn Spec>> = specs.into_iter().map(|spec| Box::new(spec) as Box<dyn Spec>).collect();
    for spec in &specs {
        if !recorder.run.is_done(&spec.id()) {
            match recorder.prepare(spec.as_ref())? {
                Ok(prepared) => recorder.measure(prepared, machine)?,
                Err(skipped) => skipped,
            };
        }
    }
    let mut told = Vec::new();
    recorder.visit_again(&specs, machine, &mut |step| match step {
        Step::Round { visit, of, cases } => told.push(format!("{visit} of {of}: {cases}")),
        Step::Case(_) => {}
        Step::Failed(id, error) => told.push(format!("{id}: {error}")),
    })?;
    recorder.finish()?;
    Ok(told)
}

fn lines(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join(MEASUREMENTS)).unwrap().lines().count()
}

fn record(folder: &Path, id: &str) -> Measurement {
    Journal::read(folder).unwrap().measurements.into_iter().find(|record| record.id == id).unwrap()
}

#[test]
fn visits_are_a_whole_list_apart_and_leave_one_line_a_case() {
    let (folder, machine) = (tempfile::tempdir().unwrap(), Machine::new(u64::MAX));
    let pair = Scripted { revisited: false, ..case("pair", &machine) };
    let told = run(folder.path(), vec![case("a", &machine), pair, case("b", &machine)], &machine).unwrap();
    assert_eq!(told, ["2 of 5: 2", "3 of 5: 2", "4 of 5: 2", "5 of 5: 2"]);
    let made: Vec<String> = machine.log.borrow().iter().filter(|line| *line != "forgotten").cloned().collect();
    let rounds = ["a made", "b made"].repeat(4);
    assert_eq!(made, [["a checked", "pair checked", "b checked"].as_slice(), &rounds].concat());
    assert_eq!(lines(folder.path()), 4, "three cases and the end");
    let a = record(folder.path(), "a");
    let visits = a.visits.clone().unwrap();
    assert_eq!(visits.iter().map(|v| v.median_ns).collect::<Vec<_>>(), [1.01e6, 1.02e6, 1.03e6, 1.04e6, 1.05e6]);
    assert_eq!(visits.iter().map(|v| v.samples).sum::<u64>(), a.samples_total);
    assert_eq!((a.median_ns, a.ci95_low_ns, a.ci95_high_ns), (Some(1.03e6), Some(1.01e6), Some(1.05e6)));
    assert_eq!(a.isolated_ns.map(|i| (i.low, i.median, i.high)), Some((2.02e6, 2.06e6, 2.1e6)));
    assert!(a.verified.is_some(), "the first visit's check");
    assert_eq!(record(folder.path(), "pair").visits, None);
    let end = Journal::read(folder.path()).unwrap().ends.pop().unwrap();
    assert_eq!(end.param_u64("cases"), Some(3));
}

/// Wherever it is stopped, the run that goes on makes the visits that are missing, and no other.
#[test]
fn a_run_stopped_between_visits_goes_on_with_the_missing_ones() {
    let whole = Machine::new(u64::MAX);
    run(tempfile::tempdir().unwrap().path(), vec![case("a", &whole), case("b", &whole)], &whole).unwrap();
    for looks in (2..200).step_by(7) {
        let (folder, machine) = (tempfile::tempdir().unwrap(), Machine::new(looks));
        let specs = || vec![case("a", &machine), case("b", &machine)];
        if run(folder.path(), specs(), &machine).is_err() {
            let kept: usize = Journal::read(folder.path()).map_or(0, |journal| {
                journal.measurements.iter().map(|record| record.visits.as_ref().unwrap().len()).sum()
            });
            let made =
                ["a checked", "a made", "b checked", "b made"].map(|what| machine.count(what)).iter().sum::<usize>();
            assert!(kept == made || kept + 1 == made, "at most the visit in flight is lost: {kept} of {made}");
            machine.looks_left.set(u64::MAX);
            run(folder.path(), specs(), &machine).unwrap();
            let more =
                ["a checked", "a made", "b checked", "b made"].map(|what| machine.count(what)).iter().sum::<usize>();
            assert_eq!(more - made, 10 - kept, "stopped at look {looks}");
        }
        assert_eq!(lines(folder.path()), 3);
        for id in ["a", "b"] {
            assert_eq!(record(folder.path(), id).visits.unwrap().len(), 5, "{id}, stopped at look {looks}");
        }
    }
}

#[test]
fn a_visit_that_fails_keeps_the_earlier_ones_and_a_wrong_one_takes_the_time_away() {
    let (folder, machine) = (tempfile::tempdir().unwrap(), Machine::new(u64::MAX));
    let fails = Scripted { fails_at: 4, ..case("fails", &machine) };
    let wrong = Scripted { wrong_at: 3, ..case("wrong", &machine) };
    let told = run(folder.path(), vec![fails, wrong], &machine).unwrap();
    assert_eq!(told.iter().filter(|line| line.starts_with("fails: no memory")).count(), 2, "{told:?}");
    assert_eq!(record(folder.path(), "fails").visits.unwrap().len(), 3);
    let wrong = record(folder.path(), "wrong");
    assert!(wrong.has_flag(WRONG) && wrong.median_ns.is_none() && wrong.visits.is_none());
}
