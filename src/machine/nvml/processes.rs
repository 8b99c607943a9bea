//! Who else computes on a GPU. Another process takes SMs, bandwidth and power: what was measured beside it is flagged.

use super::api::{self, Code, INSUFFICIENT_SIZE, List, SUCCESS};
use super::device::NvmlDevice;
use schemars::JsonSchema;
use serde::Serialize;
use std::fs;

/// A process with a compute context on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Process {
    /// The process's number as NVML gives it; in a container that can be the host's number.
    pub pid: u32,
    /// Bytes of the GPU's memory that the process uses; null where NVML does not tell.
    pub used_memory_bytes: Option<u64>,
}

impl NvmlDevice {
    /// Every process with a compute context on this GPU, this one included; `None` where NVML does not list them.
    pub fn processes(&self) -> Option<Vec<Process>> {
        let api = &self.nvml.api;
        let of = |pid, bytes| Process { pid, used_memory_bytes: (bytes != u64::MAX).then_some(bytes) };
        if let Some(list) = api.processes {
            return self.list(list).map(|all| all.iter().map(|p| of(p.pid, p.used_bytes)).collect());
        }
        let list: List<api::ProcessV1> = api.processes_v1?;
        self.list(list).map(|all| all.iter().map(|p| of(p.pid, p.used_bytes)).collect())
    }

    fn list<T: Copy + Default>(&self, list: List<T>) -> Option<Vec<T>> {
        let mut room = 16;
        // A list may grow between two looks; it will not grow for ever.
        for _ in 0..4 {
            let mut found = vec![T::default(); room];
            let mut count = room as u32;
            // SAFETY: the handle is NVML's; `count` says how many entries `found` has, of the layout in nvml.h.
            let code: Code = unsafe { list(self.handle, &mut count, found.as_mut_ptr()) };
            match code {
                SUCCESS => {
                    found.truncate(count as usize);
                    return Some(found);
                }
                INSUFFICIENT_SIZE => room = (2 * count as usize).max(2 * room),
                _ => return None,
            }
        }
        None
    }
}

/// The listed processes that are neither this one nor started by it (a co-run's side is). `before` are the numbers of
/// the processes that were there before this one used the GPU.
pub fn others(listed: &[Process], before: &[u32]) -> Vec<Process> {
    among(listed, before, std::process::id(), parent)
}

/// In a container NVML lists processes by the host's numbers, which /proc here does not know, ourselves included: then
/// one unknown newcomer is taken for us, and the rest are others.
fn among(listed: &[Process], before: &[u32], own: u32, parent: impl Fn(u32) -> Option<u32>) -> Vec<Process> {
    let ours = |pid: u32| {
        let line = std::iter::successors(Some(pid), |&pid| parent(pid).filter(|&p| p > 0));
        line.take(64).any(|pid| pid == own)
    };
    let mut unnamed = !listed.iter().any(|process| process.pid == own);
    let mut list = Vec::new();
    for process in listed {
        let stranger = !before.contains(&process.pid) && parent(process.pid).is_none();
        if ours(process.pid) || (stranger && std::mem::take(&mut unnamed)) {
            continue;
        }
        list.push(process.clone());
    }
    list
}

/// Its parent's number; `None` where /proc does not know the process.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses and blanks included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(pids: &[u32]) -> Vec<Process> {
        pids.iter().map(|&pid| Process { pid, used_memory_bytes: None }).collect()
    }

    fn pids(listed: &[Process], before: &[u32], parents: &[(u32, u32)]) -> Vec<u32> {
        let parent = |pid| parents.iter().find(|(child, _)| *child == pid).map(|(_, parent)| *parent);
        among(listed, before, 100, parent).into_iter().map(|process| process.pid).collect()
    }

    #[test]
    fn neither_we_nor_our_children_are_others() {
        let parents = [(100, 1), (101, 100), (102, 101), (200, 1), (1, 0)];
        assert_eq!(pids(&listed(&[100, 101, 102, 200]), &[], &parents), [200]);
        assert_eq!(pids(&listed(&[]), &[], &parents), [0u32; 0]);
        assert_eq!(pids(&listed(&[200]), &[], &parents), [200], "a visible process is never taken for us");
    }

    #[test]
    fn in_a_container_one_unknown_newcomer_is_us() {
        let parents = [(100, 1), (1, 0)];
        assert_eq!(pids(&listed(&[70001]), &[], &parents), [0u32; 0]);
        assert_eq!(pids(&listed(&[70001, 70002]), &[70001], &parents), [70001], "it was there before");
        assert_eq!(pids(&listed(&[70002, 70003]), &[], &parents).len(), 1);
        assert_eq!(pids(&listed(&[100, 70001]), &[], &parents), [70001], "we are listed: the numbers are ours");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn proc_knows_our_parent() {
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent(u32::MAX), None);
    }
}
