//! Allocates and fills a model's buffers, and counts their bytes.
//!
//! Every model is made through a [`Builder`]. Random numbers are rounded to the type the model is
//! measured in before they are written, so that a f64 device given the same seed starts from exactly the same inputs.

use super::pieces::Parameter;
use crate::Result;
use crate::ops::{DType, Ops};
use crate::stats::SplitMix;
use rayon::prelude::*;

/// Makes the buffers of one model on a device, from one seed.
pub struct Builder<'a, O: Ops> {
    /// The device that the buffers are made on.
    pub ops: &'a mut O,
    rounding: DType,
    random: SplitMix,
    bytes: u64,
}

impl<'a, O: Ops> Builder<'a, O> {
    /// A builder whose random numbers come from `seed` and are rounded to `rounding` before they are written.
    pub fn new(ops: &'a mut O, rounding: DType, seed: u64) -> Self {
        Builder { ops, rounding, random: SplitMix(seed), bytes: 0 }
    }

    /// Bytes allocated so far by this builder.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<O::Buffer> {
        self.bytes += (len * dtype.bytes()) as u64;
        self.ops.alloc(len, dtype)
    }

    /// A buffer for an activation, a gradient or a workspace, in the device's type: poisoned until written.
    pub fn floats(&mut self, len: usize) -> Result<O::Buffer> {
        let dtype = self.ops.dtype();
        self.alloc(len, dtype)
    }

    /// A buffer for statistics or optimizer moments, fp32 whatever the model's type.
    pub fn wide(&mut self, len: usize) -> Result<O::Buffer> {
        self.alloc(len, DType::F32)
    }

    /// A buffer of zeros in the device's type.
    pub fn zeros(&mut self, len: usize) -> Result<O::Buffer> {
        let mut buffer = self.floats(len)?;
        self.ops.zero(&mut buffer);
        Ok(buffer)
    }

    /// A buffer that holds these values, rounded to the device's type.
    pub fn values(&mut self, values: &[f64]) -> Result<O::Buffer> {
        let mut buffer = self.floats(values.len())?;
        self.ops.write(&mut buffer, values)?;
        Ok(buffer)
    }

    /// A buffer of 32-bit ids: tokens or class labels.
    pub fn ids(&mut self, ids: &[u32]) -> Result<O::Buffer> {
        let mut buffer = self.alloc(ids.len(), DType::U32)?;
        self.ops.write_ids(&mut buffer, ids)?;
        Ok(buffer)
    }

    /// A buffer of random values mean + deviation·z, with z about normal.
    pub fn normal(&mut self, len: usize, mean: f64, deviation: f64) -> Result<O::Buffer> {
        let values = normal(&mut self.random, self.rounding, len, mean, deviation);
        self.values(&values)
    }

    /// A learned tensor of random values with its gradient, which starts at zero; the bytes of both are counted.
    pub fn parameter(
        &mut self,
        name: impl Into<String>,
        len: usize,
        mean: f64,
        deviation: f64,
    ) -> Result<Parameter<O::Buffer>> {
        let value = self.normal(len, mean, deviation)?;
        let gradient = self.zeros(len)?;
        Ok(Parameter { name: name.into(), len, columns: None, value, gradient })
    }

    /// A weight matrix, outputs × inputs, of random values with mean 0 and deviation `gain`/√inputs (0.02 at 2,500
    /// inputs).
    pub fn matrix(
        &mut self,
        name: impl Into<String>,
        outputs: usize,
        inputs: usize,
        gain: f64,
    ) -> Result<Parameter<O::Buffer>> {
        let parameter = self.parameter(name, outputs * inputs, 0.0, gain / (inputs as f64).sqrt())?;
        Ok(Parameter { columns: Some(inputs), ..parameter })
    }
}

/// Rounds to the nearest value of the type, as writing it to a device would.
pub fn round_to(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F64 | DType::U32 => value,
        DType::F32 => f64::from(value as f32),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::Bf16 => half::bf16::from_f64(value).to_f64(),
    }
}

/// Random numbers close to normal: four 16-bit uniforms summed (Irwin–Hall), because a layer has millions of them and a
/// logarithm each would take longer than the measurement. Made in parallel, yet the same whatever the cores.
pub fn normal(random: &mut SplitMix, rounding: DType, len: usize, mean: f64, deviation: f64) -> Vec<f64> {
    const CHUNK: usize = 1 << 16;
    // The sum of four uniforms on [0, 65535] has this mean and deviation.
    let (centre, spread) = (2.0 * 65535.0, (4.0 * (65536.0f64.powi(2) - 1.0) / 12.0).sqrt());
    let seeds: Vec<u64> = (0..len.div_ceil(CHUNK)).map(|_| random.next_u64()).collect();
    let mut values = vec![0.0; len];
    values.par_chunks_mut(CHUNK).zip(seeds).for_each(|(chunk, seed)| {
        let mut random = SplitMix(seed);
        for value in chunk {
            let bits = random.next_u64();
            let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
            *value = round_to(rounding, mean + deviation * (sum as f64 - centre) / spread);
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reference::Reference;

    #[test]
    fn normal_numbers_have_their_mean_and_deviation() {
        let values = normal(&mut SplitMix(3), DType::F32, 100_000, 2.0, 0.5);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((mean - 2.0).abs() < 0.01 && (variance.sqrt() - 0.5).abs() < 0.01);
        assert!(values.iter().all(|&v| round_to(DType::F32, v) == v));
    }

    #[test]
    fn rounding_is_that_of_the_type() {
        assert_eq!(round_to(DType::Bf16, 1.0 + 1.0 / 512.0), 1.0);
        assert_eq!(round_to(DType::F64, 0.1), 0.1);
        assert_eq!(round_to(DType::F32, 0.1), f64::from(0.1f32));
    }

    #[test]
    fn bytes_are_counted() {
        let mut ops = Reference::new();
        let mut builder = Builder::new(&mut ops, DType::F32, 1);
        builder.floats(10).unwrap();
        builder.ids(&[1, 2]).unwrap();
        builder.parameter("p", 3, 0.0, 1.0).unwrap();
        assert_eq!(builder.bytes(), 80 + 8 + 2 * 24);
    }
}
