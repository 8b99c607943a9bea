//! Rank 0's side of all ranks together: an order goes to everybody, the answers come back, the slowest counts.
//!
//! A rank is a thread of this process or a process of its own; [`Crew`] does not tell them apart. Every wait is bounded:
//! a rank that dies, falls silent, fails or does not answer ends the crew, everybody is told why, and the error names it.

use super::link::{Link, beat_interval};
use super::orders::{Answer, Joining, Order};
use super::post::{Post, Posting};
use super::verdict::{self, Blame, Reply};
use super::who::{self, Who};
use super::wire::Letter;
use super::worker::{RankTiming, Task, Transport};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often a wait looks whether somebody asked to stop.
const TICK: Duration = Duration::from_millis(50);
/// What an answer may take beyond the deadline, within which a worker gives up by itself.
const MARGIN: Duration = Duration::from_millis(1000);
/// Of one value of one rank, on a slow or shared core.
const CHECK_NS: u64 = 4;
/// How long the others may still say what they know when one rank has failed.
const SETTLE: Duration = Duration::from_millis(1000);
/// How long threads may take to end once the crew has.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a rank lets the crew know.
#[derive(Debug)]
pub(super) enum Event {
    Answer(u64, Answer),
    /// Its process is gone, or does not answer.
    Lost(String),
    /// It was told to stop (Ctrl-C, SIGTERM), or failed outside an order.
    Leaving(String),
}

pub(super) type Note = (usize, Event);

/// How a rank is reached.
enum Way {
    Thread(Post),
    Process(Link),
}

pub struct Crew {
    people: Vec<Who>,
    ways: Vec<Way>,
    inbox: Receiver<Note>,
    transport: Arc<dyn Transport>,
    deadline: Duration,
    interrupted: fn() -> bool,
    last_resort: fn(&Error),
    number: u64,
    /// Ranks in the communicator that everyone has joined.
    joined: usize,
    task: Option<Task>,
    /// Why it is over.
    over: Option<String>,
}

/// One sample of all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct CrewTiming {
    /// Of the slowest rank.
    pub pipelined_ns: f64,
    /// Of the slowest rank of each operation.
    pub isolated_ns: Vec<f64>,
    pub by_rank: Vec<RankTiming>,
}

/// What the check of a case says, and what the transport says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Over all ranks.
    pub wrong: u64,
    pub facts: Map<String, Value>,
}

/// What holds for all ranks of a crew.
#[derive(Clone)]
pub struct Terms {
    pub transport: Arc<dyn Transport>,
    /// The bound of every wait on another rank.
    pub deadline: Duration,
    /// Whether somebody asked to stop (Ctrl-C).
    pub interrupted: fn() -> bool,
    /// Called once all is over, with the reason: ends the process where it does not end by itself.
    pub last_resort: fn(&Error),
}

impl Crew {
    /// A thread a rank, all in this process; rank r on `devices[r]`.
    pub fn of_threads(terms: &Terms, devices: &[u32]) -> Result<Self> {
        let (tell, inbox) = channel();
        let mut crew = Crew::empty(terms, inbox);
        for (rank, &device) in devices.iter().enumerate() {
            let who = who::this_process(rank, device, terms.transport.as_ref())?;
            crew.add_thread(who, &tell)?;
        }
        Ok(crew)
    }

    /// Rank 0 as a thread, everybody else at the other end of a link.
    pub(super) fn of_processes(
        terms: &Terms,
        me: Who,
        others: Vec<(Who, Link)>,
        post: (Sender<Note>, Receiver<Note>),
    ) -> Result<Self> {
        let (tell, inbox) = post;
        let mut crew = Crew::empty(terms, inbox);
        crew.add_thread(me, &tell)?;
        for (who, link) in others {
            crew.people.push(who);
            crew.ways.push(Way::Process(link));
        }
        Ok(crew)
    }

    fn empty(terms: &Terms, inbox: Receiver<Note>) -> Self {
        Crew {
            people: Vec::new(),
            ways: Vec::new(),
            inbox,
            transport: Arc::clone(&terms.transport),
            deadline: terms.deadline,
            interrupted: terms.interrupted,
            last_resort: terms.last_resort,
            number: 0,
            joined: 0,
            task: None,
            over: None,
        }
    }

