//! Which algorithm, protocol and channels NCCL chose for an operation. NCCL tells it in its log only
//! (`NCCL_DEBUG=INFO`, `NCCL_DEBUG_SUBSYS=TUNING`), a line an operation, which costs the host a microsecond or two each
//! time: so it is asked for, or unknown (`null`). Messages have none.
//!
//! Two forms are known: `AllReduce: 8192 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}` (2.27 and later), and
//! `AllReduce: 8192 Bytes -> Algo 1 proto 0 time 12.3` before.

use crate::collectives::{CollectiveOperation, Element, Exchange};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What NCCL chose for one operation; a field is `None` where NCCL did not log it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Algorithm in lower case: `ring`, `tree`, `nvls`, …
    pub algorithm: Option<String>,
    /// Protocol in lower case: `ll`, `ll128` or `simple`.
    pub protocol: Option<String>,
    /// Number of channels (thread blocks) the operation ran on; NCCL before 2.27 does not log it.
    pub channels: Option<u32>,
}

impl Choice {
    /// The fields `algorithm`, `protocol` and `channels` as they stand in a record; what is unknown is null.
    pub fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("algorithm".into(), self.algorithm.clone().into());
        facts.insert("protocol".into(), self.protocol.clone().into());
        facts.insert("channels".into(), self.channels.into());
        facts
    }
}

/// Makes NCCL write its choices to a file of this process; an error where the user has set its log up for something
/// else. Must be called before any thread is started: it sets environment variables.
pub fn log_choices() -> Result<()> {
    let theirs = ["NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_DEBUG_FILE"].into_iter().find(|n| env::var_os(n).is_some());
    if let Some(name) = theirs {
        return match log_file() {
            Some(_) => Ok(()),
            None => Err(Error::input(
                format!("{name} is set, so NCCL's log says something else than its choices"),
                "unset it, or set NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=TUNING NCCL_DEBUG_FILE=some/file.%p",
            )),
        };
    }
    let file = env::temp_dir().join(format!("bubblebench-nccl-{}.log", std::process::id()));
    // SAFETY: no other thread exists yet that could read the environment meanwhile (the caller's promise).
    unsafe {
        env::set_var("NCCL_DEBUG", "INFO");
        env::set_var("NCCL_DEBUG_SUBSYS", "TUNING");
        env::set_var("NCCL_DEBUG_FILE", &file);
    }
    Ok(())
}

/// Where NCCL's choices of this process stand, if it writes them down.
fn log_file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| {
        let variable = |name| env::var(name).ok();
        let subsystems = variable("NCCL_DEBUG_SUBSYS")?;
        let tells = subsystems.split(',').any(|part| ["TUNING", "ALL"].contains(&part.trim()));
        if !tells || variable("NCCL_DEBUG")? != "INFO" {
            return None;
        }
        let host = crate::machine::hostname().unwrap_or_default();
        let name = variable("NCCL_DEBUG_FILE").filter(|name| !name.is_empty())?;
        Some(name.replace("%p", &std::process::id().to_string()).replace("%h", &host).into())
    })
    .as_deref()
}

thread_local! {
    /// How long the log was when this rank began to listen.
    static HEARD: Cell<u64> = const { Cell::new(0) };
}

/// What is written from now on is of interest to this thread.
pub fn listen() {
    let length = log_file().and_then(|path| path.metadata().ok()).map_or(0, |about| about.len());
    HEARD.set(length);
}

/// What NCCL wrote about the exchange since then.
pub fn heard(exchange: &Exchange, element: Element) -> Choice {
    let Some(function) = function(exchange.operation) else { return Choice::default() };
    let text = log_file().and_then(|path| {
        let (mut file, mut text) = (File::open(path).ok()?, Vec::new());
        file.seek(SeekFrom::Start(HEARD.get())).ok()?;
        file.read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    });
    let start = format!("{function}: {} Bytes -> ", logged_elements(exchange) * element.bytes());
    text.and_then(|text| text.lines().filter_map(|line| parse(line, &start)).next_back()).unwrap_or_default()
}

