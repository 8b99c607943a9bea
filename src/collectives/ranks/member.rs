//! Every rank but rank 0: it finds rank 0, does what it is told, and goes when it is told, when rank 0 is gone, or when
//! somebody stops it — never later.

use super::crew::Terms;
use super::handshake::{self, Failure, Party};
use super::launch::Launch;
use super::link::{Heard, Link};
use super::orders::{Answer, Order};
use super::post::{Post, Posting};
use super::rendezvous::token_missing;
use super::token::{self, Token, TokenFile};
use super::who::{self, Who};
use super::wire::Letter;
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
/// Between two orders rank 0 writes a line and thinks; a rank 0 that beats but gives no order for this long is stuck.
const IDLE: Duration = Duration::from_secs(600);

enum Note {
    Heard(Heard),
    Done(u64, Answer),
}

/// Follows rank 0 to the end of the run.
pub fn follow(launch: &Launch, terms: &Terms, device: u32) -> Result<()> {
    let me = who::this_process(launch.rank, device, terms.transport.as_ref())?;
    let stream = reach(launch, terms, &me)?;
    let (tell, notes) = channel();
    let heard = tell.clone();
    // After the end nobody listens any more.
    let link = Link::start(stream, terms.deadline, move |what| drop(heard.send(Note::Heard(what))))
        .map_err(|e| Error::rank(format!("rank {}: no connection to rank 0: {e}", me.rank), "start all ranks again"))?;
    let post = open(terms, &me, tell)?;
    let mut member = Member {
        link,
        me,
        leader: format!("rank 0 ({}:{})", launch.address, launch.port),
        interrupted: terms.interrupted,
        doing: None,
    };
    let outcome = member.serve(&post, &notes);
    if let Err(error) = &outcome {
        (terms.last_resort)(error);
        post.abort();
    }
    post.close(PATIENCE);
    outcome
}

fn open(terms: &Terms, me: &Who, tell: Sender<Note>) -> Result<Post> {
    let posting =
        Posting { transport: Arc::clone(&terms.transport), rank: me.rank, device: me.device, deadline: terms.deadline };
    Post::open(posting, move |number, answer| drop(tell.send(Note::Done(number, answer))))
}

struct Member {
    link: Link,
    me: Who,
    leader: String,
    interrupted: fn() -> bool,
    /// What it was last told to do, while it does it.
    doing: Option<String>,
}

