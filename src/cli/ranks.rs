//! `measure` under torchrun, srun or mpirun, and in one process with several GPUs: who leads, who follows, which GPU is
//! whose.

use super::terminal::note;
use crate::collectives::nccl;
use crate::collectives::ranks::{self, Coordinator, GroupConfig, RankEnvironment, Transport};
use crate::machine::{Device, DeviceChoice, gpus, leave};
use crate::suite::collectives::SharedCoordinator;
use crate::suite::groups::Group;
use crate::suite::watch;
use crate::units::counted;
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// What remains for an orderly end once a group of ranks has failed.
const LAST_RESORT: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, clap::Args)]
pub struct RankOptions {
    /// Longest wait on another rank: one that dies, hangs or never comes ends the run on all ranks within this time
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub deadline: humantime::Duration,
    /// Ranks of one process, a thread each: more than GPUs share them [default: the number of GPUs]
    #[arg(long, value_name = "N")]
    pub ranks: Option<usize>,
}

impl RankOptions {
    fn config(&self, transport: Arc<dyn Transport>) -> Result<GroupConfig> {
        if self.deadline.is_zero() {
            return Err(Error::input("a deadline of 0 s is over before it begins", "give one, such as --deadline 30s"));
        }
        Ok(GroupConfig { transport, deadline: *self.deadline, interrupted: watch::interrupted, last_resort })
    }

    /// The ranks of this run as threads of this process; `None` where no collective between GPUs is asked for. Where
    /// only collectives are asked for, what is missing is an error; beside other cases it is a note.
    pub fn threads(&self, device: Device, chosen: DeviceChoice, groups: &[Group]) -> Result<Option<SharedCoordinator>> {
        let Device::Cuda(ordinal) = device else {
            return self.host_alone();
        };
        if !groups.contains(&Group::Collectives) {
            return Ok(None);
        }
        match self.group_of_threads(ordinal, chosen) {
            Ok(coordinator) => Ok(Some(SharedCoordinator::new(coordinator))),
            Err(error @ (Error::Machine { .. } | Error::Gpu { .. })) if groups.len() > 1 && self.ranks.is_none() => {
                note(format_args!("collectives are left out: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn host_alone(&self) -> Result<Option<SharedCoordinator>> {
        match self.ranks {
            None => Ok(None),
            Some(_) => Err(Error::input(
                "--ranks is for GPUs",
                "the host's cases have their ranks in their names: leave --ranks out, or give a filter such as /r2/",
            )),
        }
    }

    fn group_of_threads(&self, ordinal: u32, chosen: DeviceChoice) -> Result<Coordinator> {
        let own: Vec<u32> = match chosen {
            DeviceChoice::Cuda(Some(only)) => vec![only],
            // From the one that the rest is measured on.
            _ => {
                let count = gpus::list()?.len() as u32;
                (0..count).map(|index| (ordinal + index) % count).collect()
            }
        };
        let count = self.ranks.unwrap_or(own.len());
        if !(2..=1024).contains(&count) {
            return Err(Error::machine(
                format!("{} between which to measure", counted(count, "rank")),
                "give --ranks N, 2 to 1024; more ranks than GPUs share them, and their rows say shared-gpu",
            ));
        }
        let devices: Vec<u32> = own.iter().copied().cycle().take(count).collect();
        Coordinator::of_threads(&self.config(nccl::transport()?)?, &devices)
    }
}

/// One of several processes that a launcher started.
pub enum LauncherRole {
    /// Rank 0 of them, with all others at hand.
    Lead(SharedCoordinator, Device),
    /// Any other: it has followed rank 0 to the end of the run.
    Followed,
}

/// What a launcher's process has to do; `None` where there is no launcher.
pub fn part(options: &RankOptions, device: &str, groups: &[Group]) -> Result<Option<LauncherRole>> {
    let only_collectives = groups == [Group::Collectives];
    let environment = match RankEnvironment::detect() {
        Ok(None) => return Ok(None),
        Ok(Some(environment)) => environment,
        // Whoever measures a layer need not care.
        Err(_) if !only_collectives => return Ok(None),
        Err(error) => return Err(error),
    };
    if !only_collectives {
        return Err(Error::input(
            format!(
                "this is rank {} of {}, and only collectives are measured by several ranks",
                environment.rank, environment.ranks
            ),
            "run `measure collectives` under the launcher, and the rest by one process without it (torchrun --nproc-per-node 1)",
        ));
    }
    if options.ranks.is_some() {
        return Err(Error::input(
            "--ranks is for one process",
            "the launcher says how many ranks there are: leave it out",
        ));
    }
    let local_rank = u32::try_from(environment.local_rank).ok();
    let device = device.parse::<DeviceChoice>()?.of_rank(local_rank)?;
    let Device::Cuda(ordinal) = device else {
        return Err(Error::machine(
            format!(
                "rank {} of {} has no GPU, and the host's collectives are between threads of one process",
                environment.rank, environment.ranks
            ),
            "start it where there are GPUs, or measure the host by one process without the launcher",
        ));
    };
    let config = options.config(nccl::transport()?)?;
    if environment.rank > 0 {
        return ranks::follow(&environment, &config, ordinal).map(|()| Some(LauncherRole::Followed));
    }
    let coordinator = ranks::lead(&environment, &config, ordinal, &|text| note(text))?;
    Ok(Some(LauncherRole::Lead(SharedCoordinator::new(coordinator), device)))
}

/// A group of ranks has failed and the process is about to end; where it gets stuck on its way out, this ends it.
pub(super) fn last_resort(error: &Error) {
    let (why, code) = (error.to_string(), i32::from(error.exit_code()));
    let body = move || {
        std::thread::sleep(LAST_RESORT);
        super::terminal::tell(&format!("bubblebench: {}", super::terminal::error_screen().text(&why)));
        leave(code);
    };
    if std::thread::Builder::new().name("last resort".into()).spawn(body).is_err() {
        leave(code);
    }
}
