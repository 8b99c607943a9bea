//! Every rank but rank 0: it finds rank 0, obeys its commands, and ends when it is told to, when rank 0 is gone, or
//! when somebody stops it — never later.

use super::coordinator::GroupConfig;
use super::environment::RankEnvironment;
use super::handshake::{self, HandshakeFailure, Party};
use super::link::{Heard, Link};
use super::message::Message;
use super::protocol::{Command, FailureKind, Reply};
use super::rank_info::{self, RankInfo};
use super::rank_thread::{RankThread, RankThreadConfig};
use super::rendezvous::token_missing;
use super::token::{self, Token, TokenFile};
use crate::{Error, Result};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(100);
/// What one attempt to reach rank 0 may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long the worker's thread may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// A rank 0 that sends beats but no command for this long is stuck: between two commands it only writes records.
const IDLE: Duration = Duration::from_secs(600);

enum Note {
    Heard(Heard),
    Done(u64, Reply),
}

/// Joins rank 0, the leader at the environment's address, and obeys its commands to the end of the run on CUDA device
/// `device`. An error where it is refused, rank 0 is lost or ends the run, its own work is stuck, or somebody asked to
/// stop.
pub fn follow(environment: &RankEnvironment, config: &GroupConfig, device: u32) -> Result<()> {
    let me = rank_info::this_process(environment.rank, device, config.transport.as_ref())?;
    let stream = reach(environment, config, &me)?;
    let (tell, notes) = channel();
    let heard = tell.clone();
    // After the end nothing receives it any more.
    let link = Link::start(stream, config.deadline, move |what| drop(heard.send(Note::Heard(what))))
        .map_err(|e| Error::rank(format!("rank {}: no connection to rank 0: {e}", me.rank), "start all ranks again"))?;
    let thread = open(config, &me, tell)?;
    let mut member = Member {
        link,
        me,
        leader: format!("rank 0 ({}:{})", environment.address, environment.port),
        interrupted: config.interrupted,
        doing: None,
        bug: None,
    };
    let outcome = member.serve(&thread, &notes);
    if let Err(error) = &outcome {
        (config.last_resort)(error);
        thread.abort();
    }
    thread.close(PATIENCE);
    outcome
}

fn open(config: &GroupConfig, me: &RankInfo, tell: Sender<Note>) -> Result<RankThread> {
    let config = RankThreadConfig {
        transport: Arc::clone(&config.transport),
        rank: me.rank,
        device: me.device,
        deadline: config.deadline,
    };
    RankThread::open(config, move |number, reply| drop(tell.send(Note::Done(number, reply))))
}

struct Member {
    link: Link,
    me: RankInfo,
    leader: String,
    interrupted: fn() -> bool,
    /// The command that it is working on; `None` between two commands.
    doing: Option<String>,
    /// The bug that ended its own worker: what this process ends with, whatever rank 0 makes of it.
    bug: Option<String>,
}

