//! Programs that load exactly one resource of the host, with a dial: what a main suffers beside them says how sensitive it
//! is to that resource, and what a fixed piece of one of them suffers beside a side says how hard that side presses.
//!
//! * `fma` — fused multiply-adds between registers: 6 independent vectors of 16 floats a thread, no memory at all.
//! * `memory` — x = x/2 + 1 through an array of at least four times the last-level cache: every line is read and written back.
//! * `cache` — one load from each line of a working set as large as the last-level cache (or as told), in the order of a
//!   full-period congruential generator (Knuth, TAOCP 2, §3.2.1.2), so that no prefetcher helps.
//!
//! `corun::load` and `corun::mains` run these in a pool of threads, one lane a thread.

use crate::{Error, Result};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The one resource of the host that a pressure program loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Fused multiply-adds between registers, without any memory; counted in FLOP.
    Fma,
    /// Memory bandwidth, by a stream through an array of at least four times the last-level cache; counted in bytes
    /// read and written.
    Memory,
    /// The last-level cache, by loads from single lines in pseudo-random order; counted in bytes, 64 a line.
    Cache,
}

impl Resource {
    /// All three resources, in the order in which cases are listed.
    pub const ALL: [Resource; 3] = [Resource::Fma, Resource::Memory, Resource::Cache];

    /// The resource as it stands in case names and options: `fma`, `memory` or `cache`.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Fma => "fma",
            Resource::Memory => "memory",
            Resource::Cache => "cache",
        }
    }

    /// The unit that progress on this resource is counted in: `flop` or `bytes`.
    pub const fn unit(self) -> &'static str {
        match self {
            Resource::Fma => "flop",
            Resource::Memory | Resource::Cache => "bytes",
        }
    }

    /// The resource of that name, as [`Resource::name`] spells it; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == text)
    }
}

/// Which resource a pressure program loads, for how much of the time, and on how large a working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PressureSpec {
    /// The resource that the program loads.
    pub resource: Resource,
    /// Share of the time at work, in percent from 1 to 100; for the rest the program sleeps.
    pub percent: u32,
    /// Working set of `cache` in bytes over all threads, of which each uses a power of two of lines; `None` takes the
    /// size of the last-level cache.
    pub working_set_bytes: Option<u64>,
}

impl PressureSpec {
    /// A program that is at work all the time, on its usual working set.
    pub const fn full(resource: Resource) -> Self {
        PressureSpec { resource, percent: 100, working_set_bytes: None }
    }

    /// The name as it stands in case names behind `pressure-`: `memory`, or `memory-50` for half of the time.
    pub fn name(&self) -> String {
        match self.percent {
            100 => self.resource.name().to_string(),
            percent => format!("{}-{percent}", self.resource.name()),
        }
    }

    /// Reads what [`PressureSpec::name`] writes; any other text is an error.
    pub fn parse(text: &str) -> Result<Self> {
        let (resource, percent) = match text.split_once('-') {
            None => (Resource::parse(text), Some(100)),
            Some((name, percent)) => (Resource::parse(name), percent.parse().ok().filter(|p| (1..=100).contains(p))),
        };
        match (resource, percent) {
            (Some(resource), Some(percent)) => Ok(PressureSpec { percent, ..PressureSpec::full(resource) }),
            _ => Err(Error::input(
                format!("`{text}` is not a pressure"),
                "write fma, memory or cache, with -1 to -100 behind it for a percentage of the time",
            )),
        }
    }
}

const CHAINS: usize = 6;
const WIDTH: usize = 16;
const LINE_FLOATS: usize = 16;
/// Pieces of work in one slice of a pressure program.
pub const PIECES: usize = 4;
/// Rounds, floats and lines of one piece: each about a tenth to a third of a millisecond.
const FMA_ROUNDS: usize = 100_000;
const MEMORY_FLOATS: usize = 1 << 18;
const CACHE_LINES: usize = 1 << 14;

/// One thread's share.
struct Lane {
    data: Vec<f32>,
    at: usize,
    accumulators: [[f32; WIDTH]; CHAINS],
}

/// A pressure program over the threads of a pool.
pub struct HostPressure {
    spec: PressureSpec,
    lanes: Vec<Mutex<Lane>>,
    /// FLOP or bytes done so far, for others to read while it runs.
    progress: Arc<AtomicU64>,
}

