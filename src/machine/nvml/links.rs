//! How two GPUs are connected: NVLinks, and how far apart on PCIe. Asked when a run starts, never while it measures.

use super::api::{self, INVALID_ARGUMENT, Pci, SUCCESS};
use super::device::NvmlDevice;
use super::text_of;
use std::fmt;

/// No GPU has more.
const MOST_LINKS: u32 = 36;

/// How two GPUs are connected; all fields are empty where NVML does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuLink {
    /// The number of NVLinks between the two, 0 where there are none; `None` where NVML does not say.
    pub nvlinks: Option<u64>,
    /// Whether the NVLinks go through NVSwitches, where all links of a GPU lead to every other.
    pub switched: bool,
    /// How far apart they are on PCIe, as `nvidia-smi topo -m` calls it: PIX one switch, PXB several, PHB a host
    /// bridge, NODE a NUMA node, SYS beyond; or `same board`.
    pub pcie: Option<&'static str>,
}

impl fmt::Display for GpuLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switched = if self.switched { " through a switch" } else { "" };
        let nvlinks = self.nvlinks.map(|count| match count {
            0 => "no NVLink".to_string(),
            n => format!("NVLink x{n}{switched}"),
        });
        let parts: Vec<String> = nvlinks.into_iter().chain(self.pcie.map(|name| format!("PCIe {name}"))).collect();
        f.write_str(&parts.join(", "))
    }
}

impl NvmlDevice {
    /// NVLinks that are up; `None` where no link answers.
    pub(super) fn active_links(&self) -> Option<u64> {
        let up: Vec<bool> = (0..MOST_LINKS).map_while(|link| self.link(link)).flatten().collect();
        (!up.is_empty()).then(|| up.iter().filter(|up| **up).count() as u64)
    }

    /// Whether a link is up. `Some(None)`: it is not connected, or the GPU has no NVLink; `None` past the last.
    fn link(&self, link: u32) -> Option<Option<bool>> {
        let mut up = 0;
        // SAFETY: the handle is NVML's; writes one enumeration.
        match unsafe { self.nvml.api.link_state?(self.handle, link, &mut up) } {
            SUCCESS => Some(Some(up == 1)),
            INVALID_ARGUMENT => None,
            _ => Some(None),
        }
    }

    pub(super) fn link_to(&self, other: &NvmlDevice) -> GpuLink {
        let (nvlinks, switched) = self.nvlinks_to(other);
        GpuLink { nvlinks, switched, pcie: self.common_ancestor(other) }
    }

    fn nvlinks_to(&self, other: &NvmlDevice) -> (Option<u64>, bool) {
        let address = other.bus_id();
        let remote = |link: &u32| address.is_some() && self.remote_bus_id(*link) == address;
        let up = (0..MOST_LINKS).filter(|&link| self.link(link) == Some(Some(true)));
        let direct = up.filter(remote).count() as u64;
        if direct > 0 {
            return (Some(direct), false);
        }
        match self.nvlink_peers(other) {
            Some(true) => (self.active_links().zip(other.active_links()).map(|(a, b)| a.min(b)), true),
            Some(false) => (Some(0), false),
            None => (None, false),
        }
    }

    fn nvlink_peers(&self, other: &NvmlDevice) -> Option<bool> {
        let mut status = 0;
        // SAFETY: both handles are NVML's; writes one enumeration.
        let code = unsafe { self.nvml.api.p2p?(self.handle, other.handle, api::P2P_NVLINK, &mut status) };
        (code == SUCCESS).then_some(status == api::P2P_OK)
    }

    fn common_ancestor(&self, other: &NvmlDevice) -> Option<&'static str> {
        let mut level = 0;
        // SAFETY: both handles are NVML's; writes one enumeration.
        let code = unsafe { self.nvml.api.ancestor?(self.handle, other.handle, &mut level) };
        let name = match level {
            0 => "same board",
            10 => "PIX",
            20 => "PXB",
            30 => "PHB",
            40 => "NODE",
            50 => "SYS",
            _ => return None,
        };
        (code == SUCCESS).then_some(name)
    }

    fn bus_id(&self) -> Option<String> {
        self.ask(self.nvml.api.pci, EMPTY).and_then(|pci| text_of(&pci.bus_id))
    }

    fn remote_bus_id(&self, link: u32) -> Option<String> {
        let mut pci = EMPTY;
        // SAFETY: the handle is NVML's; writes one nvmlPciInfo_t.
        let code = unsafe { self.nvml.api.link_remote?(self.handle, link, &mut pci) };
        if code == SUCCESS { text_of(&pci.bus_id) } else { None }
    }
}

const EMPTY: Pci =
    Pci { bus_id_legacy: [0; 16], domain: 0, bus: 0, device: 0, device_id: 0, subsystem_id: 0, bus_id: [0; 32] };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_read_as_people_write_them() {
        let link = |nvlinks, switched, pcie| GpuLink { nvlinks, switched, pcie }.to_string();
        assert_eq!(link(Some(18), true, Some("NODE")), "NVLink x18 through a switch, PCIe NODE");
        assert_eq!(link(Some(4), false, None), "NVLink x4");
        assert_eq!(link(Some(0), false, Some("SYS")), "no NVLink, PCIe SYS");
        assert_eq!(link(None, false, None), "");
    }
}