impl Member {
    fn serve(&mut self, thread: &RankThread, notes: &Receiver<Note>) -> Result<()> {
        let mut finishing = None;
        let mut quiet = Instant::now();
        loop {
            if (self.interrupted)() {
                // Rank 0 may be gone as well.
                let _ = self.link.send(&Message::Leaving { why: "it was interrupted (Ctrl-C or SIGTERM)".into() });
                return Err(Error::Interrupted);
            }
            match notes.recv_timeout(TICK) {
                Ok(Note::Heard(Heard::Message(Message::Command { number, command }))) => {
                    quiet = Instant::now();
                    if command == Command::Finish {
                        finishing = Some(number);
                    }
                    self.doing = Some(command.to_string());
                    if !thread.command(number, command) {
                        return Err(self.error("its own thread has ended"));
                    }
                }
                Ok(Note::Done(number, reply)) => {
                    quiet = Instant::now();
                    self.doing = None;
                    if let Reply::Failed { what, kind: FailureKind::Bug, .. } = &reply {
                        self.bug = Some(format!("{}: {what}", self.me));
                    }
                    // A connection that broke is reported by the link.
                    let _ = self.link.send(&Message::Reply { number, reply });
                    if finishing == Some(number) {
                        return Ok(());
                    }
                }
                Ok(Note::Heard(Heard::Message(Message::End { why }))) => {
                    if let Some(bug) = self.bug.take() {
                        return Err(Error::bug(bug));
                    }
                    let (what, cure) = why.rsplit_once("; ").unwrap_or((&why, "start all ranks again"));
                    return Err(Error::rank(format!("{}: ended by rank 0: {what}", self.me), cure));
                }
                Ok(Note::Heard(Heard::Lost(why))) => {
                    return Err(self.error(&format!("{} is lost: {why}", self.leader)));
                }
                Ok(Note::Heard(Heard::Message(other))) => {
                    return Err(self.error(&format!("rank 0 sent {other:?}, which it should not")));
                }
                Err(RecvTimeoutError::Timeout) if quiet.elapsed() > IDLE => {
                    return Err(
                        self.error(&format!("rank 0 is there but has given no command for {} s", IDLE.as_secs()))
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.error("its own threads have ended")),
            }
        }
    }

    fn error(&self, why: &str) -> Error {
        let doing = self.doing.as_deref().unwrap_or("waiting for the next command");
        Error::rank(
            format!("{}, {doing}: {why}", self.me),
            "what was measured is kept on rank 0; start all ranks again to go on",
        )
    }
}

/// A connection to a rank 0 that has proved that it knows the token, or why there is none within the deadline.
fn reach(environment: &RankEnvironment, config: &GroupConfig, me: &RankInfo) -> Result<TcpStream> {
    let given = std::env::var(token::VARIABLE).ok().filter(|text| !text.is_empty()).map(Token::new).transpose()?;
    if given.is_none() && !environment.one_host {
        return Err(token_missing());
    }
    let file = TokenFile::of_port(environment.port);
    let party = Party::new(environment.ranks, environment.job.clone());
    let until = Instant::now() + config.deadline;
    loop {
        let why = match given.clone().map_or_else(|| file.read(), |token| Ok(Some(token)))? {
            None => "rank 0 has not made a token yet".to_string(),
            Some(token) => {
                match attempt(environment, &token, me, &party, until.saturating_duration_since(Instant::now())) {
                    Ok(stream) => return Ok(stream),
                    Err(HandshakeFailure::Refused(why)) => return Err(refused(me, environment, &why)),
                    // A file may still hold the token of the run before.
                    Err(HandshakeFailure::Token) if given.is_none() => {
                        "the token in this host's file is not rank 0's".into()
                    }
                    Err(HandshakeFailure::Token) => {
                        return Err(refused(
                            me,
                            environment,
                            "the token is not rank 0's: give every rank the same BUBBLEBENCH_TOKEN",
                        ));
                    }
                    Err(HandshakeFailure::Broken(why)) => why,
                }
            }
        };
        if (config.interrupted)() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Error::rank(
                format!(
                    "{me} could not join rank 0 at {}:{} within {:.0} s: {why}",
                    environment.address,
                    environment.port,
                    config.deadline.as_secs_f64()
                ),
                "see that rank 0 runs, and that MASTER_ADDR and MASTER_PORT lead to it from this host; --deadline waits longer",
            ));
        }
        std::thread::sleep(RETRY);
    }
}

fn refused(me: &RankInfo, environment: &RankEnvironment, why: &str) -> Error {
    let at = format!("{}:{}", environment.address, environment.port);
    Error::rank(format!("{me} was turned away by rank 0 at {at}: {why}"), "correct that and start all ranks again")
}

fn attempt(
    environment: &RankEnvironment,
    token: &Token,
    me: &RankInfo,
    party: &Party,
    left: Duration,
) -> Result<TcpStream, HandshakeFailure> {
    let host = environment.address.trim_matches(['[', ']']);
    let addresses = addresses(host, environment.port, left)?;
    let mut failure = HandshakeFailure::Broken(format!("the name {host} has no address"));
    for address in addresses {
        let stream = TcpStream::connect_timeout(&address, ATTEMPT);
        let met = stream.map_err(|e| HandshakeFailure::Broken(format!("{address}: {e}"))).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ATTEMPT))?;
            stream.set_write_timeout(Some(ATTEMPT))?;
            handshake::introduce(&mut stream, token, me, party).map(|()| stream)
        });
        match met {
            Ok(stream) => return Ok(stream),
            // Another of its addresses may be the right one.
            Err(why @ HandshakeFailure::Broken(_)) => failure = why,
            Err(decided) => return Err(decided),
        }
    }
    Err(failure)
}

/// A name server that does not answer may hold a look-up for longer than the deadline: it is then left to itself.
fn addresses(host: &str, port: u16, left: Duration) -> Result<Vec<SocketAddr>, HandshakeFailure> {
    if let Ok(ip) = host.parse::<std::net::IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let (tell, told) = channel();
    let name = host.to_string();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // The wait for it may be over.
        let _ = tell.send(found);
    };
    let thread = std::thread::Builder::new().name("name".into()).spawn(look_up);
    let outcome = thread
        .map_err(|e| HandshakeFailure::Broken(format!("no thread to look the name {host} up: {e}")))
        .and_then(|_| {
            told.recv_timeout(left.max(RETRY))
                .map_err(|_| HandshakeFailure::Broken(format!("the name {host} is still being looked up")))
        })?;
    outcome.map_err(|e| HandshakeFailure::Broken(format!("the name {host} does not resolve ({e})")))
}