impl HostPressure {
    /// Makes the program for `threads` threads on a machine with a last-level cache of this many bytes; an error where
    /// its memory cannot be had.
    pub fn new(spec: PressureSpec, threads: usize, last_level_cache_bytes: u64) -> Result<Self> {
        let threads = threads.max(1);
        let floats = match spec.resource {
            Resource::Fma => 0,
            Resource::Memory => (4 * last_level_cache_bytes as usize / 4).div_ceil(threads).max(2 * MEMORY_FLOATS),
            Resource::Cache => {
                let bytes = spec.working_set_bytes.unwrap_or(last_level_cache_bytes) as usize / threads;
                let lines = (bytes / (4 * LINE_FLOATS)).max(64);
                (1 << lines.ilog2()) * LINE_FLOATS
            }
        };
        let lanes = (0..threads).map(|lane| new_lane(floats, lane)).collect::<Result<_>>()?;
        Ok(HostPressure { spec, lanes, progress: Arc::new(AtomicU64::new(0)) })
    }

    /// The counter of FLOP or bytes done so far, for others to read while the program runs.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// Bytes of all threads' working sets together.
    pub fn memory_bytes(&self) -> u64 {
        self.lanes.iter().map(|l| 4 * l.lock().unwrap_or_else(PoisonError::into_inner).data.len() as u64).sum()
    }

    /// Does one slice on the current rayon pool, about a millisecond at full pressure.
    pub fn slice(&self) {
        self.work(PIECES);
    }

    /// Every thread of the current rayon pool does `pieces` pieces on its own lane; they meet at the end only.
    pub fn work(&self, pieces: usize) {
        rayon::broadcast(|thread| {
            if let Some(lane) = self.lanes.get(thread.index()) {
                let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
                for _ in 0..pieces {
                    self.piece(&mut lane);
                }
            }
        });
    }

    fn piece(&self, lane: &mut Lane) {
        let start = Instant::now();
        let done = match self.spec.resource {
            Resource::Fma => lane.multiply_add(FMA_ROUNDS),
            Resource::Memory => lane.stream(MEMORY_FLOATS),
            Resource::Cache => lane.walk(CACHE_LINES),
        };
        self.progress.fetch_add(done, Relaxed);
        if self.spec.percent < 100 {
            std::thread::sleep(Duration::from_nanos(rest_ns(start.elapsed().as_nanos() as u64, self.spec.percent)));
        }
    }
}

/// Rest after `work_ns`, so that work is `percent` of both.
fn rest_ns(work_ns: u64, percent: u32) -> u64 {
    work_ns * u64::from(100 - percent) / u64::from(percent)
}

fn new_lane(floats: usize, lane: usize) -> Result<Mutex<Lane>> {
    let mut data = Vec::new();
    data.try_reserve_exact(floats).map_err(|_| {
        Error::machine(
            format!("no memory for {} MiB of pressure", floats >> 18),
            "close other programs, or use a smaller preset",
        )
    })?;
    data.resize(floats, 1.5);
    // Lanes start at different places, so that they never run through a shared cache in step.
    let accumulators = std::array::from_fn(|c| std::array::from_fn(|w| 1.0 + 0.01 * (c * WIDTH + w + lane) as f32));
    Ok(Mutex::new(Lane { at: 12_347 * lane, data, accumulators }))
}

impl Lane {
    /// FLOP done.
    fn multiply_add(&mut self, rounds: usize) -> u64 {
        fused_rounds(&mut self.accumulators, rounds);
        black_box(&self.accumulators);
        (2 * CHAINS * WIDTH * rounds) as u64
    }

    /// Bytes read and written.
    fn stream(&mut self, floats: usize) -> u64 {
        let from = self.at % (self.data.len() - floats + 1);
        let window = &mut self.data[from..from + floats];
        window.iter_mut().for_each(|x| *x = *x * 0.5 + 1.0);
        black_box(window);
        self.at = if from + 2 * floats > self.data.len() { 0 } else { from + floats };
        8 * floats as u64
    }

    /// Bytes fetched: whole lines.
    fn walk(&mut self, lines: usize) -> u64 {
        let mask = self.data.len() / LINE_FLOATS - 1;
        let (mut at, mut sum) = (self.at & mask, 0.0);
        for _ in 0..lines {
            // Full period: the multiplier is 1 modulo 4, the increment odd, the modulus a power of two.
            at = (at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)) & mask;
            sum += self.data[at * LINE_FLOATS];
        }
        black_box(sum);
        self.at = at;
        (4 * LINE_FLOATS * lines) as u64
    }
}

