//! NCCL as the coordinator sees it.

use super::worker::NcclWorker;
use super::{Nccl, UniqueId};
use crate::collectives::ranks::worker::{Abort, MeetingId, RankConfig, Transport, Worker};
use crate::machine::gpus;
use crate::units::counted;
use crate::{Error, Result};
use std::sync::Arc;

pub struct NcclTransport(Arc<Nccl>);

impl NcclTransport {
    pub fn load() -> Result<Self> {
        gpus::require_driver()?;
        Ok(NcclTransport(Arc::new(Nccl::load()?)))
    }
}

/// From this version on ranks may share a GPU, where the environment allows it.
const SHARES_GPUS: i32 = 23000;
const ALLOWS: &str = "NCCL_MULTI_RANK_GPU_ENABLE";

impl NcclTransport {
    fn may_share(&self, config: &RankConfig) -> Result<()> {
        if config.ranks_per_gpu <= 1 {
            return Ok(());
        }
        let allowed = std::env::var(ALLOWS).is_ok_and(|value| value.trim() == "1");
        if self.0.code() < SHARES_GPUS || !allowed {
            return Err(Error::machine(
                format!("{} on one GPU with NCCL {}", counted(config.ranks_per_gpu, "rank"), self.0.version()?),
                format!("use NCCL 2.30 or later and set {ALLOWS}=1, or give each rank a GPU of its own"),
            ));
        }
        Ok(())
    }
}

impl Transport for NcclTransport {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn gpu(&self, device: u32) -> Result<String> {
        gpus::uuid(device).ok_or_else(|| {
            Error::machine(
                format!("GPU {device} does not tell its UUID"),
                "run `bubblebench doctor` to see the devices",
            )
        })
    }

    fn meeting_id(&self) -> Result<MeetingId> {
        self.0.unique_id().map(|id| id.0)
    }

    fn join(&self, config: &RankConfig, id: &MeetingId, abort: &Abort) -> Result<Box<dyn Worker>> {
        self.may_share(config)?;
        Ok(Box::new(NcclWorker::join(&self.0, config, UniqueId(*id), abort)?))
    }
}
