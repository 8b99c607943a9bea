//! Which rank is this process? Read from the variables that torchrun, Slurm and MPI launchers set for every process
//! they start.
//!
//! `RANK`/`WORLD_SIZE` (torchrun, Kubernetes operators, by hand) come first, because they are also set under the other
//! two; then Open MPI's, then MPICH's and Intel MPI's, then Slurm's. What is half there or cannot be is an error that
//! names the variables, because ranks that guess differently would wait for each other.

use super::slurm;
use crate::{Error, Result};

/// The port at which rank 0 waits if the launcher does not give one: torchrun's own default.
const DEFAULT_PORT: u16 = 29500;

/// A process's place among the ranks that a launcher (torchrun, Slurm, MPI) started, read from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankEnvironment {
    /// This process's rank, counted from 0.
    pub rank: usize,
    /// Number of ranks that the launcher started; 2 or more.
    pub ranks: usize,
    /// This process's number among the ranks of its host, counted from 0; 0 where the launcher does not tell it.
    pub local_rank: usize,
    /// Name or IP address of rank 0's host.
    pub address: String,
    /// TCP port at which rank 0 waits for the others: `MASTER_PORT` or 29500, and the next one under torchrun's own
    /// store.
    pub port: u16,
    /// Whether all ranks are known to be on this host; where the launcher does not tell, whether rank 0's address is a
    /// loopback one.
    pub one_host: bool,
    /// The launcher's own name for the job, by which ranks of two jobs are told apart; `None` where it has none.
    pub job: Option<String>,
}

/// The names of one launcher's variables.
struct Dialect {
    rank: &'static str,
    ranks: &'static str,
    local_rank: &'static str,
    /// Number of ranks on this host.
    local_ranks: &'static str,
    job: &'static [&'static str],
    start: &'static str,
}

const TORCHRUN: Dialect = Dialect {
    rank: "RANK",
    ranks: "WORLD_SIZE",
    local_rank: "LOCAL_RANK",
    local_ranks: "LOCAL_WORLD_SIZE",
    job: &["TORCHELASTIC_RUN_ID"],
    start: "start with torchrun, or set RANK and WORLD_SIZE on every rank",
};
const OPEN_MPI: Dialect = Dialect {
    rank: "OMPI_COMM_WORLD_RANK",
    ranks: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    local_ranks: "OMPI_COMM_WORLD_LOCAL_SIZE",
    job: &["PMIX_NAMESPACE"],
    start: "start with mpirun",
};
const HYDRA: Dialect = Dialect {
    rank: "PMI_RANK",
    ranks: "PMI_SIZE",
    local_rank: "MPI_LOCALRANKID",
    local_ranks: "MPI_LOCALNRANKS",
    job: &[],
    start: "start with mpiexec",
};
const SLURM: Dialect = Dialect {
    rank: "SLURM_PROCID",
    ranks: "SLURM_NTASKS",
    local_rank: "SLURM_LOCALID",
    local_ranks: "",
    job: &["SLURM_JOB_ID", "SLURM_STEP_ID"],
    start: "start with srun",
};

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl RankEnvironment {
    /// Reads the environment of this process; `None` where no launcher started it, or only this one process. An error
    /// where the variables are half set, contradict each other or name no rank, or rank 0's address is missing.
    pub fn detect() -> Result<Option<RankEnvironment>> {
        Self::from(&|name| std::env::var(name).ok())
    }

    fn from(env: Env) -> Result<Option<RankEnvironment>> {
        let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        // The batch script of a Slurm job is told of its tasks, and is none of them.
        let batch = set("ENVIRONMENT").as_deref() == Some("BATCH") && set("SLURM_STEP_ID").is_none();
        let step = !batch && set(SLURM.rank).is_some();
        for dialect in [&TORCHRUN, &OPEN_MPI, &HYDRA, &SLURM] {
            if dialect.rank == SLURM.rank && !step {
                continue;
            }
            // srun itself speaks PMI-1/2 too, and leaves the rank on its host to its own variables.
            if dialect.rank == HYDRA.rank && step && set(HYDRA.local_rank).is_none() {
                continue;
            }
            if let Some(environment) = dialect.read(&set)? {
                contradiction(&environment, dialect, &set)?;
                return Ok(Some(environment).filter(|environment| environment.ranks > 1));
            }
        }
        Ok(None)
    }
}

