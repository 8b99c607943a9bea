//! Rank 0 waits for the others at its port until all have joined or the deadline is over. Strangers are turned away and
//! the wait goes on; a rank of the same job that does not fit (a second rank 3, another number of ranks, another
//! version of the program) ends the rendezvous for all, because it cannot succeed any more.

use super::coordinator::{Coordinator, GroupConfig, Note, RankEvent};
use super::environment::RankEnvironment;
use super::failure;
use super::handshake::{self, HandshakeFailure, Newcomer, Party};
use super::link::{Heard, Link};
use super::message::Message;
use super::rank_info::{self, RankInfo};
use super::token::{self, Token, TokenFile};
use crate::{Error, Result};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(10);
/// How long a caller may take over each message of the handshake.
const CONVERSATION: Duration = Duration::from_secs(5);
/// Within this time a port that the run before has just left is free again.
const PORT_PATIENCE: Duration = Duration::from_secs(3);
/// Number of strangers that are reported; the others are only turned away.
const STRANGERS_NAMED: usize = 5;
/// Most handshakes at a time.
const MOST_CONVERSATIONS: usize = 128;

type Conversation = (SocketAddr, Result<(Newcomer, TcpStream), HandshakeFailure>);

/// Waits on rank 0 for all other ranks and returns the complete group, with rank 0 on CUDA device `device`; `notes` is
/// given lines for the user. An error where a rank does not come within the deadline, does not fit or is lost, where
/// the token is missing or the port taken, or when somebody asked to stop.
pub fn lead(
    environment: &RankEnvironment,
    config: &GroupConfig,
    device: u32,
    notes: &dyn Fn(String),
) -> Result<Coordinator> {
    let me = rank_info::this_process(0, device, config.transport.as_ref())?;
    let given = std::env::var(token::VARIABLE).ok().filter(|text| !text.is_empty()).map(Token::new).transpose()?;
    let private = environment.one_host && given.is_none();
    if given.is_none() && !environment.one_host {
        return Err(token_missing());
    }
    let listener = listen(environment, private, config.deadline)?;
    let file = private.then(|| TokenFile::of_port(environment.port));
    let token = match given {
        Some(token) => token,
        None => Token::random()?,
    };
    if let Some(file) = &file {
        file.write(&token)?;
        notes(format!("{} is not set: made {} for the ranks of this host", token::VARIABLE, token.text()));
    }
    let (tell, inbox) = channel();
    let mut meeting = Meeting {
        environment,
        config,
        party: Party::new(environment.ranks, environment.job.clone()),
        admitted: (0..environment.ranks).map(|_| None).collect(),
        tell,
        inbox,
        strangers: 0,
        notes,
    };
    let met = meeting.wait(&listener, &token);
    if let Some(file) = &file {
        file.remove();
    }
    if let Err(error) = met {
        meeting.dissolve(&error.to_string());
        return Err(error);
    }
    let Meeting { admitted, tell, inbox, .. } = meeting;
    Coordinator::of_processes(config, me, admitted.into_iter().flatten().collect(), (tell, inbox))
}

pub fn token_missing() -> Error {
    Error::input(
        format!("{} is not set, and the ranks are not known to be on one host", token::VARIABLE),
        "give every rank the same secret: export BUBBLEBENCH_TOKEN=$(openssl rand -hex 16) before srun; mpirun -x BUBBLEBENCH_TOKEN",
    )
}

/// Where the token is in a file of this host, only this host can reach the port. Otherwise it is open on every
/// interface: MASTER_ADDR may be the name of a service in front of it.
fn listen(environment: &RankEnvironment, private: bool, deadline: Duration) -> Result<TcpListener> {
    let port = environment.port;
    let any = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    let own: Vec<SocketAddr> = match environment.address.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(ip) if private && ip.is_loopback() => vec![(ip, port).into()],
        _ if private && environment.address == "localhost" => vec![(Ipv4Addr::LOCALHOST, port).into()],
        _ => any.to_vec(),
    };
    let until = Instant::now() + PORT_PATIENCE.min(deadline);
    loop {
        let mut taken = None;
        for address in &own {
            match TcpListener::bind(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => taken = Some(error),
            }
        }
        let Some(error) = taken.filter(|_| Instant::now() >= until) else {
            std::thread::sleep(LOOK * 10);
            continue;
        };
        let what = format!("rank 0 cannot wait for the others at port {port} of this host: {error}");
        let cure = match error.kind() {
            io::ErrorKind::AddrInUse => "another run or program has it: set MASTER_PORT to a free port on every rank",
            _ => "set MASTER_PORT to a port that this user may open, on every rank",
        };
        return Err(Error::machine(what, cure));
    }
}

struct Meeting<'a> {
    environment: &'a RankEnvironment,
    config: &'a GroupConfig,
    party: Party,
    /// The ranks that have joined, by rank; place 0 stays empty.
    admitted: Vec<Option<(RankInfo, Link)>>,
    tell: Sender<Note>,
    inbox: Receiver<Note>,
    strangers: usize,
    notes: &'a dyn Fn(String),
}

