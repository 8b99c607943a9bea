//! Rank 0's side of all ranks together: a command goes to everybody, the replies come back, the slowest counts.
//!
//! A rank is a thread of this process or a process of its own; [`Coordinator`] does not tell them apart. Every wait is bounded:
//! a rank that dies, falls silent, fails or does not answer ends the group, everybody is told why, and the error names it.

use super::failure::{self, RankOutcome, Scope};
use super::link::{Link, beat_interval};
use super::message::Message;
use super::protocol::{Command, Joining, Reply};
use super::rank_info::{self, RankInfo};
use super::rank_thread::{RankThread, RankThreadConfig};
use super::worker::{RankTiming, Task, Transport};
use crate::units::counted;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often a wait looks whether somebody asked to stop.
const TICK: Duration = Duration::from_millis(50);
/// What a reply may take beyond the deadline, within which a worker gives up by itself.
const MARGIN: Duration = Duration::from_millis(1000);
/// Of one value of one rank, on a slow or shared core.
const CHECK_NS: u64 = 4;
/// How long the others may still say what they know when one rank has failed.
const SETTLE: Duration = Duration::from_millis(1000);
/// How long threads may take to end once the group has.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a rank lets the coordinator know.
#[derive(Debug)]
pub(super) enum RankEvent {
    Reply(u64, Reply),
    /// Its process is gone, or does not answer.
    Lost(String),
    /// It was told to stop (Ctrl-C, SIGTERM), or failed outside a command.
    Leaving(String),
}

pub(super) type Note = (usize, RankEvent);

/// How a rank is reached.
enum Way {
    Thread(RankThread),
    Process(Link),
}

pub struct Coordinator {
    members: Vec<RankInfo>,
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
pub struct GroupTiming {
    /// Of the slowest rank.
    pub pipelined_ns: f64,
    /// Of the slowest rank of each operation.
    pub isolated_ns: Vec<f64>,
    pub by_rank: Vec<RankTiming>,
}

/// What the check of a case says, and what the transport says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPrepared {
    /// Over all ranks.
    pub wrong: u64,
    pub facts: Map<String, Value>,
}

/// What holds for all ranks of a group.
#[derive(Clone)]
pub struct GroupConfig {
    pub transport: Arc<dyn Transport>,
    /// The bound of every wait on another rank.
    pub deadline: Duration,
    /// Whether somebody asked to stop (Ctrl-C).
    pub interrupted: fn() -> bool,
    /// Called once all is over, with the reason: ends the process where it does not end by itself.
    pub last_resort: fn(&Error),
}

impl Coordinator {
    /// A thread a rank, all in this process; rank r on `devices[r]`.
    pub fn of_threads(config: &GroupConfig, devices: &[u32]) -> Result<Self> {
        let (tell, inbox) = channel();
        let mut coordinator = Coordinator::empty(config, inbox);
        for (rank, &device) in devices.iter().enumerate() {
            let who = rank_info::this_process(rank, device, config.transport.as_ref())?;
            coordinator.add_thread(who, &tell)?;
        }
        Ok(coordinator)
    }

    /// Rank 0 as a thread, everybody else at the other end of a link.
    pub(super) fn of_processes(
        config: &GroupConfig,
        me: RankInfo,
        others: Vec<(RankInfo, Link)>,
        mail: (Sender<Note>, Receiver<Note>),
    ) -> Result<Self> {
        let (tell, inbox) = mail;
        let mut coordinator = Coordinator::empty(config, inbox);
        coordinator.add_thread(me, &tell)?;
        for (who, link) in others {
            coordinator.members.push(who);
            coordinator.ways.push(Way::Process(link));
        }
        Ok(coordinator)
    }

    fn empty(config: &GroupConfig, inbox: Receiver<Note>) -> Self {
        Coordinator {
            members: Vec::new(),
            ways: Vec::new(),
            inbox,
            transport: Arc::clone(&config.transport),
            deadline: config.deadline,
            interrupted: config.interrupted,
            last_resort: config.last_resort,
            number: 0,
            joined: 0,
            task: None,
            over: None,
        }
    }

