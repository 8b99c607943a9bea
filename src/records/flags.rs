//! The flags a line of `measurements.jsonl` can carry: what was odd about a case, a word each.
//!
//! Whoever writes or asks for a flag names the constant, never the word: `tests/docs.rs` holds the code to that, and the
//! table in docs/reading.md to [`ALL`]. A line also carries the names of the reasons for which the GPU throttled, which are
//! `machine::nvml::reasons`' and stand in no list here.

/// The case cannot run on this machine; `params.reason` says why. The line has no time.
pub const SKIPPED: &str = "skipped";
/// The result differed from the exact one, so the line has no time.
pub const WRONG: &str = "wrong";
/// Every sample was taken while the GPU throttled. None is left, so the line has no time.
pub const THROTTLED: &str = "throttled";
/// The case ran and gave no sample that counts, so the line has no time.
pub const NO_SAMPLE: &str = "no-sample";
/// The kernel broke the GPU or never ended. The run ended there, and the next one goes on behind this case.
pub const GPU_FAULT: &str = "gpu-fault";
/// This program was at fault. The run ended there, and the next one goes on behind this case.
pub const BUG: &str = "bug";
/// The 95 % interval of the median is wider than 2 % of it.
pub const NOISY: &str = "noisy";
/// The case's time was up before the interval was as narrow as the preset asks for.
pub const CAPPED: &str = "capped";
/// The SM clock could not be told to 1 % for at least half of the samples, so none was discarded by its clock.
pub const UNRESOLVED: &str = "clock: unresolved";
/// A cold trial's stream could not be held, so launch latency is part of a short time.
pub const UNBLOCKED: &str = "unblocked";
/// Another process computed on the GPU while the case ran.
pub const OTHER_PROCESSES: &str = "other-processes";
/// A rotation over copies of the operands may take 1 GB, and twice the last-level cache is more than that: data stays in
/// the cache, so the line says `warm` where `cold` was asked for.
pub const CACHE_LARGER_THAN_ROTATION: &str = "cache-larger-than-rotation";
/// There are more ranks than cores: the scheduler is measured. Such curves are fitted, marked, and kept out of the
/// accuracy figures.
pub const OVERSUBSCRIBED: &str = "oversubscribed";
/// Several ranks share one GPU: copies and contention are measured, not links.
pub const SHARED_GPU: &str = "shared-gpu";
/// `CUDA_DEVICE_MAX_CONNECTIONS` is 1: both streams share one hardware queue and hardly overlap.
pub const ONE_CONNECTION: &str = "one-connection";
/// The side's thread set its pace, not the GPU: too many of its steps found their stream empty.
pub const LAUNCH_BOUND: &str = "side-launch-bound";
/// The line was made from another tool's output.
pub const IMPORTED: &str = "imported";
/// The line was measured on the software device, whose times mean nothing.
pub const SOFTWARE: &str = "software";

/// Every flag above. The names of throttling reasons are not among them.
pub const ALL: [&str; 18] = [
    SKIPPED,
    WRONG,
    THROTTLED,
    NO_SAMPLE,
    GPU_FAULT,
    BUG,
    NOISY,
    CAPPED,
    UNRESOLVED,
    UNBLOCKED,
    OTHER_PROCESSES,
    CACHE_LARGER_THAN_ROTATION,
    OVERSUBSCRIBED,
    SHARED_GPU,
    ONE_CONNECTION,
    LAUNCH_BOUND,
    IMPORTED,
    SOFTWARE,
];
