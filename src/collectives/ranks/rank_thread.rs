//! A rank's thread: its worker lives on it, so that a device stays current there and so that no other thread is stuck
//! where it gets stuck. Commands come through a channel, replies go to the function given at its start.

use super::protocol::{Command, FailureKind, Joining, Reply};
use super::worker::{Abort, RankConfig, Transport, Worker};
use crate::error::REPORT;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a rank's thread is told once, before its first command.
#[derive(Clone)]
pub struct RankThreadConfig {
    pub transport: Arc<dyn Transport>,
    pub rank: usize,
    /// CUDA device, by the number that this process gives it.
    pub device: u32,
    pub deadline: Duration,
}

pub struct RankThread {
    commands: Sender<(u64, Command)>,
    abort: Abort,
    thread: JoinHandle<()>,
}

impl RankThread {
    /// Starts the thread; `report` is called with the reply to every command and the command's number.
    pub fn open(config: RankThreadConfig, report: impl Fn(u64, Reply) + Send + 'static) -> Result<Self> {
        let (commands, inbox) = channel();
        let abort = Abort::default();
        let (rank, theirs) = (config.rank, abort.clone());
        let thread = std::thread::Builder::new()
            .name(format!("rank {rank}"))
            .spawn(move || work(&config, &theirs, &inbox, report))
            .map_err(|e| Error::machine(format!("cannot start rank {rank}'s thread: {e}"), "use fewer ranks"))?;
        Ok(RankThread { commands, abort, thread })
    }

    /// Hands the thread a command; false where the thread is gone.
    pub fn command(&self, number: u64, command: Command) -> bool {
        self.commands.send((number, command)).is_ok()
    }

    /// Asks the worker to abort whatever it is doing; returns at once.
    pub fn abort(&self) {
        let abort = self.abort.clone();
        // The function it runs may itself get stuck.
        let _ = std::thread::Builder::new().name("abort".into()).spawn(move || abort.request());
    }

    /// Waits for the thread to end; false where it is still busy after that long.
    pub fn close(self, patience: Duration) -> bool {
        drop(self.commands);
        let end = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The thread's panics were caught and became replies.
        self.thread.is_finished() && self.thread.join().is_ok()
    }
}

fn work(config: &RankThreadConfig, abort: &Abort, inbox: &Receiver<(u64, Command)>, report: impl Fn(u64, Reply)) {
    let mut worker: Option<Box<dyn Worker>> = None;
    while let Ok((number, command)) = inbox.recv() {
        let finish = command == Command::Finish;
        let result = catch_unwind(AssertUnwindSafe(|| obey(config, abort, &mut worker, command)));
        let reply = match result {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => failed(error),
            Err(panic) => {
                let what = panic_text(panic.as_ref());
                failed(Error::bug(what))
            }
        };
        report(number, reply);
        if finish {
            break;
        }
    }
}

fn failed(error: Error) -> Reply {
    match error {
        Error::Machine { what, cure } | Error::Input { what, cure } => {
            Reply::Failed { what, cure, kind: FailureKind::Case }
        }
        Error::Gpu { what, cure } => Reply::Failed { what, cure, kind: FailureKind::Device },
        Error::Bug { what } => Reply::Failed { what, cure: REPORT.into(), kind: FailureKind::Bug },
        error => {
            let cure = "the cause is named before this".into();
            Reply::Failed { what: error.to_string(), cure, kind: FailureKind::Case }
        }
    }
}

fn obey(
    config: &RankThreadConfig,
    abort: &Abort,
    worker: &mut Option<Box<dyn Worker>>,
    command: Command,
) -> Result<Reply> {
    let missing = || Error::bug("a command before the ranks have joined");
    match command {
        Command::Join(joining) => {
            // The former communicator goes before the next comes.
            *worker = None;
            *worker = Some(config.transport.join(&rank_config(config, &joining), &joining.id, abort)?);
            Ok(Reply::Done)
        }
        Command::Prepare(task) => {
            let worker = worker.as_mut().ok_or_else(missing)?;
            let wrong = worker.prepare(&task)?;
            Ok(Reply::Prepared { wrong, facts: worker.facts() })
        }
        Command::Time { pipelined, isolated } => {
            worker.as_mut().ok_or_else(missing)?.time(pipelined, isolated).map(Reply::Timed)
        }
        Command::Release => worker.as_mut().ok_or_else(missing)?.release().map(|()| Reply::Done),
        Command::Finish => {
            *worker = None;
            Ok(Reply::Done)
        }
    }
}

fn rank_config(config: &RankThreadConfig, joining: &Joining) -> RankConfig {
    RankConfig {
        rank: config.rank,
        ranks: joining.ranks,
        device: config.device,
        nodes: joining.nodes,
        ranks_per_gpu: joining.ranks_per_gpu,
        deadline: config.deadline,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    format!("a panic: {}", text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
}
