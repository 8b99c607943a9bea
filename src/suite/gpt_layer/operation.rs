//! One operation as a case. Warm, it runs on one set of buffers. Cold, it runs on one set too where the device's cache can
//! be flushed, and elsewhere on as many sets in turn as overflow the caches.

use super::bench::{Bench, LaunchMode, sampling};
use super::check::Comparison;
use super::shared_bench::{SEED, SharedBench};
use super::spot;
use crate::Result;
use crate::models::single::Single;
use crate::ops::reference::Reference;
use crate::ops::work::Operation;
use crate::ops::{DType, Ops};
use crate::records::flags::CACHE_LARGER_THAN_ROTATION;
use crate::records::measurement::{Cache, Kind, Verified};
use crate::shape::params::operation_params;
use crate::suite::case::Sampling;
use crate::suite::{Case, CaseInfo, RawSample};

/// Above this many FLOPs an operation is checked with fewer rows.
const MOST_CHECKED_FLOP: f64 = 3e9;
/// Above this many elements an operation is checked with fewer rows, or narrower.
const MOST_CHECKED_ELEMENTS: f64 = 3e7;
/// The buffers of a cold case never take more than this.
const MOST_COLD_BYTES: f64 = 1e9;

/// How many sets of buffers make a rotation over at least twice the last-level cache.
fn copies(operation: &Operation, dtype: DType, last_level_cache_bytes: u64) -> usize {
    let wanted = (2.0 * last_level_cache_bytes as f64).min(MOST_COLD_BYTES);
    (wanted / operation.bytes(dtype).max(1.0)).ceil().max(1.0) as usize
}

/// Which operation, on data of which type, in which state of the cache.
#[derive(Debug, Clone, Copy)]
pub struct OperationSpec {
    pub operation: Operation,
    pub dtype: DType,
    pub how: LaunchMode,
}

pub struct OperationCase<R: Bench> {
    info: CaseInfo,
    shared: SharedBench<R>,
    what: OperationSpec,
    copies: usize,
    singles: Vec<Single<R::Ops>>,
    next: usize,
}

impl<R: Bench> OperationCase<R> {
    pub fn new(id: String, shared: SharedBench<R>, what: OperationSpec, last_level_cache_bytes: u64) -> Self {
        let OperationSpec { operation, dtype, how } = what;
        let rotates = R::ROTATES && how.cache == Cache::Cold;
        let copies = if rotates { copies(&operation, dtype, last_level_cache_bytes) } else { 1 };
        let mut info = CaseInfo::new(id, Kind::Operation, R::BACKEND);
        info.params = operation_params(&operation);
        info.cache = Some(how.cache);
        info.launch = Some(how.launch);
        info.flop = Some(operation.flop());
        info.bytes = Some(operation.bytes(dtype));
        // A rotation that memory cuts short leaves data in the cache: the row must not call itself cold.
        if rotates && (copies as f64) * operation.bytes(dtype) < 2.0 * last_level_cache_bytes as f64 {
            info.cache = Some(Cache::Warm);
            info.flags.push(CACHE_LARGER_THAN_ROTATION.into());
        }
        let info = info.param("dtype", dtype.name());
        OperationCase { info, shared, what, copies, singles: Vec::new(), next: 0 }
    }
}

impl<R: Bench> Case for OperationCase<R> {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling::<R>(self.what.how)
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let OperationSpec { operation, dtype, .. } = self.what;
        let twin = {
            let mut state = self.shared.lock();
            state.forget_layer();
            state.bench()?.within(|ops| verify(ops, operation, dtype))?
        };
        self.prepare_again()?;
        if affordable(operation) == operation {
            return Ok(Some(twin));
        }
        let single = &self.singles[0];
        self.shared.lock().bench()?.within(|ops| spot_check(ops, single, twin)).map(Some)
    }

    fn prepare_again(&mut self) -> Result<Option<Verified>> {
        let mut state = self.shared.lock();
        state.forget_layer();
        let (OperationSpec { operation, dtype, how }, copies) = (self.what, self.copies);
        let bench = state.bench()?;
        self.singles = bench.within(|ops| -> Result<_> {
            let mut singles = Vec::with_capacity(copies);
            for copy in 0..copies as u64 {
                let mut single = Single::new(ops, operation, dtype, SEED + copy)?;
                single.run(ops);
                singles.push(single);
            }
            ops.synchronize()?;
            Ok(singles)
        })?;
        let first = &mut self.singles[0];
        bench.settle(how, &mut |ops| first.run(ops))?;
        if let Some(choice) = bench.choice(&operation) {
            self.info.params.insert("choice".into(), choice);
        }
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let mut state = self.shared.lock();
        let (singles, next) = (&mut self.singles, &mut self.next);
        state.bench()?.time(self.what.how, n, &mut |ops| {
            singles[*next].run(ops);
            *next = (*next + 1) % singles.len();
        })
    }
}

