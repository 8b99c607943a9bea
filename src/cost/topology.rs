//! How many links a group of ranks has within a node: stated by the cost model's `topology`, else inferred from measured
//! bandwidths.
//!
//! On a switch a rank's link carries the same bytes per second in every group. Where each pair of GPUs has links of its
//! own, a group of n ranks uses n − 1 of a rank's links at once, so that an all-reduce of S bytes over links of bandwidth b
//! takes 2·S ÷ (n·b), not 2·(n−1)·S ÷ (n·b): the complete graph falls into n − 1 rings (Tillson, *J. Combin. Theory B* 29,
//! 1980; for 4 and 6 ranks nearly), and NCCL builds as many rings as links allow. Where only pairs or islands of GPUs are
//! linked, a larger group passes the host: on published profiles 12 times (A100, bridged pairs) and 6 times (H100) fewer
//! bytes per second than the pair.

use super::piecewise;
use super::ranks::{Algorithm, RankedOperation};
use crate::records::cost_model::{CollectiveFit, Topology, TopologyKind};
use crate::records::flags::OVERSUBSCRIBED;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Messages from this size on show a bandwidth, in bytes.
const LARGE: u64 = 4 << 20;
/// A larger group with less of the smaller one's bandwidth than this passes another kind of link.
const FALL: f64 = 0.5;

/// How many links a group of ranks has within a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLinks {
    /// Whether each pair of ranks has links of its own, so that a larger group uses more of them.
    pairwise: bool,
    /// The largest group that is linked directly, in ranks; `None` where every group is.
    linked: Option<u64>,
}

impl GroupLinks {
    /// Every group has the same bandwidth on each rank, as on a switch.
    pub const SWITCH: GroupLinks = GroupLinks { pairwise: false, linked: None };

    /// What the cost model states, else what its curves say: of each operation, the bandwidths of different numbers of
    /// ranks within a node. A switch where neither tells.
    pub fn of(stated: Option<&Topology>, curves: &[CollectiveFit]) -> GroupLinks {
        match stated {
            Some(Topology { kind: TopologyKind::Pairwise, linked_gpus, .. }) => {
                GroupLinks { pairwise: true, linked: *linked_gpus }
            }
            Some(_) => GroupLinks::SWITCH,
            None => inferred(curves),
        }
    }

    /// Links of one rank that a group uses at once, as a multiple of what two ranks use.
    pub fn of_group(self, ranks: u64, nodes: u64) -> f64 {
        let linked = self.pairwise && nodes <= 1 && self.linked.is_none_or(|most| ranks <= most);
        if linked { ranks.saturating_sub(1).max(1) as f64 } else { 1.0 }
    }

    /// Whether one of two numbers of ranks is linked directly and the other passes the host.
    pub fn part(self, a: u64, b: u64) -> bool {
        self.linked.is_some_and(|most| (a <= most) != (b <= most))
    }
}

/// The law that the bandwidths of the first operation with two numbers of ranks follow, the all-reduce before others.
fn inferred(curves: &[CollectiveFit]) -> GroupLinks {
    let usable = |f: &&CollectiveFit| f.nodes == 1 && !f.flags.iter().any(|flag| flag == OVERSUBSCRIBED);
    let names: BTreeSet<&str> = curves.iter().map(|f| f.operation.as_str()).collect();
    let mut names: Vec<&str> = names.into_iter().filter(|name| !name.starts_with("send_recv")).collect();
    names.sort_by_key(|name| *name != "all_reduce");
    let law = |name: &&str| {
        let of_name = curves.iter().filter(usable).filter(|f| f.operation == *name);
        let mut groups: BTreeMap<(&str, &str), BTreeMap<u64, &CollectiveFit>> = BTreeMap::new();
        for fit in of_name {
            groups.entry((fit.latency.as_str(), fit.dtype.as_str())).or_default().insert(fit.ranks, fit);
        }
        groups.values().find_map(law_of)
    };
    names.iter().find_map(law).unwrap_or(GroupLinks::SWITCH)
}

/// Of one operation's curves by number of ranks; `None` where no two of them reach large messages.
fn law_of(curves: &BTreeMap<u64, &CollectiveFit>) -> Option<GroupLinks> {
    let last = |fit: &CollectiveFit| fit.segments.last().map_or(0, |s| s.to_bytes.saturating_sub(1));
    let ordered: Vec<&CollectiveFit> = curves.values().copied().filter(|f| last(f) >= LARGE).collect();
    let mut seen = None;
    for pair in ordered.windows(2) {
        let (few, many) = (pair[0], pair[1]);
        let bytes = last(few).min(last(many));
        let rate = |fit: &CollectiveFit| {
            let (ns, _) = piecewise::predict(&fit.segments, bytes)?;
            Some(Algorithm::Ring.moved(RankedOperation::of(fit)) / ns)
        };
        let ratio = rate(many)? / rate(few)?;
        if ratio < FALL {
            return Some(GroupLinks { pairwise: false, linked: Some(few.ranks) });
        }
        // As near to the links' number as to 1, in ratio.
        let links = (many.ranks - 1) as f64 / (few.ranks - 1) as f64;
        seen = Some(GroupLinks { pairwise: ratio > links.sqrt(), linked: None });
    }
    seen
}