impl Meeting<'_> {
    fn wait(&mut self, listener: &TcpListener, token: &Token) -> Result<()> {
        let io =
            |e: io::Error| Error::machine(format!("rank 0 cannot wait for the others: {e}"), "try another MASTER_PORT");
        listener.set_nonblocking(true).map_err(io)?;
        let until = Instant::now() + self.config.deadline;
        let (done, conversations) = channel::<Conversation>();
        let mut talking = 0;
        while self.missing().next().is_some() {
            if (self.config.interrupted)() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= until {
                return Err(self.too_few());
            }
            while talking < MOST_CONVERSATIONS
                && let Ok((stream, from)) = listener.accept()
            {
                talk(stream, from, token.clone(), done.clone()).map_err(io)?;
                talking += 1;
            }
            while let Ok((from, outcome)) = conversations.try_recv() {
                talking -= 1;
                match outcome {
                    Ok((newcomer, stream)) => self.admit(newcomer, stream)?,
                    Err(failure) => self.turn_away(from, failure),
                }
            }
            if let Ok((rank, RankEvent::Lost(why) | RankEvent::Leaving(why))) = self.inbox.try_recv()
                && let Some((who, _)) = &self.admitted[rank]
            {
                return Err(failure::lost(who, "waiting for the other ranks", &why));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn missing(&self) -> impl Iterator<Item = usize> {
        self.admitted.iter().enumerate().skip(1).filter(|(_, member)| member.is_none()).map(|(rank, _)| rank)
    }

    /// Admits a newcomer; an error ends the rendezvous. One of another job is turned away.
    fn admit(&mut self, newcomer: Newcomer, mut stream: TcpStream) -> Result<()> {
        let who = newcomer.who.clone();
        if newcomer.party.job != self.party.job {
            handshake::refuse(&mut stream, "it belongs to another job than rank 0", false);
            (self.notes)(format!("{who} belongs to another job and was turned away"));
            return Ok(());
        }
        if let Some(why) = self.objection(&newcomer) {
            handshake::refuse(&mut stream, &why, false);
            return Err(Error::rank(why, "start every rank once, with the same program and the same number of ranks"));
        }
        let io = |e: io::Error| failure::lost(&who, "joining", &e.to_string());
        handshake::accept(&mut stream, &newcomer).map_err(io)?;
        let (rank, tell) = (who.rank, self.tell.clone());
        let report = move |heard| drop(tell.send((rank, event(heard))));
        self.admitted[rank] = Some((who.clone(), Link::start(stream, self.config.deadline, report).map_err(io)?));
        Ok(())
    }

    fn objection(&self, newcomer: &Newcomer) -> Option<String> {
        let (who, party) = (&newcomer.who, &newcomer.party);
        if party.program != self.party.program {
            return Some(format!("{who} runs bubblebench {} and rank 0 {}", party.program, self.party.program));
        }
        if party.ranks != self.party.ranks {
            return Some(format!(
                "{who} was started as one of {} ranks and rank 0 as one of {}",
                party.ranks, self.party.ranks
            ));
        }
        match self.admitted.get(who.rank) {
            Some(None) if who.rank > 0 => None,
            Some(Some((first, _))) => Some(format!("{who} and {first} both call themselves rank {}", who.rank)),
            _ => Some(format!("{who} calls itself rank {} and cannot be", who.rank)),
        }
    }

    fn turn_away(&mut self, from: SocketAddr, failure: HandshakeFailure) {
        let why = match failure {
            HandshakeFailure::Token => "it does not know the token".into(),
            HandshakeFailure::Broken(why) | HandshakeFailure::Refused(why) => why,
        };
        self.strangers += 1;
        if self.strangers <= STRANGERS_NAMED {
            (self.notes)(format!("a caller from {} was turned away: {why}", from.ip()));
        }
    }

    fn too_few(&self) -> Error {
        let missing: Vec<usize> = self.missing().collect();
        let strangers = match self.strangers {
            0 => String::new(),
            count => format!(" ({count} callers were turned away)"),
        };
        let RankEnvironment { address, port, ranks, .. } = self.environment;
        Error::rank(
            format!(
                "{} of {ranks} did not come to {address}:{port} within {:.0} s{strangers}",
                rank_info::list(&missing),
                self.config.deadline.as_secs_f64()
            ),
            "see those ranks' own messages; --deadline waits longer",
        )
    }

    /// Tells the ranks that have joined why the run does not begin.
    fn dissolve(&self, why: &str) {
        for (_, link) in self.admitted.iter().flatten() {
            // One that cannot be told finds its connection closed.
            let _ = link.send(&Message::End { why: why.into() });
        }
    }
}

/// A handshake on a thread of its own, so that a caller that says nothing does not delay the others.
fn talk(mut stream: TcpStream, from: SocketAddr, token: Token, done: Sender<Conversation>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONVERSATION))?;
    stream.set_write_timeout(Some(CONVERSATION))?;
    std::thread::Builder::new().name("handshake".into()).spawn(move || {
        let outcome = handshake::examine(&mut stream, &token).map(|newcomer| (newcomer, stream));
        // After the rendezvous nothing receives it any more.
        let _ = done.send((from, outcome));
    })?;
    Ok(())
}

fn event(heard: Heard) -> RankEvent {
    match heard {
        Heard::Message(Message::Reply { number, reply }) => RankEvent::Reply(number, reply),
        Heard::Message(Message::Leaving { why }) => RankEvent::Leaving(why),
        Heard::Message(other) => RankEvent::Lost(format!("it sent {other:?}, which no rank should")),
        Heard::Lost(why) => RankEvent::Lost(why),
    }
}
