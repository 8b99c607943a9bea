//! A product beside an all-reduce, by the multiprocessors that the all-reduce takes: the term that data-parallel and
//! pipeline plans need. Only where there are GPUs to add up with.

use super::streams::StreamPair;
use crate::corun::cuda::{AllReduceSide, StreamMain, StreamSide, Streams};
use crate::ops::Linear;
use crate::suite::Preset;

const MIB: u64 = 1 << 20;

/// Many waves of blocks, and few: where a product is about one wave, each multiprocessor that is gone may cost it
/// another.
const LARGE: Linear = Linear::new(8192, 8192, 8192);
const ONE_WAVE: Linear = Linear::new(2048, 4096, 2048);

fn row(product: Linear, side: StreamSide) -> StreamPair {
    StreamPair { streams: Streams::Plain, main: StreamMain::Product(product), side }
}

/// The product beside nothing, then beside the all-reduce in the given numbers of thread blocks, and in NCCL's own.
fn sweep(product: Linear, ranks: u32, bytes: u64, ctas: &[u32]) -> Vec<StreamPair> {
    let beside = |ctas| row(product, StreamSide::AllReduce(AllReduceSide { ranks, bytes, ctas }));
    let caps = ctas.iter().map(|ctas| Some(*ctas)).chain([None]);
    std::iter::once(row(product, StreamSide::Nothing)).chain(caps.map(beside)).collect()
}

pub fn rows(preset: Preset, gpus: u32) -> Vec<StreamPair> {
    if gpus < 2 {
        return Vec::new();
    }
    match preset {
        Preset::Quick => sweep(LARGE, gpus, 256 * MIB, &[8]),
        Preset::Standard => [LARGE, ONE_WAVE].map(|p| sweep(p, gpus, 256 * MIB, &[2, 4, 8, 16, 32])).concat(),
        Preset::Full => [
            [LARGE, ONE_WAVE].map(|p| sweep(p, gpus, 256 * MIB, &[1, 2, 4, 8, 12, 16, 24, 32])).concat(),
            // Again without the row beside nothing.
            [LARGE, ONE_WAVE].map(|p| sweep(p, gpus, 16 * MIB, &[2, 8, 32])[1..].to_vec()).concat(),
        ]
        .concat(),
    }
}

/// At sizes that the CPU computes in moments.
pub fn software(gpus: u32) -> Vec<StreamPair> {
    if gpus < 2 { Vec::new() } else { sweep(Linear::new(64, 64, 64), gpus, MIB / 16, &[2]) }
}

#[cfg(test)]
mod tests {
    use super::super::streams;
    use super::*;
    use std::collections::HashSet;

    fn ids(preset: Preset) -> Vec<String> {
        streams::specs(rows(preset, 8)).iter().map(|spec| spec.id()).collect()
    }

    #[test]
    fn the_cap_is_in_the_name_and_each_product_runs_beside_nothing() {
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        let name = "corun/stream/product-r8192-i8192-o8192-bf16+all_reduce-r8-bf16-256MiB";
        assert!(quick.contains(&name.to_string()) && quick.contains(&format!("{name}-c8")), "{quick:?}");
        for list in [&quick, &standard, &full] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
            assert!(list.iter().any(|id| id.ends_with("+nothing")));
        }
        assert!(quick.iter().all(|id| standard.contains(id)) && standard.iter().all(|id| full.contains(id)));
        assert!(rows(Preset::Full, 1).is_empty() && software(1).is_empty());
    }
}