    fn add_thread(&mut self, who: RankInfo, tell: &Sender<Note>) -> Result<()> {
        let (rank, tell) = (who.rank, tell.clone());
        let config = RankThreadConfig {
            transport: Arc::clone(&self.transport),
            rank,
            device: who.device,
            deadline: self.deadline,
        };
        // Once the group is gone nobody is left to hear it.
        let thread =
            RankThread::open(config, move |number, reply| drop(tell.send((rank, RankEvent::Reply(number, reply)))))?;
        self.members.push(who);
        self.ways.push(Way::Thread(thread));
        Ok(())
    }

    pub fn ranks(&self) -> usize {
        self.members.len()
    }

    /// The bound of every wait on another rank.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// As records name the way the data goes.
    pub fn transport(&self) -> &'static str {
        self.transport.name()
    }

    pub fn members(&self) -> &[RankInfo] {
        &self.members
    }

    /// Hosts that the first `ranks` are on.
    pub fn nodes(&self, ranks: usize) -> usize {
        rank_info::nodes(&self.members[..ranks.min(self.ranks())])
    }

    /// Most of the first `ranks` that share one GPU.
    pub fn ranks_per_gpu(&self, ranks: usize) -> usize {
        rank_info::ranks_per_gpu(&self.members[..ranks.min(self.ranks())])
    }

    /// The first `ranks` join one communicator, if that is not the one they are in.
    pub fn join(&mut self, ranks: usize) -> Result<()> {
        if ranks == 0 || ranks > self.ranks() {
            return Err(Error::input(
                format!("a case of {}, and there are {}", counted(ranks, "rank"), self.ranks()),
                "start more ranks, or choose other cases",
            ));
        }
        if self.joined == ranks {
            return Ok(());
        }
        self.joined = 0;
        let (nodes, ranks_per_gpu) = (self.nodes(ranks), self.ranks_per_gpu(ranks));
        let id = self.transport.meeting_id()?;
        let command = Command::Join(Joining { id, ranks, nodes, ranks_per_gpu });
        // Ranks that cannot meet measure nothing: that is no matter of one case.
        self.ask(command, ranks, Scope::Rank).map_err(|error| match error {
            Error::Machine { what, cure } => self.fail(Error::rank(what, cure)),
            error => error,
        })?;
        self.joined = ranks;
        Ok(())
    }

    /// Every rank lays its buffers out and checks one run of the task; the former task's buffers are freed before.
    pub fn prepare(&mut self, task: &Task) -> Result<GroupPrepared> {
        let ranks = task.exchange.ranks;
        self.release()?;
        self.join(ranks)?;
        self.task = Some(task.clone());
        let replies = self.ask(Command::Prepare(task.clone()), ranks, Scope::Case)?;
        let mut prepared = GroupPrepared { wrong: 0, facts: Map::new() };
        for (rank, reply) in replies.into_iter().enumerate() {
            let Reply::Prepared { wrong, facts } = reply else { return Err(confused(&reply)) };
            prepared.wrong += wrong;
            if rank == 0 {
                prepared.facts = facts;
            }
        }
        Ok(prepared)
    }

    /// `pipelined` operations back to back, then `isolated` ones on their own, of the task prepared last.
    pub fn time(&mut self, pipelined: u64, isolated: u64) -> Result<GroupTiming> {
        if self.joined == 0 {
            return Err(Error::input("a collective was timed unprepared", "prepare it first"));
        }
        let replies = self.ask(Command::Time { pipelined, isolated }, self.joined, Scope::Case)?;
        let by_rank: Vec<RankTiming> = replies
            .into_iter()
            .map(|reply| if let Reply::Timed(timing) = reply { Ok(timing) } else { Err(confused(&reply)) })
            .collect::<Result<_>>()?;
        let slowest = |times: &dyn Fn(&RankTiming) -> Option<f64>| by_rank.iter().filter_map(times).fold(0.0, f64::max);
        Ok(GroupTiming {
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
            Some(_) if self.joined > 0 => self.ask(Command::Release, self.joined, Scope::Rank).map(drop),
            _ => Ok(()),
        }
    }

    /// Everybody goes home in good order.
    pub fn finish(&mut self) -> Result<()> {
        if self.over.is_none() {
            self.ask(Command::Finish, self.ranks(), Scope::Rank)?;
            self.over = Some("the run is complete".into());
            self.shut_down();
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
                Way::Thread(thread) => thread.abort(),
                // One that cannot be told finds its connection closed.
                Way::Process(link) => drop(link.send(&Message::End { why: why.into() })),
            }
        }
        self.shut_down();
    }

    /// Threads end by themselves within a moment, or are left behind; links close.
    fn shut_down(&mut self) {
        let end = Instant::now() + PATIENCE;
        for way in self.ways.drain(..) {
            if let Way::Thread(thread) = way {
                thread.close(end.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// The replies by rank of the first `ranks`. Anything else than a reply from each in time is an error: of the case
    /// where all are alive and none could do it, else of the whole group.
    fn ask(&mut self, command: Command, ranks: usize, scope: Scope) -> Result<Vec<Reply>> {
        if let Some(why) = &self.over {
            return Err(Error::rank(format!("the ranks have parted: {why}"), failure::AGAIN));
        }
        self.number += 1;
        let doing = self.doing(&command);
        for rank in 0..ranks {
            if let Err(why) = self.send(rank, &command) {
                return Err(self.fail(failure::lost(&self.members[rank], &doing, &why)));
            }
        }
        let mut replies = vec![RankOutcome::None; ranks];
        let begun = Instant::now();
        let mut until = begun + self.deadline + MARGIN + checking(&command);
        while replies.contains(&RankOutcome::None) {
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
                Ok((rank, RankEvent::Reply(number, reply))) if number == self.number && rank < ranks => {
                    if let Reply::Failed { .. } = reply {
                        until = until.min(Instant::now() + SETTLE);
                    }
                    replies[rank] = RankOutcome::of(reply, begun.elapsed());
                }
                // Late, from a command that has been given up.
                Ok((_, RankEvent::Reply(..))) => {}
                // Who has finished may go.
                Ok((rank, RankEvent::Lost(_))) if command == Command::Finish && replies[rank] != RankOutcome::None => {}
                Ok((rank, RankEvent::Lost(why) | RankEvent::Leaving(why))) => {
                    return Err(self.fail(failure::lost(&self.members[rank], &doing, &why)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.attribute(replies, &doing, scope)
    }

    fn attribute(&mut self, replies: Vec<RankOutcome>, doing: &str, scope: Scope) -> Result<Vec<Reply>> {
        let silent = |rank: usize| match &self.ways[rank] {
            Way::Process(link) => Some(link.silence()).filter(|silence| *silence > 4 * beat_interval(self.deadline)),
            Way::Thread(_) => None,
        };
        match failure::attribute(&self.members, replies, doing, self.deadline, scope, silent) {
            Ok(replies) => Ok(replies),
            Err(failure::GroupFault::Case(error)) => {
                // What the ranks gave up may have ended their communicator: the next case makes another.
                self.joined = 0;
                Err(error)
            }
            Err(failure::GroupFault::Group(error)) => Err(self.fail(error)),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        (self.last_resort)(&error);
        self.end(&error.to_string());
        error
    }

    fn send(&self, rank: usize, command: &Command) -> Result<(), String> {
        match &self.ways[rank] {
            Way::Thread(thread) if thread.command(self.number, command.clone()) => Ok(()),
            Way::Thread(_) => Err("its thread has ended".into()),
            Way::Process(link) => {
                let message = Message::Command { number: self.number, command: command.clone() };
                link.send(&message).map_err(|e| format!("it cannot be reached ({e}), so it has ended or was killed"))
            }
        }
    }

    fn doing(&self, command: &Command) -> String {
        match (command, &self.task) {
            (Command::Time { .. }, Some(task)) => format!("timing {task}"),
            _ => command.to_string(),
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end("rank 0 has ended; its own message says why");
    }
}

/// What making and comparing a case's values may take the ranks' hosts, which wait for nobody meanwhile.
fn checking(command: &Command) -> Duration {
    let Command::Prepare(Task { exchange, .. }) = command else { return Duration::ZERO };
    let (elements, ranks) = (exchange.elements as u64, exchange.ranks as u64);
    Duration::from_nanos(elements.saturating_mul(ranks + 8).saturating_mul(CHECK_NS))
}

fn confused(reply: &Reply) -> Error {
    Error::bug(format!("a rank answered {reply:?} to another question"))
}