/// The topology by the machine record's lines, one a pair of GPUs (`GPU 0 - GPU 1: peer access, rank 0, NVLink x12 through a
/// switch, …`): `None` where NVML said nothing of NVLinks, or where GPUs are linked neither all alike nor in islands of one
/// size.
pub fn of_machine(lines: &[String]) -> Option<Topology> {
    let mut pairs = BTreeMap::new();
    for line in lines {
        let (names, link) = line.split_once(": ")?;
        let (from, to) = names.split_once(" - ")?;
        let number = |name: &str| name.strip_prefix("GPU ")?.parse::<u64>().ok();
        let linked = link.contains("NVLink x");
        if !linked && !link.contains("no NVLink") {
            return None;
        }
        pairs.insert((number(from)?, number(to)?), linked);
    }
    let gpus: BTreeSet<u64> = pairs.keys().flat_map(|(from, to)| [*from, *to]).collect();
    let linked_to = |gpu: u64| 1 + pairs.iter().filter(|((a, b), linked)| **linked && (*a == gpu || *b == gpu)).count();
    let sizes: BTreeSet<u64> = gpus.iter().map(|gpu| linked_to(*gpu) as u64).collect();
    let island = sizes.first().copied().filter(|_| sizes.len() == 1)?;
    let switched = lines.iter().all(|line| line.contains("through a switch"));
    let all = island == gpus.len() as u64;
    let kind = match (switched && all, island) {
        (true, _) => TopologyKind::Switch,
        (_, 1) => TopologyKind::Host,
        _ => TopologyKind::Pairwise,
    };
    let linked_gpus = (kind == TopologyKind::Pairwise && !all).then_some(island);
    Some(Topology {
        kind,
        gpus_per_node: Some(gpus.len() as u64),
        linked_gpus,
        link_bytes_per_s: None,
        network_bytes_per_s: None,
        source: Some("NVML".into()),
    })
}

/// Checks a topology from whatever file. Returns an error if one of its numbers is no positive number.
pub fn check(topology: &Topology) -> Result<()> {
    let Topology { gpus_per_node, linked_gpus, link_bytes_per_s, network_bytes_per_s, .. } = topology;
    let counts = [gpus_per_node, linked_gpus].into_iter().flatten().all(|n| *n >= 1);
    let rates = [link_bytes_per_s, network_bytes_per_s].into_iter().flatten().all(|r| r.is_finite() && *r >= 1.0);
    if counts && rates {
        return Ok(());
    }
    Err(Error::input(
        "the cost model's topology has a number that cannot be used",
        "give counts of at least 1 and bandwidths in bytes per second, or leave them out",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::cost_model::Segment;

    /// A curve whose all-reduce reaches this bus bandwidth, in bytes per ns.
    fn curve(ranks: u64, bus: f64) -> CollectiveFit {
        let operation = "all_reduce";
        let moved = 2.0 * (ranks - 1) as f64 / ranks as f64;
        CollectiveFit {
            operation: operation.into(),
            ranks,
            nodes: 1,
            dtype: "bf16".into(),
            latency: "pipelined".into(),
            segments: vec![Segment {
                from_bytes: 1 << 10,
                to_bytes: 1 << 30,
                latency_ns: 9_000.0,
                ns_per_byte: moved / bus,
            }],
            algorithms: Vec::new(),
            relative_low: 0.1,
            relative_high: 0.1,
            ctas: None,
            flags: Vec::new(),
        }
    }

    /// The bus bandwidths of published profiles: A100 behind a switch, bridged pairs of A100; and a mesh made up.
    #[test]
    fn links_are_inferred_from_two_numbers_of_ranks() {
        let switch = GroupLinks::of(None, &[curve(2, 156.0), curve(4, 167.0), curve(8, 162.0)]);
        assert_eq!(switch, GroupLinks::SWITCH);
        let bridged = GroupLinks::of(None, &[curve(2, 190.0), curve(4, 23.0)]);
        assert!(bridged.part(2, 4) && bridged.part(2, 8) && !bridged.part(4, 8), "{bridged:?}");
        let mesh = GroupLinks::of(None, &[curve(2, 80.0), curve(4, 230.0)]);
        assert_eq!((mesh.of_group(2, 1), mesh.of_group(4, 1), mesh.of_group(8, 2)), (1.0, 3.0, 1.0));
        assert_eq!(GroupLinks::of(None, &[curve(2, 80.0)]), GroupLinks::SWITCH);
    }

    #[test]
    fn the_records_lines_say_what_joins_gpus() {
        let lines = |link: fn(u64, u64) -> &'static str| -> Vec<String> {
            (0..4u64).flat_map(|a| (a + 1..4).map(move |b| format!("GPU {a} - GPU {b}: {}", link(a, b)))).collect()
        };
        let switch = of_machine(&lines(|_, _| "peer access, rank 0, NVLink x18 through a switch, PCIe SYS")).unwrap();
        assert_eq!((switch.kind, switch.gpus_per_node, switch.linked_gpus), (TopologyKind::Switch, Some(4), None));
        let mesh = of_machine(&lines(|_, _| "peer access, NVLink x4")).unwrap();
        assert_eq!((mesh.kind, mesh.linked_gpus), (TopologyKind::Pairwise, None));
        let pairs =
            of_machine(&lines(|a, b| if a / 2 == b / 2 { "NVLink x4" } else { "no NVLink, PCIe SYS" })).unwrap();
        assert_eq!((pairs.kind, pairs.linked_gpus), (TopologyKind::Pairwise, Some(2)));
        let host = of_machine(&lines(|_, _| "no peer access, no NVLink, PCIe PHB")).unwrap();
        assert_eq!(host.kind, TopologyKind::Host);
        assert_eq!(of_machine(&lines(|_, _| "peer access, rank 0")), None);
        let uneven = lines(|a, b| if a == 0 && b == 1 { "NVLink x4" } else { "no NVLink" });
        assert_eq!(of_machine(&uneven), None);
        assert_eq!(of_machine(&[]), None);
    }
}
