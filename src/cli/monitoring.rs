//! `measure --metrics ADDR`: the address is refused or taken before anything is measured, then [`crate::monitor`] serves.

use super::session::RunPlan;
use super::terminal::note;
use crate::machine::Device;
use crate::monitor::gpu::GpuName;
use crate::monitor::values::{Progress, RunFacts, RunValues};
use crate::monitor::{self, Monitor, address};
use crate::records::MachineRecord;
use crate::suite::recorder::Recorder;
use crate::{Error, Result};
use indicatif::ProgressBar;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// An address that metrics are to be served at.
pub struct Monitoring {
    address: SocketAddr,
}

/// The address is taken.
pub struct Listening {
    listener: TcpListener,
    machine: MachineRecord,
    device: Device,
}

impl Monitoring {
    /// What `--metrics` asks for; an error where it is no address.
    pub fn of(text: Option<&str>) -> Result<Option<Monitoring>> {
        text.map(|text| Ok(Monitoring { address: address::parse(text)? })).transpose()
    }

    /// Takes the address for a run, and says where the metrics are.
    pub fn listen(&self, plan: &RunPlan) -> Result<Listening> {
        let listener = address::bind(self.address)?;
        let chosen = listener.local_addr().map_err(|error| {
            Error::machine(format!("cannot serve metrics at {}: {error}", self.address), "leave --metrics out")
        })?;
        let readers = if chosen.ip().is_loopback() { "" } else { "; everybody in the network can read them" };
        note(format_args!("metrics at {}{readers}", monitor::url(chosen)));
        Ok(Listening { listener, machine: plan.machine().clone(), device: plan.device })
    }
}

impl Listening {
    /// Serves the values of this run, whose progress is the bar's.
    pub fn serve(self, recorder: &Recorder, cases: usize, bar: &ProgressBar) -> Result<Monitor> {
        let facts = RunFacts {
            run: recorder.run.id().to_string(),
            preset: self.machine.run.preset.clone(),
            device: self.machine.run.device.clone(),
            machine: self.machine.name.clone(),
            gpu: self.gpu(),
            cases,
            visits: recorder.visits.max(1),
        };
        let bar = bar.clone();
        let values = RunValues::new(facts, move || progress(&bar), recorder.newest_reading());
        Monitor::start(self.listener, Arc::new(values))
    }

    fn gpu(&self) -> Option<GpuName> {
        let Device::Cuda(ordinal) = self.device else { return None };
        self.machine.gpus.iter().find(|gpu| gpu.index == u64::from(ordinal)).map(GpuName::of)
    }
}

/// The bar says 0 where it has no estimate yet.
fn progress(bar: &ProgressBar) -> Progress {
    let (done, of, left) = (bar.position(), bar.length().unwrap_or_default(), bar.eta());
    Progress { done, of, left: (!left.is_zero() || done >= of).then_some(left) }
}