/// One run on the device against one on the reference, from the same inputs.
fn verify<O: Ops>(ops: &mut O, operation: Operation, dtype: DType) -> Result<Verified> {
    let checked = affordable(operation);
    let against = if checked == operation { "f64 reference".into() } else { smaller(&checked) };
    let mut single = Single::new(ops, checked, dtype, SEED)?;
    single.run(ops);
    let mut exact = Reference::new();
    let mut reference = Single::new(&mut exact, checked, dtype, SEED)?;
    reference.run(&mut exact);
    let mut comparison = Comparison::new(against, dtype);
    for (is, want) in single.results().iter().zip(reference.results()) {
        comparison.tensor(&ops.read(is)?, &exact.read(want)?);
    }
    Ok(comparison.finish())
}

/// A smaller twin was right; of the case itself some rows are looked at too, where the operation has such a check.
fn spot_check<O: Ops>(ops: &mut O, single: &Single<O>, twin: Verified) -> Result<Verified> {
    let mut comparison = Comparison::new(format!("{} and at some rows of the whole", twin.against), ops.dtype());
    if !spot::compare(ops, single, &mut comparison)? {
        return Ok(twin);
    }
    let whole = comparison.finish();
    Ok(Verified { max_error: whole.max_error.max(twin.max_error), wrong: whole.wrong + twin.wrong, ..whole })
}

fn smaller(checked: &Operation) -> String {
    match checked {
        Operation::Linear { shape, .. } => {
            format!("f64 reference at {} rows, {} inputs, {} outputs", shape.rows, shape.inputs, shape.outputs)
        }
        Operation::AttentionForward(a) | Operation::AttentionBackward(a) => {
            format!("f64 reference at batch {}, {} heads, sequence {}", a.batch, a.heads, a.sequence)
        }
        other => format!("f64 reference at {} elements", other.output_elements()),
    }
}

/// The operation, or a twin with fewer rows (and then narrower) where the reference would take too long or too much.
fn affordable(operation: Operation) -> Operation {
    let mut checked = operation;
    while checked.flop() > MOST_CHECKED_FLOP || checked.bytes(DType::F64) / 8.0 > MOST_CHECKED_ELEMENTS {
        match &mut checked {
            Operation::Linear { shape, .. } if shape.rows > 128 => shape.rows /= 2,
            Operation::Linear { shape, .. } if shape.outputs.max(shape.inputs) > 1 => {
                let widest = if shape.outputs >= shape.inputs { &mut shape.outputs } else { &mut shape.inputs };
                *widest = widest.div_ceil(2);
            }
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) if a.batch > 1 => a.batch /= 2,
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) if a.heads > 1 => a.heads /= 2,
            Operation::AttentionForward(a) | Operation::AttentionBackward(a) if a.sequence > 1 => a.sequence /= 2,
            Operation::LayernormForward(r)
            | Operation::LayernormToInputs(r)
            | Operation::LayernormToWeights(r)
            | Operation::CrossEntropy(r)
            | Operation::ResidualLayernorm(r)
            | Operation::EmbeddingForward(r)
            | Operation::EmbeddingToWeights(r)
                if r.rows > 1 =>
            {
                r.rows /= 2;
            }
            Operation::GeluForward { len }
            | Operation::GeluBackward { len }
            | Operation::Residual { len }
            | Operation::Dropout { len }
            | Operation::Adamw { len }
                if *len > 1 =>
            {
                *len /= 2;
            }
            // Nothing is left to shrink.
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
        assert!(affordable(big).flop() <= MOST_CHECKED_FLOP && checked.rows >= 128);
        let wide = Operation::Linear {
            product: Product::ToWeights,
            shape: Linear::new(8192, 12288, 49152),
            epilogue: Epilogue::None,
        };
        let Operation::Linear { shape: checked, .. } = affordable(wide) else { panic!("still a product") };
        assert!(checked.rows >= 64 && checked.inputs >= 1024 && checked.outputs >= 1024, "{checked:?}");
        let update = Operation::Adamw { len: 1 << 28 };
        assert!(matches!(affordable(update), Operation::Adamw { len } if len > 1 << 20));
        let attention = Attention::new(4, 16, 4096, 64);
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