/// x = x·0.999 + 0.001 on every accumulator: stays near 1, never denormal.
#[inline(always)]
fn rounds_with(accumulators: &mut [[f32; WIDTH]; CHAINS], rounds: usize, step: impl Fn(f32) -> f32) {
    let mut local = *accumulators;
    for _ in 0..rounds {
        for chain in &mut local {
            for x in chain {
                *x = step(*x);
            }
        }
    }
    *accumulators = local;
}

#[cfg(target_arch = "x86_64")]
fn fused_rounds(accumulators: &mut [[f32; WIDTH]; CHAINS], rounds: usize) {
    #[target_feature(enable = "avx512f")]
    fn wide(accumulators: &mut [[f32; WIDTH]; CHAINS], rounds: usize) {
        rounds_with(accumulators, rounds, |x| x.mul_add(0.999, 0.001));
    }
    #[target_feature(enable = "avx2,fma")]
    fn narrow(accumulators: &mut [[f32; WIDTH]; CHAINS], rounds: usize) {
        rounds_with(accumulators, rounds, |x| x.mul_add(0.999, 0.001));
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor was just asked for avx512f.
        unsafe { wide(accumulators, rounds) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor was just asked for avx2 and fma.
        unsafe { narrow(accumulators, rounds) }
    } else {
        rounds_with(accumulators, rounds, |x| x * 0.999 + 0.001);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fused_rounds(accumulators: &mut [[f32; WIDTH]; CHAINS], rounds: usize) {
    rounds_with(accumulators, rounds, |x| x.mul_add(0.999, 0.001));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_wrong_ones_refused() {
        for text in ["fma", "memory", "cache-25"] {
            assert_eq!(PressureSpec::parse(text).unwrap().name(), text);
        }
        for bad in ["", "disk", "memory-0", "memory-101", "memory-x", "fma-"] {
            assert!(PressureSpec::parse(bad).unwrap_err().to_string().contains("is not a pressure"), "{bad}");
        }
    }

    #[test]
    fn the_fixed_point_of_the_multiply_add_is_reached() {
        // x → 0.999x + 0.001 goes to 1 from anywhere: 20,000 rounds leave less than 1e-6 of the way.
        let lane = new_lane(0, 3).unwrap();
        let mut lane = lane.into_inner().unwrap();
        assert_eq!(lane.multiply_add(20_000), 2 * 96 * 20_000);
        assert!(lane.accumulators.iter().flatten().all(|x| (x - 1.0).abs() < 1e-4));
    }

    #[test]
    fn streaming_reaches_every_element() {
        let mut lane = new_lane(1000, 0).unwrap().into_inner().unwrap();
        let bytes: u64 = (0..10).map(|_| lane.stream(100)).sum();
        assert_eq!(bytes, 8000);
        assert!(lane.data.iter().all(|&x| x == 1.75), "each was 1.5 and is touched once");
    }

    #[test]
    fn the_walk_visits_every_line_once_a_period() {
        let lines = 256;
        let mut lane = new_lane(lines * LINE_FLOATS, 1).unwrap().into_inner().unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..lines {
            lane.walk(1);
            seen.insert(lane.at);
        }
        assert_eq!(seen.len(), lines);
    }

    #[test]
    fn every_resource_makes_progress_in_a_pool_and_holds_what_it_says() {
        let cache = 1 << 20;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for resource in Resource::ALL {
            let pressure = HostPressure::new(PressureSpec::full(resource), 2, cache).unwrap();
            pool.install(|| pressure.slice());
            let done = pressure.progress().load(Relaxed);
            let piece = match resource {
                Resource::Fma => 2 * 96 * FMA_ROUNDS,
                Resource::Memory => 8 * MEMORY_FLOATS,
                Resource::Cache => 64 * CACHE_LINES,
            } as u64;
            assert_eq!(done, 2 * 4 * piece);
            match resource {
                Resource::Fma => assert_eq!(pressure.memory_bytes(), 0),
                Resource::Memory => assert!(pressure.memory_bytes() >= 4 * cache),
                Resource::Cache => assert_eq!(pressure.memory_bytes(), cache),
            }
        }
    }

    #[test]
    fn the_dial_is_a_share_of_the_time() {
        for percent in [1, 25, 50, 99] {
            let rest = rest_ns(1_000_000, percent) as f64;
            let share = 100.0 * 1e6 / (1e6 + rest);
            assert!((share - f64::from(percent)).abs() < 0.01, "{percent}: {share}");
        }
        assert_eq!(rest_ns(1_000_000, 100), 0);
    }
}
