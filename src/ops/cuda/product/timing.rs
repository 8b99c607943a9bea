//! How long work on a stream takes, for choosing between ways to do it: by events, the median of a few runs.

use crate::Result;
use crate::machine::driver_error;
use crate::ops::cuda::Cuda;
use cudarc::driver::CudaEvent;
use std::time::{Duration, Instant};

/// Runs timed of what may be the best; of anything slower than `HOPELESS` times the best so far, one.
const RUNS: usize = 3;
const HOPELESS: f64 = 1.3;
/// A run by itself may take that much longer than one of many.
const START_NS: f64 = 10_000.0;
/// A run shorter than this is repeated within its stamps until it is about as long.
const LEAST_NS: f64 = 60_000.0;
const MOST_REPEATS: f64 = 8.0;
/// A run longer than this needs no second one: what disturbs it is small beside it.
const LONG_NS: f64 = 1e6;
/// Long runs extend the budget to this many of the first, but not beyond `MOST_EXTENDED`.
const LONG_RUNS: f64 = 12.0;
const MOST_EXTENDED: Duration = Duration::from_millis(40);

/// Two events and the time that is left for the choice.
pub struct Stopwatch {
    start: CudaEvent,
    end: CudaEvent,
    began: Instant,
    budget: Duration,
}

impl Stopwatch {
    pub fn new(cuda: &Cuda, budget: Duration) -> Result<Self> {
        let (start, end) = (cuda.gpu.timed_event()?, cuda.gpu.timed_event()?);
        Ok(Stopwatch { start, end, began: Instant::now(), budget })
    }

    pub fn out_of_time(&self) -> bool {
        self.began.elapsed() >= self.budget
    }

    /// Nanoseconds of one run. `best` is what it has to beat.
    pub fn time(
        &mut self,
        cuda: &mut Cuda,
        best: Option<f64>,
        mut run: impl FnMut(&mut Cuda) -> Result<()>,
    ) -> Result<f64> {
        // The first run loads the kernel's code.
        run(cuda)?;
        let first = self.once(cuda, 1, &mut run)?;
        let extended = Duration::from_nanos((LONG_RUNS * first) as u64).min(MOST_EXTENDED);
        self.budget = self.budget.max(extended);
        let hopeless = best.is_some_and(|best| first > HOPELESS * best + START_NS);
        if hopeless || first > LONG_NS || self.out_of_time() {
            return Ok(first);
        }
        let repeats = (LEAST_NS / first.max(1.0)).clamp(1.0, MOST_REPEATS) as u32;
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            times.push(self.once(cuda, repeats, &mut run)?);
            if self.out_of_time() {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn once(&self, cuda: &mut Cuda, repeats: u32, run: &mut impl FnMut(&mut Cuda) -> Result<()>) -> Result<f64> {
        let failed = |e| driver_error("cannot time a product", e);
        self.start.record(&cuda.stream).map_err(failed)?;
        for _ in 0..repeats {
            run(cuda)?;
        }
        self.end.record(&cuda.stream).map_err(failed)?;
        let ms = self.start.elapsed_ms(&self.end).map_err(failed)?;
        Ok(f64::from(ms) * 1e6 / f64::from(repeats))
    }
}