    fn add_thread(&mut self, who: Who, tell: &Sender<Note>) -> Result<()> {
        let (rank, tell) = (who.rank, tell.clone());
        let posting =
            Posting { transport: Arc::clone(&self.transport), rank, device: who.device, deadline: self.deadline };
        // Once the crew is gone nobody is left to hear it.
        let post = Post::open(posting, move |number, answer| drop(tell.send((rank, Event::Answer(number, answer)))))?;
        self.people.push(who);
        self.ways.push(Way::Thread(post));
        Ok(())
    }

    pub fn ranks(&self) -> usize {
        self.people.len()
    }

    /// The bound of every wait on another rank.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// As records name the way the data goes.
    pub fn transport(&self) -> &'static str {
        self.transport.name()
    }

    pub fn people(&self) -> &[Who] {
        &self.people
    }

    /// Hosts that the first `ranks` are on.
    pub fn nodes(&self, ranks: usize) -> usize {
        who::nodes(&self.people[..ranks.min(self.ranks())])
    }

    /// Most of the first `ranks` that share one GPU.
    pub fn ranks_per_gpu(&self, ranks: usize) -> usize {
        who::ranks_per_gpu(&self.people[..ranks.min(self.ranks())])
    }

    /// The first `ranks` join one communicator, if that is not the one they are in.
    pub fn join(&mut self, ranks: usize) -> Result<()> {
        if ranks == 0 || ranks > self.ranks() {
            return Err(Error::input(
                format!("a case of {ranks} ranks, and there are {}", self.ranks()),
                "start more ranks, or choose other cases",
            ));
        }
        if self.joined == ranks {
            return Ok(());
        }
        self.joined = 0;
        let (nodes, ranks_per_gpu) = (self.nodes(ranks), self.ranks_per_gpu(ranks));
        let id = self.transport.meeting_id()?;
        let order = Order::Join(Joining { id, ranks, nodes, ranks_per_gpu });
        // Ranks that cannot meet measure nothing: that is no matter of one case.
        self.ask(order, ranks, Blame::Rank).map_err(|error| match error {
            Error::Machine { what, cure } => self.fail(Error::rank(what, cure)),
            error => error,
        })?;
        self.joined = ranks;
        Ok(())
    }

    /// Every rank lays its buffers out and checks one run of the task; the former task's buffers are freed before.
    pub fn prepare(&mut self, task: &Task) -> Result<Prepared> {
        let ranks = task.exchange.ranks;
        self.release()?;
        self.join(ranks)?;
        self.task = Some(task.clone());
        let answers = self.ask(Order::Prepare(task.clone()), ranks, Blame::Case)?;
        let mut prepared = Prepared { wrong: 0, facts: Map::new() };
        for (rank, answer) in answers.into_iter().enumerate() {
            let Answer::Prepared { wrong, facts } = answer else { return Err(confused(&answer)) };
            prepared.wrong += wrong;
            if rank == 0 {
                prepared.facts = facts;
            }
        }
        Ok(prepared)
    }

    /// `pipelined` operations back to back, then `isolated` ones on their own, of the task prepared last.
    pub fn time(&mut self, pipelined: u64, isolated: u64) -> Result<CrewTiming> {
        if self.joined == 0 {
            return Err(Error::input("a collective was timed unprepared", "prepare it first"));
        }
        let answers = self.ask(Order::Time { pipelined, isolated }, self.joined, Blame::Case)?;
        let by_rank: Vec<RankTiming> = answers
            .into_iter()
            .map(|answer| if let Answer::Timed(timing) = answer { Ok(timing) } else { Err(confused(&answer)) })
            .collect::<Result<_>>()?;
        let slowest = |times: &dyn Fn(&RankTiming) -> Option<f64>| by_rank.iter().filter_map(times).fold(0.0, f64::max);
        Ok(CrewTiming {
            pipelined_ns: slowest(&|timing| Some(timing.pipelined_ns)),
            isolated_ns: (0..isolated as usize)
                .map(|i| slowest(&|timing| timing.isolated_ns.get(i).copied()))
                .collect(),
            by_rank,
        })
    }

    /// The case's buffers are freed on every rank.
    pub fn release(&mut self) -> Result<()> {
        match self.task.take() {
            Some(_) if self.joined > 0 => self.ask(Order::Release, self.joined, Blame::Rank).map(drop),
            _ => Ok(()),
        }
    }

    /// Everybody goes home in good order.
    pub fn finish(&mut self) -> Result<()> {
        if self.over.is_none() {
            self.ask(Order::Finish, self.ranks(), Blame::Rank)?;
            self.over = Some("the run is complete".into());
            self.go_home();
        }
        Ok(())
    }

    /// It is over for everybody, because of something that happened on rank 0.
    pub fn end(&mut self, why: &str) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(why.into());
        for way in &self.ways {
            match way {
                Way::Thread(post) => post.abort(),
                // One that cannot be told finds its connection closed.
                Way::Process(link) => drop(link.send(&Letter::End { why: why.into() })),
            }
        }
        self.go_home();
    }

    /// Threads end by themselves within a moment, or are left behind; links close.
    fn go_home(&mut self) {
        let end = Instant::now() + PATIENCE;
        for way in self.ways.drain(..) {
            if let Way::Thread(post) = way {
                post.close(end.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// The answers by rank of the first `ranks`. Anything else than an answer from each in time is an error: of the case
    /// where all are alive and none could do it, else of the whole crew.
    fn ask(&mut self, order: Order, ranks: usize, blame: Blame) -> Result<Vec<Answer>> {
        if let Some(why) = &self.over {
            return Err(Error::rank(format!("the ranks have parted: {why}"), verdict::AGAIN));
        }
        self.number += 1;
        let doing = self.doing(&order);
        for rank in 0..ranks {
            if let Err(why) = self.send(rank, &order) {
                return Err(self.fail(verdict::lost(&self.people[rank], &doing, &why)));
            }
        }
        let mut replies = vec![Reply::None; ranks];
        let begun = Instant::now();
        let mut until = begun + self.deadline + MARGIN + checking(&order);
        while replies.contains(&Reply::None) {
            if (self.interrupted)() {
                (self.last_resort)(&Error::Interrupted);
                self.end("rank 0 was interrupted (Ctrl-C or SIGTERM)");
                return Err(Error::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.inbox.recv_timeout(left.min(TICK)) {
                Ok((rank, Event::Answer(number, answer))) if number == self.number && rank < ranks => {
                    if let Answer::Failed { .. } = answer {
                        until = until.min(Instant::now() + SETTLE);
                    }
                    replies[rank] = Reply::of(answer, begun.elapsed());
                }
                // Late, from an order that has been given up.
                Ok((_, Event::Answer(..))) => {}
                // Who has finished may go.
                Ok((rank, Event::Lost(_))) if order == Order::Finish && replies[rank] != Reply::None => {}
                Ok((rank, Event::Lost(why) | Event::Leaving(why))) => {
                    return Err(self.fail(verdict::lost(&self.people[rank], &doing, &why)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.judge(replies, &doing, blame)
    }

    fn judge(&mut self, replies: Vec<Reply>, doing: &str, blame: Blame) -> Result<Vec<Answer>> {
        let silent = |rank: usize| match &self.ways[rank] {
            Way::Process(link) => Some(link.silence()).filter(|silence| *silence > 4 * beat_interval(self.deadline)),
            Way::Thread(_) => None,
        };
        match verdict::judge(&self.people, replies, doing, self.deadline, blame, silent) {
            Ok(answers) => Ok(answers),
            Err(verdict::Fault::Case(error)) => {
                // What the ranks gave up may have ended their communicator: the next case makes another.
                self.joined = 0;
                Err(error)
            }
            Err(verdict::Fault::Crew(error)) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        (self.last_resort)(&error);
        self.end(&error.to_string());
        error
    }

    fn send(&self, rank: usize, order: &Order) -> Result<(), String> {
        match &self.ways[rank] {
            Way::Thread(post) if post.order(self.number, order.clone()) => Ok(()),
            Way::Thread(_) => Err("its thread has ended".into()),
            Way::Process(link) => {
                let letter = Letter::Order { number: self.number, order: order.clone() };
                link.send(&letter).map_err(|e| format!("it cannot be reached ({e}), so it has ended or was killed"))
            }
        }
    }

    fn doing(&self, order: &Order) -> String {
        match (order, &self.task) {
            (Order::Time { .. }, Some(task)) => format!("timing {task}"),
            _ => order.to_string(),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.end("rank 0 has ended; its own message says why");
    }
}

/// What making and comparing a case's values may take the ranks' hosts, which wait for nobody meanwhile.
fn checking(order: &Order) -> Duration {
    let Order::Prepare(Task { exchange, .. }) = order else { return Duration::ZERO };
    let (elements, ranks) = (exchange.elements as u64, exchange.ranks as u64);
    Duration::from_nanos(elements.saturating_mul(ranks + 8).saturating_mul(CHECK_NS))
}

fn confused(answer: &Answer) -> Error {
    Error::bug(format!("a rank answered {answer:?} to another question"))
}
