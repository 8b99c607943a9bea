//! How two processes find out that they belong together, before either does anything for the other.
//!
//! Rank 0 sends a number it has just made up. The other answers with who it is and a proof over that number, its own
//! number and every word of the reply. Rank 0 accepts with a proof over both numbers, or refuses with a sentence.
//! Neither proof can be made without the token or used again, and the token itself is never sent.

use super::message::{self, MOST_OF_A_STRANGER};
use super::protocol::to_hex;
use super::rank_info::RankInfo;
use super::token::{self, Token};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

const MEMBER: &str = "bubblebench rank";
const LEADER: &str = "bubblebench rank 0";

/// What has to be the same on rank 0 and on a rank that joins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Version and commit of the program: only the same program understands the commands.
    pub program: String,
    pub ranks: usize,
    pub job: Option<String>,
}

impl Party {
    pub fn new(ranks: usize, job: Option<String>) -> Self {
        let commit = option_env!("BUBBLEBENCH_COMMIT").unwrap_or("no commit");
        Party { program: format!("{} ({commit})", env!("CARGO_PKG_VERSION")), ranks, job }
    }
}

/// Counts up when the messages between ranks change.
const PROTOCOL: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Challenge {
    bubblebench: u32,
    nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    /// A [`Body`], as the text that the proof is over.
    body: String,
    proof: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    nonce: String,
    who: RankInfo,
    party: Party,
}

#[derive(Debug, Serialize, Deserialize)]
enum Decision {
    Accepted { proof: String },
    Refused { why: String, token: bool },
}