/// NCCL logs the count of its call, which for these two is one rank's part.
fn logged_elements(exchange: &Exchange) -> usize {
    match exchange.operation {
        CollectiveOperation::AllGather | CollectiveOperation::ReduceScatter => {
            exchange.elements / exchange.ranks.max(1)
        }
        _ => exchange.elements,
    }
}

/// As NCCL's log names it.
const fn function(operation: CollectiveOperation) -> Option<&'static str> {
    match operation {
        CollectiveOperation::AllReduce => Some("AllReduce"),
        CollectiveOperation::AllGather => Some("AllGather"),
        CollectiveOperation::ReduceScatter => Some("ReduceScatter"),
        CollectiveOperation::Broadcast => Some("Broadcast"),
        CollectiveOperation::Reduce => Some("Reduce"),
        CollectiveOperation::AllToAll | CollectiveOperation::SendRecv(_) | CollectiveOperation::Pipeline => None,
    }
}

fn parse(line: &str, start: &str) -> Option<Choice> {
    let rest = line.split_once(start)?.1;
    let after = |word: &str| {
        let mut words = rest.split_whitespace().skip_while(|w| *w != word);
        words.nth(1).map(str::to_string)
    };
    let named = |value: String, names: &[&str]| {
        let number = value.parse::<usize>().ok();
        number.map_or(value.to_lowercase(), |n| names.get(n).map_or(value.clone(), |name| name.to_string()))
    };
    let range = rest.split_once("channel{Lo..Hi}={").and_then(|(_, range)| {
        let (low, high) = range.split('}').next()?.split_once("..")?;
        (high.parse::<u32>().ok()?.checked_sub(low.parse().ok()?)).map(|between| between + 1)
    });
    Some(Choice {
        algorithm: after("Algo").map(|value| named(value, &ALGORITHMS)),
        protocol: after("proto").map(|value| named(value, &PROTOCOLS)),
        channels: range,
    })
}

/// NCCL's numbers for them.
const ALGORITHMS: [&str; 7] = ["tree", "ring", "collnet_direct", "collnet_chain", "nvls", "nvls_tree", "pat"];
const PROTOCOLS: [&str; 3] = ["ll", "ll128", "simple"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_log_are_read() {
        let start = "AllReduce: 8192 Bytes -> ";
        let new = "h:1:2 [0] NCCL INFO AllReduce: 8192 Bytes -> Algo RING proto LL channel{Lo..Hi}={0..3}";
        let choice = parse(new, start).unwrap();
        assert_eq!((choice.algorithm.as_deref(), choice.protocol.as_deref()), (Some("ring"), Some("ll")));
        assert_eq!(choice.channels, Some(4));
        let old = "h:1:2 [0] NCCL INFO AllReduce: 8192 Bytes -> Algo 4 proto 2 time 12.300000";
        let choice = parse(old, start).unwrap();
        assert_eq!((choice.algorithm.as_deref(), choice.protocol.as_deref()), (Some("nvls"), Some("simple")));
        assert_eq!(choice.channels, None);
        assert_eq!(parse("AllReduce: 81920 Bytes -> Algo 4", start), None);
        assert_eq!(parse(new, "Broadcast: 8192 Bytes -> "), None);
    }

    #[test]
    fn the_log_counts_one_ranks_part_of_what_is_gathered_or_scattered() {
        let elements = |operation| logged_elements(&Exchange::new(operation, 64, 4));
        assert_eq!((elements(CollectiveOperation::AllGather), elements(CollectiveOperation::ReduceScatter)), (16, 16));
        assert_eq!((elements(CollectiveOperation::AllReduce), elements(CollectiveOperation::Broadcast)), (64, 64));
    }

    #[test]
    fn what_is_unknown_is_null() {
        let facts = Choice::default().facts();
        assert!(["algorithm", "protocol", "channels"].iter().all(|name| facts[*name].is_null()));
    }
}
