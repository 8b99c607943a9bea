//! A rank's post: the thread on which its worker lives, so that a device stays current there and so that nobody else is
//! stuck where it gets stuck. Orders come through a channel, answers go to whoever opened the post.

use super::orders::{Answer, FailureKind, Joining, Order};
use super::worker::{Abort, Seat, Transport, Worker};
use crate::error::REPORT;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a post is told once, before it hears of anyone.
#[derive(Clone)]
pub struct Posting {
    pub transport: Arc<dyn Transport>,
    pub rank: usize,
    /// CUDA device, as this process counts them.
    pub device: u32,
    pub deadline: Duration,
}

pub struct Post {
    orders: Sender<(u64, Order)>,
    abort: Abort,
    thread: JoinHandle<()>,
}

impl Post {
    /// `report` hears the answer to every order, by the order's number.
    pub fn open(posting: Posting, report: impl Fn(u64, Answer) + Send + 'static) -> Result<Self> {
        let (orders, inbox) = channel();
        let abort = Abort::default();
        let (rank, theirs) = (posting.rank, abort.clone());
        let thread = std::thread::Builder::new()
            .name(format!("rank {rank}"))
            .spawn(move || work(&posting, &theirs, &inbox, report))
            .map_err(|e| Error::machine(format!("cannot start rank {rank}'s thread: {e}"), "use fewer ranks"))?;
        Ok(Post { orders, abort, thread })
    }

    /// False where the thread is gone.
    pub fn order(&self, number: u64, order: Order) -> bool {
        self.orders.send((number, order)).is_ok()
    }

    /// Ends whatever the worker is in; comes back at once.
    pub fn abort(&self) {
        let abort = self.abort.clone();
        // What it runs may itself get stuck.
        let _ = std::thread::Builder::new().name("abort".into()).spawn(move || abort.request());
    }

    /// Waits for the thread to end; false where it still is at something after that long.
    pub fn close(self, patience: Duration) -> bool {
        drop(self.orders);
        let end = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The thread's panics were caught and became answers.
        self.thread.is_finished() && self.thread.join().is_ok()
    }
}

fn work(posting: &Posting, abort: &Abort, inbox: &Receiver<(u64, Order)>, report: impl Fn(u64, Answer)) {
    let mut worker: Option<Box<dyn Worker>> = None;
    while let Ok((number, order)) = inbox.recv() {
        let finish = order == Order::Finish;
        let result = catch_unwind(AssertUnwindSafe(|| obey(posting, abort, &mut worker, order)));
        let answer = match result {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => failed(error),
            Err(panic) => {
                let what = panic_text(panic.as_ref());
                failed(Error::bug(what))
            }
        };
        report(number, answer);
        if finish {
            break;
        }
    }
}

fn failed(error: Error) -> Answer {
    match error {
        Error::Machine { what, cure } | Error::Input { what, cure } => {
            Answer::Failed { what, cure, kind: FailureKind::Case }
        }
        Error::Gpu { what, cure } => Answer::Failed { what, cure, kind: FailureKind::Device },
        Error::Bug { what } => Answer::Failed { what, cure: REPORT.into(), kind: FailureKind::Bug },
        error => {
            let cure = "the cause is named before this".into();
            Answer::Failed { what: error.to_string(), cure, kind: FailureKind::Case }
        }
    }
}

fn obey(posting: &Posting, abort: &Abort, worker: &mut Option<Box<dyn Worker>>, order: Order) -> Result<Answer> {
    let missing = || Error::bug("an order before the ranks have joined");
    match order {
        Order::Join(joining) => {
            // The former communicator goes before the next comes.
            *worker = None;
            *worker = Some(posting.transport.join(&seat(posting, &joining), &joining.id, abort)?);
            Ok(Answer::Done)
        }
        Order::Prepare(task) => {
            let worker = worker.as_mut().ok_or_else(missing)?;
            let wrong = worker.prepare(&task)?;
            Ok(Answer::Prepared { wrong, facts: worker.facts() })
        }
        Order::Time { pipelined, isolated } => {
            worker.as_mut().ok_or_else(missing)?.time(pipelined, isolated).map(Answer::Timed)
        }
        Order::Release => worker.as_mut().ok_or_else(missing)?.release().map(|()| Answer::Done),
        Order::Finish => {
            *worker = None;
            Ok(Answer::Done)
        }
    }
}

fn seat(posting: &Posting, joining: &Joining) -> Seat {
    Seat {
        rank: posting.rank,
        ranks: joining.ranks,
        device: posting.device,
        nodes: joining.nodes,
        ranks_per_gpu: joining.ranks_per_gpu,
        deadline: posting.deadline,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    format!("a panic: {}", text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
}
