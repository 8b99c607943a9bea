//! The vocabulary on this machine's CPU: f32 on all the cores it is given.
//!
//! [`Host`] owns a thread pool of its own, so that two models beside each other keep to their own cores. Products go
//! through the `gemm` crate, everything else is loops over slices that the compiler vectorises (`simd`). A kernel is a
//! function of plain slices in the file of its operation; `vocabulary` checks lengths and calls it.

// A kernel's arguments are the operation's operands, as many as its formula has.
#![allow(clippy::too_many_arguments)]

mod activation;
mod attention;
mod buffer;
mod columns;
mod conv;
mod cross_entropy;
mod dropout;
mod embedding;
mod groupnorm;
mod impl_ops;
mod layernorm;
mod lstm;
mod optimizer;
mod pool;
mod product;
mod simd;
mod team;
#[cfg(test)]
mod testing;

use buffer::BufferResult;
pub use buffer::HostBuffer;
use team::Team;

use crate::machine::threads;
use crate::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;

/// How many threads compute, and where they may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The number of threads that compute, at least 1.
    pub threads: usize,
    /// The set of cores all threads are bound to; `None` leaves it to the system.
    pub cores: Option<Vec<usize>>,
    /// Niceness of every thread, 0 to 19 without privileges; `None` leaves it as it is.
    pub nice: Option<i32>,
}

impl HostConfig {
    /// One thread per core this process may use, unbound.
    pub fn all_cores() -> Self {
        HostConfig { threads: threads::available_cores().len(), cores: None, nice: None }
    }

    /// One thread per core of the set, bound to it.
    pub fn on_cores(cores: &[usize]) -> Self {
        HostConfig { threads: cores.len(), cores: Some(cores.to_vec()), nice: None }
    }
}

/// The CPU as a device.
///
/// Operations run when they are called and are over when they return; like an asynchronous device, they report errors
/// at [`crate::ops::Ops::synchronize`] only. Called from another thread each of them hops into the pool and back (some
/// 10 µs): time whole loops inside [`Host::run`].
#[derive(Debug)]
pub struct Host {
    workers: Arc<ThreadPool>,
    team: Team,
    /// The first operation that could not run since the last synchronisation.
    failure: Option<Error>,
}

impl Host {
    /// Starts the threads; an error where there are none, or where they cannot be started, bound to these cores or
    /// given this niceness.
    pub fn new(config: HostConfig) -> Result<Self> {
        if config.threads == 0 {
            return Err(Error::input("a host with 0 threads cannot compute", "give at least one thread"));
        }
        let workers = ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|index| format!("host-{index}"))
            .build()
            .map_err(|cause| {
                Error::machine(format!("cannot start {} threads: {cause}", config.threads), "ask for fewer threads")
            })?;
        let settle = |_: rayon::BroadcastContext<'_>| {
            config.cores.as_deref().map_or(Ok(()), threads::pin_current_thread)?;
            config.nice.map_or(Ok(()), threads::set_current_nice)
        };
        workers.broadcast(settle).into_iter().collect::<Result<()>>()?;
        Ok(Host { workers: Arc::new(workers), team: Team { threads: config.threads }, failure: None })
    }

    /// A host with one thread per core this process may use, unbound; an error where they cannot be started.
    pub fn all_cores() -> Result<Self> {
        Host::new(HostConfig::all_cores())
    }

    /// The number of threads that compute.
    pub const fn threads(&self) -> usize {
        self.team.threads
    }

    /// Runs `work` on one of the host's own threads: operations inside it start without a hop between threads.
    pub fn run<R: Send>(&mut self, work: impl FnOnce(&mut Host) -> R + Send) -> R {
        let workers = Arc::clone(&self.workers);
        workers.install(|| work(self))
    }

    /// Runs `work` on one of the host's own threads, as [`Host::run`] does, for work that has no need of the host
    /// itself.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.workers.install(work)
    }

    /// The host's threads, for who wraps the host (a gate, say) and still wants the whole loop on them.
    pub fn workers(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.workers)
    }

    /// Runs one operation in the pool; what does not fit is kept for the next synchronisation, the first one wins.
    fn step(&mut self, operation: &str, kernel: impl FnOnce(Team) -> BufferResult + Send) {
        let team = self.team;
        if let Err(misfit) = self.workers.install(|| kernel(team)) {
            self.failure.get_or_insert_with(|| {
                Error::input(
                    format!("{operation} was not run: {}", misfit.0),
                    "make every buffer as long as the shape's formula in `ops` says",
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{DType, Ops};

    #[test]
    fn a_whole_loop_runs_inside_the_pool() {
        let mut host = Host::new(HostConfig { threads: 2, cores: None, nice: None }).unwrap();
        let mut x = host.alloc(4, DType::F32).unwrap();
        host.write(&mut x, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut y = host.alloc(4, DType::F32).unwrap();
        let inside = host.run(|host| {
            host.residual(4, &mut y, &x, &x);
            std::thread::current().name().is_some_and(|name| name.starts_with("host-"))
        });
        host.synchronize().unwrap();
        assert!(inside);
        assert_eq!(host.read(&y).unwrap(), [2.0, 4.0, 6.0, 8.0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_thread_keeps_to_its_cores() {
        let core = *threads::available_cores().last().unwrap();
        let host = Host::new(HostConfig { threads: 3, cores: Some(vec![core]), nice: None }).unwrap();
        let seen = host.workers.broadcast(|_| threads::available_cores());
        assert_eq!(seen, vec![vec![core]; 3]);
        assert!(Host::new(HostConfig::on_cores(&[9_999_999])).unwrap_err().to_string().contains("choose among"));
        assert!(Host::new(HostConfig { threads: 0, cores: None, nice: None }).is_err());
        assert!(Host::new(HostConfig { threads: 1, cores: None, nice: Some(99) }).is_err());
    }

    #[test]
    fn the_first_misfit_surfaces_once_and_names_the_operation() {
        let mut host = Host::new(HostConfig { threads: 1, cores: None, nice: None }).unwrap();
        let mut y = host.alloc(3, DType::F32).unwrap();
        let x = host.alloc(4, DType::F32).unwrap();
        host.residual(4, &mut y, &x, &x);
        host.relu_forward(5, &mut y, &x);
        let error = host.synchronize().unwrap_err().to_string();
        assert!(error.starts_with("residual was not run: `out` has 3 elements"), "{error}");
        host.synchronize().unwrap();
        assert!(host.write(&mut y, &[0.0]).is_err() && host.write_ids(&mut y, &[0, 0, 0]).is_err());
    }
}