impl Dialect {
    fn read(&self, set: Env) -> Result<Option<RankEnvironment>> {
        let ranks_name = if self.rank == SLURM.rank && set("SLURM_STEP_NUM_TASKS").is_some() {
            "SLURM_STEP_NUM_TASKS"
        } else {
            self.ranks
        };
        let (rank, ranks) = match (number(set, self.rank)?, number(set, ranks_name)?) {
            (Some(rank), Some(ranks)) => (rank, ranks),
            (None, None) => return Ok(None),
            (rank, _) => {
                let (there, missing) = if rank.is_some() { (self.rank, ranks_name) } else { (ranks_name, self.rank) };
                return Err(Error::input(
                    format!("{there} is set and {missing} is not"),
                    format!("{}, or unset both", self.start),
                ));
            }
        };
        if rank >= ranks {
            return Err(Error::input(
                format!("{}={rank} and {ranks_name}={ranks}: there is no such rank", self.rank),
                "ranks count from 0",
            ));
        }
        let local_rank = match number(set, self.local_rank)? {
            Some(local) if local > rank => {
                let what = format!("{}={local} is more than {}={rank}", self.local_rank, self.rank);
                return Err(Error::input(what, "a rank has no more ranks before it on its host than in all"));
            }
            Some(local) => local,
            None => 0,
        };
        let here = self.local_ranks(set)?;
        let one_host = here == Some(ranks);
        let (address, port) = self.meeting_place(set, rank, one_host, here)?;
        let job: Vec<String> = self.job.iter().filter_map(|name| set(name)).collect();
        Ok(Some(RankEnvironment {
            rank,
            ranks,
            local_rank,
            one_host: one_host || (here.is_none() && is_loopback(&address)),
            address,
            port,
            // torchrun's default name says nothing.
            job: Some(job.join(".")).filter(|job| !job.is_empty() && job != "none"),
        }))
    }

    /// Number of ranks on this host, where the launcher tells it.
    fn local_ranks(&self, set: Env) -> Result<Option<usize>> {
        if self.rank != SLURM.rank {
            return number(set, self.local_ranks);
        }
        let nodes = match number(set, "SLURM_STEP_NUM_NODES")? {
            Some(nodes) => Some(nodes),
            None => number(set, "SLURM_NNODES")?,
        };
        let tasks = number(set, "SLURM_STEP_NUM_TASKS")?;
        let tasks = if tasks.is_some() { tasks } else { number(set, self.ranks)? };
        Ok(if nodes == Some(1) { tasks } else { nodes.and(Some(0)) })
    }

    fn meeting_place(&self, set: Env, rank: usize, one_host: bool, here: Option<usize>) -> Result<(String, u16)> {
        let port = match set("MASTER_PORT") {
            None => DEFAULT_PORT,
            Some(text) => text.trim().parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                Error::input(
                    format!("MASTER_PORT={text} is no port"),
                    "give a free port from 1 to 65535, the same on every rank",
                )
            })?,
        };
        // torchrun's agent listens at MASTER_PORT itself; the ports beside it are ours.
        let port = match set("TORCHELASTIC_USE_AGENT_STORE").as_deref() {
            Some("True") => port.checked_add(1).unwrap_or(port - 1),
            _ => port,
        };
        if let Some(address) = set("MASTER_ADDR") {
            return Ok((address.trim().to_string(), port));
        }
        let hosts = set("SLURM_STEP_NODELIST").or_else(|| set("SLURM_JOB_NODELIST")).or_else(|| set("SLURM_NODELIST"));
        match hosts {
            _ if one_host => Ok(("127.0.0.1".into(), port)),
            Some(hosts) if self.rank == SLURM.rank => Ok((slurm::first_host(&hosts)?, port)),
            _ if here.is_none() && self.rank == SLURM.rank => Ok(("127.0.0.1".into(), port)),
            _ => Err(Error::input(
                format!(
                    "{}={rank} is set and MASTER_ADDR is not, so this rank does not know where rank 0 is",
                    self.rank
                ),
                "set MASTER_ADDR to the name of rank 0's host on every rank (mpirun -x MASTER_ADDR=node1), or 127.0.0.1 where all are on one",
            )),
        }
    }
}

