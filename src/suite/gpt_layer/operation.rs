//! One operation as a case: warm on one set of buffers, or cold on as many as overflow the caches.

use super::check::Comparison;
use super::params::operation_params;
use super::workshop::{SEED, Shared};
use crate::Result;
use crate::clock::{Clock, HostClock};
use crate::models::single::Single;
use crate::ops::host::Host;
use crate::ops::reference::Reference;
use crate::ops::work::Operation;
use crate::ops::{DType, Ops};
use crate::records::measurement::{Backend, Cache, Kind, Verified};
use crate::suite::{Case, CaseInfo, RawSample};

/// Above this many FLOPs an operation is checked with fewer rows.
const MOST_CHECKED_FLOP: f64 = 3e9;
/// The buffers of a cold case never take more than this.
const MOST_COLD_BYTES: f64 = 1e9;

/// How many sets of buffers make a rotation over at least twice the last-level cache.
fn copies(operation: &Operation, dtype: DType, last_level_cache_bytes: u64) -> usize {
    let wanted = (2.0 * last_level_cache_bytes as f64).min(MOST_COLD_BYTES);
    (wanted / operation.bytes(dtype).max(1.0)).ceil().max(1.0) as usize
}

/// Which operation, on data of which type, in which state of the cache.
#[derive(Debug, Clone, Copy)]
pub struct What {
    pub operation: Operation,
    pub dtype: DType,
    pub cache: Cache,
}

pub struct OperationCase {
    info: CaseInfo,
    shared: Shared,
    what: What,
    copies: usize,
    singles: Vec<Single<Host>>,
    next: usize,
}

impl OperationCase {
    pub fn new(id: String, shared: Shared, what: What, last_level_cache_bytes: u64) -> Self {
        let What { operation, dtype, cache } = what;
        let copies = match cache {
            Cache::Warm => 1,
            Cache::Cold => copies(&operation, dtype, last_level_cache_bytes),
        };
        let mut info = CaseInfo::new(id, Kind::Operation, Backend::Host);
        info.params = operation_params(&operation);
        info.cache = Some(cache);
        info.flop = Some(operation.flop());
        info.bytes = Some(operation.bytes(dtype));
        // A rotation that memory cuts short leaves data in the cache: the row must not call itself cold.
        if cache == Cache::Cold && (copies as f64) * operation.bytes(dtype) < 2.0 * last_level_cache_bytes as f64 {
            info.cache = Some(Cache::Warm);
            info.flags.push("cache-larger-than-rotation".into());
        }
        let info = info.param("dtype", dtype.name());
        OperationCase { info, shared, what, copies, singles: Vec::new(), next: 0 }
    }
}

impl Case for OperationCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let mut workshop = self.shared.lock();
        workshop.forget_layer();
        let (What { operation, dtype, .. }, copies) = (self.what, self.copies);
        let (singles, verified) = workshop.host()?.run(|host| -> Result<_> {
            let verified = verify(host, operation, dtype)?;
            let mut singles = Vec::with_capacity(copies);
            for copy in 0..copies as u64 {
                let mut single = Single::new(host, operation, dtype, SEED + copy)?;
                single.run(host);
                singles.push(single);
            }
            host.synchronize()?;
            Ok((singles, verified))
        })?;
        self.singles = singles;
        Ok(Some(verified))
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let mut workshop = self.shared.lock();
        let (singles, next) = (&mut self.singles, &mut self.next);
        let trial = workshop.host()?.run(|host| {
            HostClock.time(&mut || {
                for _ in 0..n {
                    singles[*next].run(host);
                    *next = (*next + 1) % singles.len();
                }
                host.synchronize()
            })
        })?;
        Ok(vec![RawSample::new(trial.ns, n)])
    }
}

/// One run on the host against one on the reference, from the same inputs.
fn verify(host: &mut Host, operation: Operation, dtype: DType) -> Result<Verified> {
    let checked = affordable(operation);
    let against = if checked == operation { "f64 reference".into() } else { fewer_rows(&checked) };
    let mut single = Single::new(host, checked, dtype, SEED)?;
    single.run(host);
    let mut ops = Reference::new();
    let mut reference = Single::new(&mut ops, checked, dtype, SEED)?;
    reference.run(&mut ops);
    let mut comparison = Comparison::new(against, dtype);
    for (is, want) in single.results().iter().zip(reference.results()) {
        comparison.tensor(&host.read(is)?, &ops.read(want)?);
    }
    Ok(comparison.finish())
}

fn fewer_rows(checked: &Operation) -> String {
    let rows = match checked {
        Operation::Linear { shape, .. } => shape.rows,
        Operation::AttentionForward(a) | Operation::AttentionBackward(a) => a.rows(),
        _ => 0,
    };
    format!("f64 reference at {rows} rows")
}

/// The operation, or a twin with fewer rows where the reference would take too long.
fn affordable(operation: Operation) -> Operation {
    let mut checked = operation;
    while checked.flop() > MOST_CHECKED_FLOP {
        match &mut checked {
            Operation::Linear { shape, .. } if shape.rows > 1 => shape.rows /= 2,
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) if a.batch > 1 => a.batch /= 2,
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) if a.sequence > 1 => a.sequence /= 2,
            // Streaming operations never cost that much, and nothing else can shrink.
            _ => return checked,
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::work::{Epilogue, Product};
    use crate::ops::{Attention, Linear};

    #[test]
    fn big_operations_are_checked_with_fewer_rows() {
        let shape = Linear::new(1 << 16, 1024, 4096);
        let big = Operation::Linear { product: Product::Forward, shape, epilogue: Epilogue::Bias };
        let Operation::Linear { shape: checked, .. } = affordable(big) else { panic!("still a product") };
        assert_eq!((checked.inputs, checked.outputs), (1024, 4096));
        assert!(affordable(big).flop() <= MOST_CHECKED_FLOP && checked.rows >= 256);
        let attention = Attention { batch: 4, heads: 16, sequence: 4096, head_size: 64 };
        assert!(affordable(Operation::AttentionBackward(attention)).flop() <= MOST_CHECKED_FLOP);
        let small = Operation::Residual { len: 100 };
        assert_eq!(affordable(small), small);
    }

    #[test]
    fn a_rotation_overflows_the_cache() {
        let operation = Operation::Residual { len: 1 << 20 };
        let copies = copies(&operation, DType::F32, 32 << 20);
        assert!(copies as f64 * operation.bytes(DType::F32) >= 64e6 && copies < 10);
        let big = Operation::Residual { len: 1 << 24 };
        assert_eq!(super::copies(&big, DType::F32, 32 << 20), 1, "it overflows the cache by itself");
    }
}
