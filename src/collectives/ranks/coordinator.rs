//! Rank 0's side of all ranks together: a command goes to everybody, the replies come back, the slowest counts.
//!
//! A rank is a thread of this process or a process of its own; [`Coordinator`] does not tell them apart. Every wait is
//! bounded: a rank that dies, falls silent, fails or does not answer ends the group, everybody is told why, and the
//! error names it.

use super::failure::{self, HangScope, RankOutcome};
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

/// How often a wait checks whether somebody asked to stop.
const TICK: Duration = Duration::from_millis(50);
/// What a reply may take beyond the deadline, within which a worker gives up by itself.
const MARGIN: Duration = Duration::from_millis(1000);
/// Nanoseconds that making or comparing one value of one rank may take, on a slow or shared core.
const CHECK_NS: u64 = 4;
/// How long the other ranks may still reply when one has failed.
const SETTLE: Duration = Duration::from_millis(1000);
/// How long threads may take to end once the group has.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a rank tells the coordinator.
#[derive(Debug)]
pub(super) enum RankEvent {
    Reply(u64, Reply),
    /// The rank's process is gone, or does not answer.
    Lost(String),
    /// The rank was told to stop (Ctrl-C, SIGTERM), or failed outside a command.
    Leaving(String),
}

pub(super) type Note = (usize, RankEvent);

/// How a rank is reached.
enum Way {
    Thread(RankThread),
    Process(Link),
}

/// Rank 0's handle on all ranks of a run: each call sends a command to the ranks and waits for their replies.
pub struct Coordinator {
    members: Vec<RankInfo>,
    ways: Vec<Way>,
    inbox: Receiver<Note>,
    transport: Arc<dyn Transport>,
    deadline: Duration,
    interrupted: fn() -> bool,
    last_resort: fn(&Error),
    number: u64,
    /// Number of ranks in the communicator that was joined last; 0 where there is none.
    joined: usize,
    task: Option<Task>,
    /// Why the run is over for the group; `None` while it goes on.
    over: Option<String>,
}

/// The times of one sample over all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupTiming {
    /// Nanoseconds of the whole pipelined batch on the slowest rank.
    pub pipelined_ns: f64,
    /// Nanoseconds of each isolated operation on the rank that was slowest in it, in the order they ran.
    pub isolated_ns: Vec<f64>,
    /// The times of every rank of the communicator, by rank.
    pub by_rank: Vec<RankTiming>,
}

/// The outcome of a case's check, and what the transport adds to its record.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPrepared {
    /// Number of wrong elements over all ranks; 0 where the result is right.
    pub wrong: u64,
    /// Fields that rank 0's transport adds to the record (see [`Worker::facts`](super::Worker::facts)).
    pub facts: Map<String, Value>,
}

/// The settings that all ranks of a group share.
#[derive(Clone)]
pub struct GroupConfig {
    /// How data moves between the ranks.
    pub transport: Arc<dyn Transport>,
    /// Longest wait for another rank, in joining as well as in an operation.
    pub deadline: Duration,
    /// Tells whether somebody has asked to stop (Ctrl-C, SIGTERM); asked again and again while a rank waits.
    pub interrupted: fn() -> bool,
    /// Called with the reason once the group has failed; it has to end the process where that does not end by itself.
    pub last_resort: fn(&Error),
}

impl Coordinator {
    /// A group whose ranks are threads of this process, rank r on CUDA device `devices[r]`; an error where a device
    /// cannot be identified or a thread does not start.
    pub fn of_threads(config: &GroupConfig, devices: &[u32]) -> Result<Self> {
        let (tell, inbox) = channel();
        let mut coordinator = Coordinator::empty(config, inbox);
        for (rank, &device) in devices.iter().enumerate() {
            let who = rank_info::this_process(rank, device, config.transport.as_ref())?;
            coordinator.add_thread(who, &tell)?;
        }
        Ok(coordinator)
    }

    /// A group whose rank 0 is a thread of this process, and every other rank a process at the other end of a link.
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

    /// Number of ranks in the whole group; a case may use fewer.
    pub fn ranks(&self) -> usize {
        self.members.len()
    }

