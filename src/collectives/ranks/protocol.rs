//! The commands of rank 0 to every rank, and a rank's replies. The same values go through a channel to a thread and as
//! JSON over TCP to a process.

use super::worker::{MeetingId, RankTiming, Task};
use crate::units::counted;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Join(Joining),
    Prepare(Task),
    Time { pipelined: u64, isolated: u64 },
    Release,
    Finish,
}

/// What a rank must know to join the others' communicator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joining {
    #[serde(with = "hexadecimal")]
    pub id: MeetingId,
    pub ranks: usize,
    pub nodes: usize,
    pub ranks_per_gpu: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Prepared { wrong: u64, facts: Map<String, Value> },
    Timed(RankTiming),
    Failed { what: String, cure: String, kind: FailureKind },
}

/// How far a rank's failure reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The rank is well: another case may succeed.
    Case,
    /// The rank's device can do nothing more.
    Device,
    /// This program is at fault.
    Bug,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Join(joining) => write!(f, "joining the communicator of {}", counted(joining.ranks, "rank")),
            Command::Prepare(task) => write!(f, "preparing {task}"),
            Command::Time { pipelined, .. } => write!(f, "timing {}", counted(*pipelined, "operation")),
            Command::Release => f.write_str("freeing a case's buffers"),
            Command::Finish => f.write_str("finishing"),
        }
    }
}

/// Bytes as hexadecimal digits; `None` where they are not exactly N bytes.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| !p.starts_with('+'))?, 16).ok()?;
    }
    Some(bytes)
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

mod hexadecimal {
    use super::MeetingId;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(id: &MeetingId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_hex(id))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MeetingId, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_hex(&text).ok_or_else(|| D::Error::custom("an id that is not 128 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectives::{CollectiveOperation, Element, Exchange, Pattern};

    #[test]
    fn commands_survive_the_wire() {
        let exchange = Exchange::new(CollectiveOperation::SendRecv(Pattern::Ring), 1 << 20, 4).in_place(false);
        let task = Task { exchange, dtype: Element::Bf16, graph: true, registered: false, max_ctas: Some(4) };
        let joining = Joining { id: std::array::from_fn(|i| i as u8), ranks: 4, nodes: 2, ranks_per_gpu: 1 };
        for command in [Command::Join(joining), Command::Prepare(task), Command::Time { pipelined: 3, isolated: 1 }] {
            let text = serde_json::to_string(&command).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
        }
        let reply = Reply::Timed(RankTiming { pipelined_ns: 1.25, isolated_ns: vec![0.1, 3e9] });
        assert_eq!(serde_json::from_str::<Reply>(&serde_json::to_string(&reply).unwrap()).unwrap(), reply);
    }

    #[test]
    fn only_digits_of_the_right_number_are_bytes() {
        assert_eq!(from_hex::<2>("01fe"), Some([1, 254]));
        for wrong in ["", "01", "01fe00", "01f", "01fg", "+1fe", "0é1"] {
            assert_eq!(from_hex::<2>(wrong), None, "{wrong}");
        }
    }
}