impl Member {
    fn serve(&mut self, post: &Post, notes: &Receiver<Note>) -> Result<()> {
        let mut finishing = None;
        let mut quiet = Instant::now();
        loop {
            if (self.interrupted)() {
                // Rank 0 may be gone as well.
                let _ = self.link.send(&Letter::Leaving { why: "it was interrupted (Ctrl-C or SIGTERM)".into() });
                return Err(Error::Interrupted);
            }
            match notes.recv_timeout(TICK) {
                Ok(Note::Heard(Heard::Letter(Letter::Order { number, order }))) => {
                    quiet = Instant::now();
                    if order == Order::Finish {
                        finishing = Some(number);
                    }
                    self.doing = Some(order.to_string());
                    if !post.order(number, order) {
                        return Err(self.error("its own thread has ended"));
                    }
                }
                Ok(Note::Done(number, answer)) => {
                    quiet = Instant::now();
                    self.doing = None;
                    // A connection that broke is reported by the link.
                    let _ = self.link.send(&Letter::Answer { number, answer });
                    if finishing == Some(number) {
                        return Ok(());
                    }
                }
                Ok(Note::Heard(Heard::Letter(Letter::End { why }))) => {
                    let (what, cure) = why.rsplit_once("; ").unwrap_or((&why, "start all ranks again"));
                    return Err(Error::rank(format!("{}: ended by rank 0: {what}", self.me), cure));
                }
                Ok(Note::Heard(Heard::Lost(why))) => {
                    return Err(self.error(&format!("{} is lost: {why}", self.leader)));
                }
                Ok(Note::Heard(Heard::Letter(other))) => {
                    return Err(self.error(&format!("rank 0 sent {other:?}, which it should not")));
                }
                Err(RecvTimeoutError::Timeout) if quiet.elapsed() > IDLE => {
                    return Err(self.error(&format!("rank 0 is there but has given no order for {} s", IDLE.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.error("its own threads have ended")),
            }
        }
    }

    fn error(&self, why: &str) -> Error {
        let doing = self.doing.as_deref().unwrap_or("waiting for the next order");
        Error::rank(
            format!("{}, {doing}: {why}", self.me),
            "what was measured is kept on rank 0; start all ranks again to go on",
        )
    }
}

/// A connection to rank 0 that knows the token, or why there is none within the deadline.
fn reach(launch: &Launch, terms: &Terms, me: &Who) -> Result<TcpStream> {
    let given = std::env::var(token::VARIABLE).ok().filter(|text| !text.is_empty()).map(Token::new).transpose()?;
    if given.is_none() && !launch.one_host {
        return Err(token_missing());
    }
    let file = TokenFile::of_port(launch.port);
    let party = Party::new(launch.ranks, launch.job.clone());
    let until = Instant::now() + terms.deadline;
    loop {
        let why = match given.clone().map_or_else(|| file.read(), |token| Ok(Some(token)))? {
            None => "rank 0 has not made a token yet".to_string(),
            Some(token) => match attempt(launch, &token, me, &party, until.saturating_duration_since(Instant::now())) {
                Ok(stream) => return Ok(stream),
                Err(Failure::Refused(why)) => return Err(refused(me, launch, &why)),
                // A file may still hold the token of the run before.
                Err(Failure::Token) if given.is_none() => "the token in this host's file is not rank 0's".into(),
                Err(Failure::Token) => {
                    return Err(refused(
                        me,
                        launch,
                        "the token is not rank 0's: give every rank the same BUBBLEBENCH_TOKEN",
                    ));
                }
                Err(Failure::Broken(why)) => why,
            },
        };
        if (terms.interrupted)() {
            return Err(Error::Interrupted);
        }
        if Instant::now() >= until {
            return Err(Error::rank(
                format!(
                    "{me} could not join rank 0 at {}:{} within {:.0} s: {why}",
                    launch.address,
                    launch.port,
                    terms.deadline.as_secs_f64()
                ),
                "see that rank 0 runs, and that MASTER_ADDR and MASTER_PORT lead to it from this host; --deadline waits longer",
            ));
        }
        std::thread::sleep(RETRY);
    }
}

fn refused(me: &Who, launch: &Launch, why: &str) -> Error {
    let at = format!("{}:{}", launch.address, launch.port);
    Error::rank(format!("{me} was turned away by rank 0 at {at}: {why}"), "correct that and start all ranks again")
}

fn attempt(launch: &Launch, token: &Token, me: &Who, party: &Party, left: Duration) -> Result<TcpStream, Failure> {
    let host = launch.address.trim_matches(['[', ']']);
    let addresses = addresses(host, launch.port, left)?;
    let mut failure = Failure::Broken(format!("the name {host} has no address"));
    for address in addresses {
        let stream = TcpStream::connect_timeout(&address, ATTEMPT);
        let met = stream.map_err(|e| Failure::Broken(format!("{address}: {e}"))).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ATTEMPT))?;
            stream.set_write_timeout(Some(ATTEMPT))?;
            handshake::introduce(&mut stream, token, me, party).map(|()| stream)
        });
        match met {
            Ok(stream) => return Ok(stream),
            // Another of its addresses may be the right one.
            Err(why @ Failure::Broken(_)) => failure = why,
            Err(decided) => return Err(decided),
        }
    }
    Err(failure)
}

/// A name server that does not answer may hold a look-up for longer than the deadline: it is then left to itself.
fn addresses(host: &str, port: u16, left: Duration) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(ip) = host.parse::<std::net::IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    let (tell, told) = channel();
    let name = host.to_string();
    let look_up = move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody waits for it any more.
        let _ = tell.send(found);
    };
    let thread = std::thread::Builder::new().name("name".into()).spawn(look_up);
    let outcome =
        thread.map_err(|e| Failure::Broken(format!("no thread to look the name {host} up: {e}"))).and_then(|_| {
            told.recv_timeout(left.max(RETRY))
                .map_err(|_| Failure::Broken(format!("the name {host} is still being looked up")))
        })?;
    outcome.map_err(|e| Failure::Broken(format!("the name {host} does not resolve ({e})")))
}
