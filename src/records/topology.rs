//! `topology` of a cost model: how a machine's GPUs are joined, as far as that is stated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the GPUs of a machine are joined, within a node and between nodes. What is null is not known, and is inferred from
/// measured collectives where those tell. Bandwidths count one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// What joins the GPUs of one node.
    pub kind: TopologyKind,
    /// Number of GPUs in a node.
    #[serde(default)]
    pub gpus_per_node: Option<u64>,
    /// Where links are pairwise: how many GPUs are linked to one another directly, 2 for bridged pairs; a larger group's
    /// messages pass through the host. Absent where all GPUs of a node are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_gpus: Option<u64>,
    /// Bytes per second that one GPU sends at most, by its data sheet: to the switch, to one other GPU it is linked to
    /// where links are pairwise, or to the host.
    #[serde(default)]
    pub link_bytes_per_s: Option<f64>,
    /// Bytes per second that one GPU sends to other nodes at most, by its adapter's data sheet: a node's bandwidth ÷ the
    /// node's GPUs.
    #[serde(default)]
    pub network_bytes_per_s: Option<f64>,
    /// Where the figures come from, as `NVIDIA H100 data sheet` or `NVML`.
    #[serde(default)]
    pub source: Option<String>,
}

/// What joins the GPUs of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopologyKind {
    /// A switch that all links of a GPU lead to (NVSwitch): a group's bandwidth does not depend on how many GPUs it has.
    Switch,
    /// Links between two GPUs each (NVLink without a switch, bridges): the more GPUs a group has, the more links it uses.
    Pairwise,
    /// PCI Express and the host's memory.
    Host,
}