/// A newcomer that has proved that it knows the token.
#[derive(Debug)]
pub struct Newcomer {
    pub who: RankInfo,
    pub party: Party,
    accepted: String,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub enum HandshakeFailure {
    /// The other side does not speak this protocol, or broke off.
    Broken(String),
    /// The other side does not know the token.
    Token,
    /// Rank 0 knows that the caller has the token and refuses it all the same; the text says why.
    Refused(String),
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> Self {
        HandshakeFailure::Broken(match error.kind() {
            io::ErrorKind::InvalidData => "what answers is not bubblebench".into(),
            io::ErrorKind::UnexpectedEof => "it closed the connection".into(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".into(),
            _ => error.to_string(),
        })
    }
}

/// Rank 0's part, up to the decision whether to accept the newcomer.
pub fn examine(stream: &mut (impl Read + Write), token: &Token) -> Result<Newcomer, HandshakeFailure> {
    let ours = made_up()?;
    message::send(stream, &Challenge { bubblebench: PROTOCOL, nonce: ours.clone() })?;
    let hello: Hello = message::receive(stream, MOST_OF_A_STRANGER)?;
    if !token.proves(&hello.proof, MEMBER, &[&ours, &hello.body]) {
        refuse(stream, "it does not know the token", true);
        return Err(HandshakeFailure::Token);
    }
    let body: Body = match serde_json::from_str(&hello.body) {
        Ok(body) => body,
        Err(_) => {
            let why = format!("it is another version of the program than rank 0's {}", Party::new(0, None).program);
            refuse(stream, &why, false);
            return Err(HandshakeFailure::Refused(why));
        }
    };
    let accepted = token.proof(LEADER, &[&body.nonce, &ours]);
    Ok(Newcomer { who: body.who, party: body.party, accepted })
}

pub fn accept(stream: &mut impl Write, newcomer: &Newcomer) -> io::Result<()> {
    message::send(stream, &Decision::Accepted { proof: newcomer.accepted.clone() })
}

/// Tells a caller that it is refused, as far as possible: it may be gone already.
pub fn refuse(stream: &mut impl Write, why: &str, token: bool) {
    let _ = message::send(stream, &Decision::Refused { why: why.into(), token });
}

/// Any other rank's part.
pub fn introduce(
    stream: &mut (impl Read + Write),
    token: &Token,
    who: &RankInfo,
    party: &Party,
) -> Result<(), HandshakeFailure> {
    let challenge: Challenge = message::receive(stream, MOST_OF_A_STRANGER)?;
    if challenge.bubblebench != PROTOCOL {
        let why = format!("rank 0 speaks protocol {} and this program {PROTOCOL}", challenge.bubblebench);
        return Err(HandshakeFailure::Broken(why));
    }
    let ours = made_up()?;
    let body = Body { nonce: ours.clone(), who: who.clone(), party: party.clone() };
    let body = serde_json::to_string(&body).map_err(|e| HandshakeFailure::Broken(e.to_string()))?;
    let proof = token.proof(MEMBER, &[&challenge.nonce, &body]);
    message::send(stream, &Hello { body, proof })?;
    match message::receive(stream, MOST_OF_A_STRANGER)? {
        Decision::Accepted { proof } if token.proves(&proof, LEADER, &[&ours, &challenge.nonce]) => Ok(()),
        Decision::Accepted { .. } => Err(HandshakeFailure::Broken("whoever answers does not know the token".into())),
        Decision::Refused { token: true, .. } => Err(HandshakeFailure::Token),
        Decision::Refused { why, .. } => Err(HandshakeFailure::Refused(why)),
    }
}

fn made_up() -> Result<String, HandshakeFailure> {
    token::nonce().map(|bytes| to_hex(&bytes)).map_err(|e: Error| HandshakeFailure::Broken(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn who() -> RankInfo {
        RankInfo { rank: 3, host: "node7".into(), pid: 42, device: 3, gpu: "GPU-1".into() }
    }

    fn meet(theirs: &str) -> (Result<Newcomer, HandshakeFailure>, Result<(), HandshakeFailure>) {
        let (mut leader, mut member) = UnixStream::pair().unwrap();
        let theirs = Token::new(theirs).unwrap();
        let other = thread::spawn(move || introduce(&mut member, &theirs, &who(), &Party::new(8, None)));
        let newcomer = examine(&mut leader, &Token::new("secret").unwrap());
        if let Ok(newcomer) = &newcomer {
            accept(&mut leader, newcomer).unwrap();
        }
        drop(leader);
        (newcomer, other.join().unwrap())
    }

    #[test]
    fn who_knows_the_token_is_known() {
        let (newcomer, accepted) = meet("secret");
        let newcomer = newcomer.unwrap();
        assert_eq!((newcomer.who, newcomer.party.ranks), (who(), 8));
        accepted.unwrap();
    }

    #[test]
    fn who_does_not_know_the_token_is_told_so_and_nothing_else() {
        let (newcomer, accepted) = meet("Secret");
        assert!(matches!(newcomer, Err(HandshakeFailure::Token)) && matches!(accepted, Err(HandshakeFailure::Token)));
    }

    /// The other side's proof is asked for, too: somebody who listens at rank 0's port cannot give it.
    #[test]
    fn a_false_leader_is_found_out() {
        let (mut leader, mut member) = UnixStream::pair().unwrap();
        let token = Token::new("secret").unwrap();
        let other = thread::spawn(move || introduce(&mut member, &token, &who(), &Party::new(8, None)));
        message::send(&mut leader, &Challenge { bubblebench: PROTOCOL, nonce: "00".into() }).unwrap();
        let hello: Hello = message::receive(&mut leader, MOST_OF_A_STRANGER).unwrap();
        assert!(!hello.body.contains("secret") && !hello.proof.contains("secret"), "the token crosses the wire");
        // The best it can do is to send the member's own proof back.
        message::send(&mut leader, &Decision::Accepted { proof: hello.proof }).unwrap();
        assert!(matches!(other.join().unwrap(), Err(HandshakeFailure::Broken(why)) if why.contains("token")));
    }

    /// It may be a former run's that still holds the port: the member tries again until its deadline.
    #[test]
    fn a_rank_0_of_another_protocol_is_told_apart() {
        let (mut leader, mut member) = UnixStream::pair().unwrap();
        message::send(&mut leader, &Challenge { bubblebench: PROTOCOL - 1, nonce: "00".into() }).unwrap();
        let token = Token::new("secret").unwrap();
        let failure = introduce(&mut member, &token, &who(), &Party::new(8, None)).unwrap_err();
        assert!(matches!(failure, HandshakeFailure::Broken(why) if why.contains("speaks protocol 1")));
    }

    #[test]
    fn somebody_elses_server_is_no_rank_0() {
        let (mut leader, mut member) = UnixStream::pair().unwrap();
        leader.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        drop(leader);
        let token = Token::new("secret").unwrap();
        let failure = introduce(&mut member, &token, &who(), &Party::new(8, None)).unwrap_err();
        assert!(matches!(failure, HandshakeFailure::Broken(why) if why.contains("not bubblebench")));
    }
}