    /// Longest wait for another rank, as configured.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Name of the transport in records and case names, such as `nccl`.
    pub fn transport(&self) -> &'static str {
        self.transport.name()
    }

    /// Host, process and GPU of every rank, by rank.
    pub fn members(&self) -> &[RankInfo] {
        &self.members
    }

    /// Number of hosts that the first `ranks` ranks run on.
    pub fn nodes(&self, ranks: usize) -> usize {
        rank_info::nodes(&self.members[..ranks.min(self.ranks())])
    }

    /// Largest number of the first `ranks` ranks that share one GPU; 1 where each has its own.
    pub fn ranks_per_gpu(&self, ranks: usize) -> usize {
        rank_info::ranks_per_gpu(&self.members[..ranks.min(self.ranks())])
    }

    /// Lets the first `ranks` ranks join one communicator, if that is not the one they are in. An error for more ranks
    /// than there are, or where one fails or does not join within the deadline, which ends the group.
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
        self.ask(command, ranks, HangScope::Rank).map_err(|error| match error {
            Error::Machine { what, cure } => self.fail(Error::rank(what, cure)),
            error => error,
        })?;
        self.joined = ranks;
        Ok(())
    }

    /// Frees the former task's buffers, then lets every rank lay out those of this task and check one run of it. An
    /// error where no rank can run it (the group goes on), or where some rank fails or does not reply in time (the
    /// group ends).
    pub fn prepare(&mut self, task: &Task) -> Result<GroupPrepared> {
        let ranks = task.exchange.ranks;
        self.release()?;
        self.join(ranks)?;
        self.task = Some(task.clone());
        let replies = self.ask(Command::Prepare(task.clone()), ranks, HangScope::Case)?;
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

    /// Times the task prepared last on every rank: `pipelined` operations back to back, then `isolated` ones on their
    /// own. An error where none was prepared, or as for [`Coordinator::prepare`].
    pub fn time(&mut self, pipelined: u64, isolated: u64) -> Result<GroupTiming> {
        if self.joined == 0 {
            return Err(Error::input("a collective was timed unprepared", "prepare it first"));
        }
        let replies = self.ask(Command::Time { pipelined, isolated }, self.joined, HangScope::Case)?;
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

    /// Frees the task's buffers on every rank; an error where one fails or does not reply in time, which ends the
    /// group.
    pub fn release(&mut self) -> Result<()> {
        match self.task.take() {
            Some(_) if self.joined > 0 => self.ask(Command::Release, self.joined, HangScope::Rank).map(drop),
            _ => Ok(()),
        }
    }

    /// Ends the run in order: every rank finishes and confirms it. An error where one fails or does not reply in time.
    pub fn finish(&mut self) -> Result<()> {
        if self.over.is_none() {
            self.ask(Command::Finish, self.ranks(), HangScope::Rank)?;
            self.over = Some("the run is complete".into());
            self.shut_down();
        }
        Ok(())
    }

    /// Ends the run on all ranks at once, because of something that happened on rank 0; `why` is what the others
    /// report.
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

    /// Sends a command to the first `ranks` ranks and returns their replies by rank. Anything but a good reply from
    /// each in time is an error: of the case where all are alive and none could do it, else of the whole group.
    fn ask(&mut self, command: Command, ranks: usize, scope: HangScope) -> Result<Vec<Reply>> {
        if let Some(why) = &self.over {
            return Err(Error::rank(format!("the ranks have parted: {why}"), failure::AGAIN));
        }
        self.number += 1;
        let doing = self.doing(&command);
        for rank in 0..ranks {
            if let Err(unreached) = self.send(rank, &command) {
                let why = last_words(&self.inbox, rank, SETTLE).unwrap_or(unreached);
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
                // A rank that has finished may close its connection.
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

    fn attribute(&mut self, replies: Vec<RankOutcome>, doing: &str, scope: HangScope) -> Result<Vec<Reply>> {
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

/// How long the ranks' hosts may take to make and compare a case's values, during which they wait for no other rank.
fn checking(command: &Command) -> Duration {
    let Command::Prepare(Task { exchange, .. }) = command else { return Duration::ZERO };
    let (elements, ranks) = (exchange.elements as u64, exchange.ranks as u64);
    Duration::from_nanos(elements.saturating_mul(ranks + 8).saturating_mul(CHECK_NS))
}

/// What a rank said before it went, which may lie in the inbox or still be on its way there: that it cannot be written to is
/// noticed before that is read. `None` if it went without a word, or says nothing within `limit`.
fn last_words(inbox: &Receiver<Note>, rank: usize, limit: Duration) -> Option<String> {
    let until = Instant::now() + limit;
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((from, RankEvent::Leaving(why))) if from == rank => return Some(why),
            Ok((from, RankEvent::Lost(_))) if from == rank => return None,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

fn confused(reply: &Reply) -> Error {
    Error::bug(format!("a rank gave the reply {reply:?} to another command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its connection is found broken before its farewell is read.
    #[test]
    fn a_rank_that_says_why_it_leaves_is_heard() {
        let (tell, inbox) = channel();
        let none = Duration::ZERO;
        tell.send((1, RankEvent::Lost("it broke".into()))).unwrap();
        tell.send((2, RankEvent::Leaving("it was interrupted".into()))).unwrap();
        tell.send((2, RankEvent::Lost("it closed".into()))).unwrap();
        assert_eq!(last_words(&inbox, 2, none).as_deref(), Some("it was interrupted"));
        assert_eq!(last_words(&inbox, 2, none), None, "killed without a word");
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            tell.send((2, RankEvent::Leaving("at last".into())))
        });
        assert_eq!(last_words(&inbox, 2, Duration::from_secs(20)).as_deref(), Some("at last"));
        late.join().unwrap().unwrap();
    }
}