/// Two launchers that speak of equally many ranks must mean the same one.
fn contradiction(environment: &RankEnvironment, spoken: &Dialect, set: Env) -> Result<()> {
    for other in [&TORCHRUN, &OPEN_MPI, &HYDRA].iter().filter(|other| other.rank != spoken.rank) {
        let (Some(rank), Some(ranks)) = (number(set, other.rank)?, number(set, other.ranks)?) else { continue };
        if ranks == environment.ranks && rank != environment.rank {
            return Err(Error::input(
                format!("{}={} and {}={rank} contradict each other", spoken.rank, environment.rank, other.rank),
                format!("unset the one that is left over from another launcher, {} or {}", spoken.rank, other.rank),
            ));
        }
    }
    Ok(())
}

fn number(set: Env, name: &str) -> Result<Option<usize>> {
    let Some(text) = set(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            Err(Error::input(format!("{name}={text} is no count"), "let the launcher set it, or give a whole number"))
        }
    }
}

fn is_loopback(address: &str) -> bool {
    address == "localhost"
        || address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn environment(text: &str) -> Result<Option<RankEnvironment>> {
        let pairs: HashMap<&str, &str> = text.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        RankEnvironment::from(&|name| pairs.get(name).map(|value| value.to_string()))
    }

    fn is(text: &str, rank: usize, ranks: usize, local: usize, place: &str, one_host: bool) {
        let got = environment(text).unwrap().unwrap();
        let at = format!("{}:{}", got.address, got.port);
        assert_eq!(
            (got.rank, got.ranks, got.local_rank, at.as_str(), got.one_host),
            (rank, ranks, local, place, one_host),
            "{text}"
        );
    }

    fn refused(text: &str, named: &[&str]) {
        let error = environment(text).unwrap_err().to_string();
        assert!(named.iter().all(|name| error.contains(name)) && !error.contains('\n'), "{text}: {error}");
    }

    #[test]
    fn torchrun() {
        let two_hosts = "RANK=9 WORLD_SIZE=16 LOCAL_RANK=1 LOCAL_WORLD_SIZE=8 MASTER_ADDR=node1 MASTER_PORT=29400";
        is(two_hosts, 9, 16, 1, "node1:29400", false);
        // The agent's store is at MASTER_PORT.
        is(&format!("{two_hosts} TORCHELASTIC_USE_AGENT_STORE=True"), 9, 16, 1, "node1:29401", false);
        is(&format!("{two_hosts} TORCHELASTIC_USE_AGENT_STORE=False"), 9, 16, 1, "node1:29400", false);
        is("RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4 MASTER_ADDR=me", 1, 4, 1, "me:29500", true);
        is("RANK=1 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4", 1, 4, 1, "127.0.0.1:29500", true);
        // By hand.
        is(
            "RANK=3 WORLD_SIZE=4 LOCAL_RANK=3 MASTER_ADDR=127.0.0.1 MASTER_PORT=29611",
            3,
            4,
            3,
            "127.0.0.1:29611",
            true,
        );
        is("RANK=3 WORLD_SIZE=4 LOCAL_RANK=3 MASTER_ADDR=::1", 3, 4, 3, "::1:29500", true);
    }

    #[test]
    fn slurm() {
        let job = "SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_NNODES=2 SLURM_JOB_ID=77 SLURM_STEP_ID=0";
        is(&format!("{job} SLURM_JOB_NODELIST=gpu[07-09,12]"), 5, 8, 1, "gpu07:29500", false);
        is(
            &format!("{job} SLURM_JOB_NODELIST=gpu[07-09] SLURM_STEP_NODELIST=gpu[08-09]"),
            5,
            8,
            1,
            "gpu08:29500",
            false,
        );
        is(
            &format!("{job} SLURM_JOB_NODELIST=gpu[07-08] MASTER_ADDR=login MASTER_PORT=1234"),
            5,
            8,
            1,
            "login:1234",
            false,
        );
        assert_eq!(environment(&format!("{job} SLURM_NODELIST=a,b")).unwrap().unwrap().job.as_deref(), Some("77.0"));
        is(
            "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=1 SLURM_NNODES=1 SLURM_JOB_NODELIST=a",
            1,
            2,
            1,
            "127.0.0.1:29500",
            true,
        );
        // A step of fewer tasks than the job.
        is(
            "SLURM_PROCID=1 SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_LOCALID=1",
            1,
            2,
            1,
            "127.0.0.1:29500",
            true,
        );
        // With PMI-2 srun sets MPICH's names as well, without the rank on the host.
        let pmi = "PMI_RANK=5 PMI_SIZE=8 SLURM_JOB_NODELIST=gpu[07-08]";
        is(&format!("{job} {pmi}"), 5, 8, 1, "gpu07:29500", false);
        // The batch script itself is no task of a step; one that srun starts from it is.
        let script = "ENVIRONMENT=BATCH SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_NNODES=1";
        assert_eq!(environment(script).unwrap(), None);
        is(&format!("{script} SLURM_STEP_ID=0"), 0, 8, 0, "127.0.0.1:29500", true);
        // salloc says how many tasks there will be, and no more.
        assert_eq!(environment("SLURM_NTASKS=8 SLURM_JOB_ID=7").unwrap(), None);
    }

    #[test]
    fn mpi() {
        let open =
            "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2";
        is(&format!("{open} MASTER_ADDR=n1"), 2, 4, 0, "n1:29500", false);
        refused(open, &["OMPI_COMM_WORLD_RANK", "MASTER_ADDR"]);
        is(
            "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2",
            1,
            2,
            1,
            "127.0.0.1:29500",
            true,
        );
        is("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", 1, 2, 1, "127.0.0.1:29500", true);
        // mpirun inside a Slurm allocation, and torchrun inside a step of it.
        is(&format!("{open} MASTER_ADDR=n1 SLURM_PROCID=0 SLURM_NTASKS=1"), 2, 4, 0, "n1:29500", false);
        is(
            "RANK=9 WORLD_SIZE=16 LOCAL_RANK=1 MASTER_ADDR=n1 SLURM_PROCID=1 SLURM_NTASKS=2",
            9,
            16,
            1,
            "n1:29500",
            false,
        );
    }

    #[test]
    fn nobody_and_one_alone_are_no_group() {
        assert_eq!(environment("HOME=/root").unwrap(), None);
        assert_eq!(environment("MASTER_ADDR=x MASTER_PORT=y").unwrap(), None);
        assert_eq!(environment("RANK=0 WORLD_SIZE=1 MASTER_ADDR=x").unwrap(), None);
        assert_eq!(environment("RANK= WORLD_SIZE=").unwrap(), None);
    }

    #[test]
    fn half_set_and_contradictory_variables_are_named() {
        refused("RANK=1", &["RANK", "WORLD_SIZE is not"]);
        refused("WORLD_SIZE=4 LOCAL_RANK=0", &["WORLD_SIZE", "RANK is not"]);
        refused("RANK=4 WORLD_SIZE=4 MASTER_ADDR=x", &["RANK=4", "WORLD_SIZE=4"]);
        refused("RANK=-1 WORLD_SIZE=4 MASTER_ADDR=x", &["RANK=-1"]);
        refused("RANK=one WORLD_SIZE=4", &["RANK=one"]);
        refused("RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 MASTER_ADDR=x", &["LOCAL_RANK=2", "RANK=1"]);
        refused("RANK=1 WORLD_SIZE=4", &["MASTER_ADDR"]);
        refused("RANK=1 WORLD_SIZE=4 MASTER_ADDR=x MASTER_PORT=70000", &["MASTER_PORT=70000"]);
        refused("RANK=1 WORLD_SIZE=4 MASTER_ADDR=x MASTER_PORT=0", &["MASTER_PORT=0"]);
        refused(
            "RANK=1 WORLD_SIZE=4 MASTER_ADDR=x OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4",
            &["RANK=1", "OMPI_COMM_WORLD_RANK=2"],
        );
        refused("SLURM_PROCID=1", &["SLURM_PROCID", "SLURM_NTASKS is not"]);
        refused("SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_JOB_NODELIST=gpu[7", &["gpu[7"]);
    }
}
