//! What goes over a connection: messages as JSON, each preceded by its length.

use super::protocol::{Command, Reply};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// Most bytes of a message between ranks that have met.
pub const MOST: usize = 4 << 20;
/// Most bytes of a message from somebody who has proved nothing yet.
pub const MOST_OF_A_STRANGER: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    Command {
        number: u64,
        command: Command,
    },
    Reply {
        number: u64,
        reply: Reply,
    },
    /// The sender is still there.
    Beat,
    /// From rank 0: the run is over, for this reason.
    End {
        why: String,
    },
    /// From any other rank: it leaves the run, for this reason.
    Leaving {
        why: String,
    },
}

pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(body);
    // In one piece: two small writes would wait for each other's acknowledgement.
    stream.write_all(&frame)
}

pub fn receive<T: DeserializeOwned>(stream: &mut impl Read, most: usize) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_follow_one_another() {
        let messages = [Message::Beat, Message::End { why: "rank 3 is gone".into() }, Message::Beat];
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| send(&mut bytes, message).unwrap());
        let mut stream = bytes.as_slice();
        for message in &messages {
            assert_eq!(receive::<Message>(&mut stream, MOST).unwrap(), *message);
        }
        assert_eq!(receive::<Message>(&mut stream, MOST).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        /// Whatever a stranger sends is an error or a message, never a panic nor much memory.
        #[test]
        fn noise_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = receive::<Message>(&mut bytes.as_slice(), MOST_OF_A_STRANGER);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let mut stream: &[u8] = &u32::MAX.to_le_bytes();
        let error = receive::<Message>(&mut stream, MOST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
