//! Random layer-normalisation cases, their f64 reference, and the comparison.

use bubblebench::ops::{DType, LAYERNORM_EPSILON, Rows};
use bubblebench::stats::SplitMix;
use half::{bf16, f16};

/// Inputs as the kernels see them: already rounded to `dtype`.
#[derive(Debug, Clone)]
pub struct Case {
    pub shape: Rows,
    pub dtype: DType,
    pub x: Vec<f64>,
    pub gamma: Vec<f64>,
    pub beta: Vec<f64>,
    pub dy: Vec<f64>,
    pub residual: Option<Vec<f64>>,
    /// What the gradients hold before they are accumulated into.
    pub dgamma: Vec<f64>,
    pub dbeta: Vec<f64>,
}

/// All tensors the three kernels write.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    pub y: Vec<f64>,
    pub mean: Vec<f64>,
    pub rstd: Vec<f64>,
    pub dx: Vec<f64>,
    pub dgamma: Vec<f64>,
    pub dbeta: Vec<f64>,
}

pub fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => bf16::from_f64(value).to_f64(),
        DType::F16 => f16::from_f64(value).to_f64(),
        _ => f64::from(value as f32),
    }
}

/// Ragged and even widths, one to about 5,000 columns; edges of warps, vectors and tiles come first.
pub fn cases(count: usize, dtype: DType) -> Vec<Case> {
    let edges = [1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 264, 1023, 1024, 1025, 2048, 4096, 4099, 5000];
    let mut random = SplitMix(0x1a7e + dtype.bytes() as u64 + (dtype == DType::F16) as u64 * 77);
    let shape = |i: usize, random: &mut SplitMix| {
        let cols = match i {
            i if i < edges.len() => edges[i],
            i if i % 3 == 0 => 8 * (1 + random.below(640)),
            i if i % 3 == 1 => 1 + random.below(5120),
            _ => 1 + random.below(300),
        };
        Rows { rows: 1 + random.below((40_000 / cols).clamp(1, 90)), cols }
    };
    (0..count).map(|i| Case::random(shape(i, &mut random), dtype, &mut random)).collect()
}

impl Case {
    pub fn zeros(rows: usize, cols: usize, dtype: DType) -> Self {
        let (data, row) = (vec![0.0; rows * cols], vec![0.0; cols]);
        Case {
            shape: Rows { rows, cols },
            dtype,
            x: data.clone(),
            gamma: row.clone(),
            beta: row.clone(),
            dy: data,
            residual: None,
            dgamma: row.clone(),
            dbeta: row,
        }
    }

    fn random(shape: Rows, dtype: DType, random: &mut SplitMix) -> Self {
        // Two columns are ±1 once normalised, whatever they were, and dx cancels to the epsilon's share: with a deviation
        // near √epsilon it does not, and the bound can be asked for.
        let scale = if shape.cols == 2 { 3e-3 } else { 0.5 + 2.0 * random.unit() };
        let offset = scale * random.symmetric();
        let mut tensor = |len: usize, scale: f64, offset: f64| -> Vec<f64> {
            (0..len).map(|_| round(offset + scale * random.symmetric(), dtype)).collect()
        };
        let (x, dy) = (tensor(shape.len(), scale, offset), tensor(shape.len(), 1.0, 0.0));
        let (gamma, beta) = (tensor(shape.cols, 0.5, 1.0), tensor(shape.cols, 1.0, 0.0));
        let (dgamma, dbeta) = (tensor(shape.cols, 1.0, 0.0), tensor(shape.cols, 1.0, 0.0));
        let residual = shape.rows.is_multiple_of(2).then(|| tensor(shape.len(), 1.0, 0.0));
        Case { shape, dtype, x, gamma, beta, dy, residual, dgamma, dbeta }
    }

    /// The equations of `cuda/layernorm.cu`'s header, in f64.
    pub fn reference(&self) -> Outputs {
        let Rows { rows, cols } = self.shape;
        let n = cols as f64;
        let mut out = Outputs {
            y: vec![],
            mean: vec![],
            rstd: vec![],
            dx: vec![],
            dgamma: self.dgamma.clone(),
            dbeta: self.dbeta.clone(),
        };
        for r in 0..rows {
            let (x, dy) = (&self.x[r * cols..][..cols], &self.dy[r * cols..][..cols]);
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let rstd = 1.0 / (variance + LAYERNORM_EPSILON).sqrt();
            let hat: Vec<f64> = x.iter().map(|v| (v - mean) * rstd).collect();
            let g: Vec<f64> = dy.iter().zip(&self.gamma).map(|(d, w)| d * w).collect();
            let mean_g = g.iter().sum::<f64>() / n;
            let mean_gx = g.iter().zip(&hat).map(|(a, b)| a * b).sum::<f64>() / n;
            for c in 0..cols {
                let skip = self.residual.as_ref().map_or(0.0, |residual| residual[r * cols + c]);
                out.y.push(hat[c] * self.gamma[c] + self.beta[c]);
                out.dx.push(rstd * (g[c] - mean_g - hat[c] * mean_gx) + skip);
                out.dgamma[c] += dy[c] * hat[c];
                out.dbeta[c] += dy[c];
            }
            out.mean.push(mean);
            out.rstd.push(rstd);
        }
        out
    }

    /// Panics where a tensor is further from the reference than its type allows.
    pub fn check(&self, result: &Outputs) {
        let reference = self.reference();
        let bound = match self.dtype {
            DType::Bf16 => 1e-2,
            DType::F16 => 1e-3,
            _ => 1e-5,
        };
        // The sum of one column's terms may cancel; the terms are what is rounded, so they are the scale.
        let config = (self.shape.rows as f64).sqrt();
        for (name, got, want, bound, least) in [
            ("y", &result.y, &reference.y, bound, 0.0),
            ("mean", &result.mean, &reference.mean, 1e-5, 1.0),
            ("rstd", &result.rstd, &reference.rstd, 1e-5, 0.0),
            ("dx", &result.dx, &reference.dx, bound, 0.0),
            ("dgamma", &result.dgamma, &reference.dgamma, bound, 1e-3 * config),
            ("dbeta", &result.dbeta, &reference.dbeta, bound, 1e-3 * config),
        ] {
            let (error, scale) = distance(got, want);
            let ok = error <= bound * scale.max(least);
            assert!(ok, "{name} of {:?} {:?}: off by {error:e} at a scale of {scale:e}", self.shape, self.dtype);
        }
    }
}

/// Largest distance and largest reference; a NaN anywhere, or another length, is infinitely far.
fn distance(got: &[f64], want: &[f64]) -> (f64, f64) {
    if got.len() != want.len() {
        return (f64::INFINITY, 0.0);
    }
    let far = |a: &f64, b: &f64| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
    let error = got.iter().zip(want).map(|(a, b)| far(a, b)).fold(0.0, f64::max);
    (error, want.iter().fold(0.0, |most, v| v.abs().max(most)))
}
