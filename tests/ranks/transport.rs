//! What a rank process does: it measures a few cases over a transport made of files, in which a collective ends when
//! every rank has come to it, as real ones do.

use crate::party::{CASES, DEADLINE_MS, FAULT, FOLDER};
use bubblebench::collectives::ranks::{
    self, Abort, GroupConfig, MeetingId, RankConfig, RankEnvironment, RankTiming, Task, Transport, Worker,
};
use bubblebench::collectives::{CollectiveOperation, Element, Exchange};
use bubblebench::suite::watch::{self, ProcessWatch};
use bubblebench::{Error, Result};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(1);

/// Ranks meet in this folder; `fault` is `hang:RANK:STEP`, `fail:RANK:STEP` or nothing.
pub struct Files {
    pub folder: PathBuf,
    pub fault: String,
    pub groups: AtomicU8,
}

struct FileWorker {
    folder: PathBuf,
    fault: String,
    meeting: u8,
    config: RankConfig,
    abort: Abort,
    steps: u64,
}

impl Transport for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn gpu(&self, device: u32) -> Result<String> {
        Ok(format!("GPU-{device}"))
    }

    fn meeting_id(&self) -> Result<MeetingId> {
        Ok([self.groups.fetch_add(1, Ordering::Relaxed); 128])
    }

    fn join(&self, config: &RankConfig, id: &MeetingId, abort: &Abort) -> Result<Box<dyn Worker>> {
        let (folder, fault, config, abort) = (self.folder.clone(), self.fault.clone(), config.clone(), abort.clone());
        assert_eq!(id, &[id[0]; 128]);
        let mut worker = FileWorker { folder, fault, meeting: id[0], config, abort, steps: 0 };
        worker.meet()?;
        Ok(Box::new(worker))
    }
}

impl FileWorker {
    /// Ends when every rank has come here as often as this one.
    fn meet(&mut self) -> Result<()> {
        self.steps += 1;
        self.misbehave()?;
        let place = |rank: usize| self.folder.join(format!("step-{}-{}-{rank}", self.meeting, self.steps));
        fs::write(place(self.config.rank), "").unwrap();
        let end = Instant::now() + self.config.deadline;
        while !(0..self.config.ranks).all(|rank| place(rank).exists()) {
            if self.abort.requested() {
                return Err(Error::machine("aborted", "see why"));
            }
            if Instant::now() > end {
                return Err(Error::machine("timed out", "see the others"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn misbehave(&self) -> Result<()> {
        let mut parts = self.fault.split(':');
        let kind = parts.next().unwrap_or_default();
        let mine: Vec<u64> = parts.map(|part| part.parse().unwrap()).collect();
        if mine != [self.config.rank as u64, self.steps] {
            return Ok(());
        }
        match kind {
            "fail" => Err(Error::machine("out of memory", "take less")),
            // As inside a native call that nobody can end.
            "hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            "bug" => panic!("an index out of range"),
            other => unreachable!("no fault {other}"),
        }
    }
}

impl Worker for FileWorker {
    fn prepare(&mut self, _task: &Task) -> Result<u64> {
        self.meet().map(|()| 0)
    }

    fn time(&mut self, pipelined: u64, isolated: u64) -> Result<RankTiming> {
        for _ in 0..=isolated {
            self.meet()?;
        }
        let ns = (1.0 + self.config.rank as f64) * pipelined as f64;
        Ok(RankTiming { pipelined_ns: ns, isolated_ns: vec![2.0 * ns; isolated as usize] })
    }

    fn release(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The whole process: never returns.
pub fn live() -> ! {
    let code = match rank() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bubblebench: {error}");
            i32::from(error.exit_code())
        }
    };
    bubblebench::machine::leave(code)
}

fn rank() -> Result<()> {
    let _watch = ProcessWatch::start()?;
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let config = GroupConfig {
        transport: Arc::new(Files {
            folder: folder.clone(),
            fault: std::env::var(FAULT).unwrap_or_default(),
            groups: AtomicU8::new(0),
        }),
        deadline: Duration::from_millis(number(DEADLINE_MS)),
        interrupted: watch::interrupted,
        last_resort: |_| {},
    };
    let environment = RankEnvironment::detect()?.expect("a launcher's variables");
    if environment.rank > 0 {
        return ranks::follow(&environment, &config, environment.local_rank as u32);
    }
    let mut coordinator = ranks::lead(&environment, &config, 0, &|text| eprintln!("note: {text}"))?;
    for case in 0..number(CASES) {
        let exchange = Exchange::new(CollectiveOperation::AllReduce, 1024 + case as usize, environment.ranks);
        let task = Task { exchange, dtype: Element::Bf16, graph: false, registered: false, max_ctas: None };
        assert_eq!(coordinator.prepare(&task)?.wrong, 0);
        let timing = coordinator.time(10, 2)?;
        assert_eq!((timing.pipelined_ns, timing.isolated_ns.len()), (10.0 * environment.ranks as f64, 2));
        assert_eq!(timing.by_rank.len(), environment.ranks);
        fs::write(folder.join("cases"), (case + 1).to_string()).unwrap();
    }
    coordinator.finish()
}
