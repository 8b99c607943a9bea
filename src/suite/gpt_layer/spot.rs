//! Spot checks: where a whole case is too much for the reference, some rows of it are computed in f64 from the very
//! inputs the device had. A schedule that goes wrong only at full size shows here, and in no smaller twin.

use super::check::Comparison;
use crate::Result;
use crate::models::single::Single;
use crate::ops::work::Operation;
use crate::ops::{Attention, Ops};
use crate::stats::SplitMix;

/// Rows that are looked at: the first, the last, and others at random.
const PICKS: usize = 12;

/// Adds what some rows of a case that has run should be; false where the operation has no such check.
pub fn compare<O: Ops>(ops: &mut O, single: &Single<O>, comparison: &mut Comparison) -> Result<bool> {
    let mut read = |buffers: &[O::Buffer]| buffers.iter().map(|b| ops.read(b)).collect::<Result<Vec<_>>>();
    match *single.operation() {
        Operation::AttentionForward(a) => {
            let (results, inputs) = (read(single.results())?, read(single.inputs())?);
            let ([out, lse], [qkv]) = (&results[..], &inputs[..]) else { return Ok(false) };
            forward(&Rows { a, qkv }, out, lse, comparison);
        }
        Operation::AttentionBackward(a) => {
            let (results, inputs) = (read(single.results())?, read(single.inputs())?);
            let ([dqkv], [dout, qkv, out, lse]) = (&results[..], &inputs[..]) else { return Ok(false) };
            backward(&Rows { a, qkv }, dqkv, &Back { dout, out, lse }, comparison);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// One row of one head.
#[derive(Clone, Copy)]
struct Pick {
    batch: usize,
    head: usize,
    row: usize,
}

fn picks(a: &Attention) -> Vec<Pick> {
    let mut random = SplitMix(0x5b07);
    let mut any = |row| Pick { batch: random.below(a.batch), head: random.below(a.heads), row };
    let mut list = vec![any(0), any(a.sequence - 1)];
    let mut rows = SplitMix(0x70b5);
    list.extend((2..PICKS).map(|_| any(rows.below(a.sequence))));
    list
}

/// Packed rows [q | k | v], as `ops::Attention` has them.
struct Rows<'a> {
    a: Attention,
    qkv: &'a [f64],
}

impl Rows<'_> {
    /// `part`: 0 of q, 1 of k, 2 of v. The same place in the gradients.
    fn at(&self, pick: Pick, part: usize, row: usize) -> usize {
        let width = self.a.width();
        ((pick.batch * self.a.sequence + row) * 3 + part) * width + pick.head * self.a.head_size
    }
    fn get(&self, pick: Pick, part: usize, row: usize) -> &[f64] {
        &self.qkv[self.at(pick, part, row)..][..self.a.head_size]
    }
    fn score(&self, pick: Pick, query: usize, key: usize) -> f64 {
        self.a.scale() * dot(self.get(pick, 0, query), self.get(pick, 1, key))
    }
    /// Of the output and its gradient, B·S rows of A·D.
    fn out_at(&self, pick: Pick, row: usize) -> usize {
        (pick.batch * self.a.sequence + row) * self.a.width() + pick.head * self.a.head_size
    }
    fn lse_at(&self, pick: Pick, row: usize) -> usize {
        (pick.batch * self.a.heads + pick.head) * self.a.sequence + row
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, values: &[f64]) {
    to.iter_mut().zip(values).for_each(|(to, v)| *to += factor * v);
}

fn forward(rows: &Rows<'_>, out: &[f64], lse: &[f64], comparison: &mut Comparison) {
    let (size, mut is, mut want) = (rows.a.head_size, [vec![], vec![]], [vec![], vec![]]);
    for pick in picks(&rows.a) {
        let scores: Vec<f64> = (0..=pick.row).map(|key| rows.score(pick, pick.row, key)).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
        let mut row = vec![0.0; size];
        for (key, score) in scores.iter().enumerate() {
            add(&mut row, (score - most).exp() / sum, rows.get(pick, 2, key));
        }
        is[0].extend_from_slice(&out[rows.out_at(pick, pick.row)..][..size]);
        want[0].extend(row);
        is[1].push(lse[rows.lse_at(pick, pick.row)]);
        want[1].push(most + sum.ln());
    }
    is.iter().zip(&want).for_each(|(is, want)| comparison.tensor(is, want));
}

/// What the backward pass reads beside qkv.
struct Back<'a> {
    dout: &'a [f64],
    out: &'a [f64],
    lse: &'a [f64],
}

/// dq of the pick as a query; dk and dv of it as a key.
fn backward(rows: &Rows<'_>, dqkv: &[f64], back: &Back<'_>, comparison: &mut Comparison) {
    let (size, mut is, mut want) = (rows.a.head_size, vec![vec![]; 3], vec![vec![]; 3]);
    for pick in picks(&rows.a) {
        let dout = |row| &back.dout[rows.out_at(pick, row)..][..size];
        let delta = |row| dot(dout(row), &back.out[rows.out_at(pick, row)..][..size]);
        // (P, dS) of a query and a key.
        let pair = |query, key, delta: f64| {
            let p = (rows.score(pick, query, key) - back.lse[rows.lse_at(pick, query)]).exp();
            (p, p * (dot(dout(query), rows.get(pick, 2, key)) - delta) * rows.a.scale())
        };
        let mut sums = vec![vec![0.0; size]; 3];
        let own = delta(pick.row);
        for key in 0..=pick.row {
            add(&mut sums[0], pair(pick.row, key, own).1, rows.get(pick, 1, key));
        }
        for query in pick.row..rows.a.sequence {
            let (p, ds) = pair(query, pick.row, delta(query));
            add(&mut sums[1], ds, rows.get(pick, 0, query));
            add(&mut sums[2], p, dout(query));
        }
        for part in 0..3 {
            is[part].extend_from_slice(&dqkv[rows.at(pick, part, pick.row)..][..size]);
            want[part].append(&mut sums[part]);
        }
    }
    is.iter().zip(&want).for_each(|(is, want)| comparison.tensor(is, want));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::DType;
    use crate::ops::reference::Reference;

    const SHAPE: Attention = Attention::new(2, 3, 37, 8);

    /// The reference itself passes; with one number of a picked row off, it does not.
    #[test]
    fn rows_agree_with_the_whole_and_a_wrong_one_is_seen() {
        for operation in [Operation::AttentionForward(SHAPE), Operation::AttentionBackward(SHAPE)] {
            let mut ops = Reference::new();
            let mut single = Single::new(&mut ops, operation, DType::F32, 3).unwrap();
            single.run(&mut ops);
            let mut comparison = Comparison::new("rows", DType::F64);
            assert!(compare(&mut ops, &single, &mut comparison).unwrap());
            let verified = comparison.finish();
            assert!(verified.wrong == 0 && verified.max_error < 1e-11, "{operation:?}: {verified:?}");
        }
        let mut ops = Reference::new();
        let mut single = Single::new(&mut ops, Operation::AttentionForward(SHAPE), DType::F32, 3).unwrap();
        single.run(&mut ops);
        let (mut results, inputs) = (Vec::new(), ops.read(&single.inputs()[0]).unwrap());
        for result in single.results() {
            results.push(ops.read(result).unwrap());
        }
        let rows = Rows { a: SHAPE, qkv: &inputs };
        let last = picks(&SHAPE)[1];
        results[0][rows.out_at(last, last.row)] += 1e-3;
        let mut comparison = Comparison::new("rows", DType::F64);
        forward(&rows, &results[0], &results[1], &mut comparison);
        assert_eq!(comparison.finish().wrong, 1);
    }

    #[test]
    fn other_operations_have_no_spot_check() {
        let mut ops = Reference::new();
        let single = Single::new(&mut ops, Operation::Residual { len: 4 }, DType::F32, 3).unwrap();
        assert!(!compare(&mut ops, &single, &mut Comparison::new("rows", DType::F64)).unwrap());
    }
}
