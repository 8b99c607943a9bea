//! Co-run cases: a main beside a side, by sharing mode, with its partner alone in the same sample; and the main beside
//! nothing, which is the noise floor.
//!
//! Names: `corun/<sharing>/<main>+<side>`. A sample is one pair ([`crate::corun::pair`]). `host` holds the cases of the
//! CPU's cores; `streams` those of two streams on a GPU, listed in `gpu` and, for the software
//! device, `software`; `overlap` lists a product beside an all-reduce.

mod gpu;
mod host;
mod overlap;
mod software;
mod streams;

use super::case::{Detail, RawSample, Sampling, Spec};
use super::{Platform, Preset};
use crate::Result;
use crate::clock::Trial;
use crate::corun::pair::Pair;
use crate::machine::gpus;

/// Pairs without which a slowdown means nothing.
const LEAST_PAIRS: usize = 8;
/// Trials for one sample before a case answers with none.
const TRIALS: usize = 3;

/// The preset's co-run cases on this platform, in the order they run.
pub fn cases(preset: Preset, platform: Platform) -> Vec<Box<dyn Spec>> {
    match platform {
        Platform::Host => host::cases(preset),
        Platform::Gpu(_) => streams::specs([gpu::rows(preset), overlap::rows(preset, count())].concat()),
        Platform::Software(_) => streams::specs([software::rows(preset), overlap::software(count())].concat()),
    }
}

/// GPUs between which an all-reduce can run beside something.
fn count() -> u32 {
    gpus::list().map_or(0, |gpus| gpus.len() as u32)
}

fn sampling(pairs: usize) -> Sampling {
    Sampling { batch_ns: 0.0, min_samples: pairs, least_samples: pairs, revisited: false, rule: None }
}

/// At most `n` pairs that count, each with what else was seen of it; those that do not count are tried again.
fn worth_keeping<T>(
    n: u64,
    may_starve: bool,
    discarded: &mut u64,
    mut measure: impl FnMut() -> Result<(Pair, T)>,
) -> Result<Vec<(Pair, T)>> {
    let mut pairs = Vec::new();
    for _ in 0..n {
        for _ in 0..TRIALS {
            let (pair, seen) = measure()?;
            if pair.counts(may_starve) {
                pairs.push((pair, seen));
                break;
            }
            *discarded += 1;
        }
    }
    Ok(pairs)
}

/// `passes`: of the main, in each of the pair's runs; `clock`: what the device's clock did beside the side.
fn sample_of(pair: Pair, passes: u64, clock: &Trial) -> RawSample {
    let detail = Detail::Pair {
        alone_ns: pair.alone_ns / passes.max(1) as f64,
        side_alone_per_s: pair.side_alone_per_s,
        side_together_per_s: pair.side_together_per_s,
        overlap_percent: pair.overlap_percent,
    };
    RawSample { ns: pair.together_ns, detail, ..RawSample::of(clock, passes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = Pair {
        alone_ns: 100.0,
        together_ns: 150.0,
        side_alone_per_s: 8.0,
        side_together_per_s: 4.0,
        overlap_percent: 100.0,
    };

    #[test]
    fn a_sample_is_of_one_pass() {
        let sample = sample_of(PAIR, 5, &Trial { sm_clock_mhz: Some(1980.0), ..Trial::default() });
        assert_eq!((sample.per_operation_ns(), sample.iterations), (30.0, 5));
        assert_eq!(sample.sm_clock_mhz, Some(1980.0));
        assert!(matches!(sample.detail, Detail::Pair { alone_ns: 20.0, side_alone_per_s: 8.0, .. }));
    }

    #[test]
    fn pairs_that_do_not_count_are_tried_again_but_not_for_ever() {
        let mut overlaps = [50.0, 100.0, 10.0, 20.0, 30.0, 100.0].into_iter();
        let mut discarded = 0;
        let pairs = worth_keeping(3, false, &mut discarded, || {
            Ok((Pair { overlap_percent: overlaps.next().unwrap(), ..PAIR }, ()))
        });
        assert_eq!((pairs.unwrap().len(), discarded), (2, 4));
    }
}
