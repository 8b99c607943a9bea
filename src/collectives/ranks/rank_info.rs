//! Where a rank runs: on which host, as which process, on which GPU.

use super::worker::Transport;
use crate::Result;
use crate::machine::hostname;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a rank runs, for error messages and for telling which ranks share a host or a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankInfo {
    /// The rank's number, counted from 0.
    pub rank: usize,
    /// Name of its host; `this host` where the system does not tell one.
    pub host: String,
    /// Its process id on that host.
    pub pid: u32,
    /// Its CUDA device, by the number that its own process gives it.
    pub device: u32,
    /// UUID or bus address of its GPU: two ranks of one host with equal ones share a GPU.
    pub gpu: String,
}

/// Written as `rank 3 (node7, process 4242, GPU 3)`.
impl fmt::Display for RankInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} ({}, process {}, GPU {})", self.rank, self.host, self.pid, self.device)
    }
}

/// The description of a rank of this process; an error where its device cannot be identified.
pub fn this_process(rank: usize, device: u32, transport: &dyn Transport) -> Result<RankInfo> {
    let host = hostname().unwrap_or_else(|| "this host".into());
    Ok(RankInfo { rank, host, pid: std::process::id(), device, gpu: transport.gpu(device)? })
}

/// Number of hosts that these ranks are on.
pub fn nodes(members: &[RankInfo]) -> usize {
    let mut hosts: Vec<&str> = members.iter().map(|who| who.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len()
}

/// Largest number of ranks that share one GPU.
pub fn ranks_per_gpu(members: &[RankInfo]) -> usize {
    let mut count: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for who in members {
        *count.entry((&who.host, &who.gpu)).or_default() += 1;
    }
    count.into_values().max().unwrap_or(1)
}

/// These ranks as text: `ranks 1, 4–6`.
pub fn list(ranks: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &rank in ranks {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => parts.push((rank, rank)),
        }
    }
    let text: Vec<String> = parts
        .iter()
        .map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}–{last}") })
        .collect();
    format!("{} {}", if ranks.len() == 1 { "rank" } else { "ranks" }, text.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(rank: usize, host: &str, gpu: &str) -> RankInfo {
        RankInfo { rank, host: host.into(), pid: 7, device: 0, gpu: gpu.into() }
    }

    #[test]
    fn hosts_and_shared_gpus_are_counted() {
        let members = [who(0, "a", "x"), who(1, "a", "y"), who(2, "b", "x"), who(3, "b", "x")];
        assert_eq!((nodes(&members), ranks_per_gpu(&members)), (2, 2));
        assert_eq!((nodes(&members[..2]), ranks_per_gpu(&members[..3])), (1, 1));
        assert_eq!(members[0].to_string(), "rank 0 (a, process 7, GPU 0)");
    }

    #[test]
    fn ranks_are_listed_in_runs() {
        assert_eq!(list(&[3]), "rank 3");
        assert_eq!(list(&[1, 4, 5, 6]), "ranks 1, 4–6");
    }
}
