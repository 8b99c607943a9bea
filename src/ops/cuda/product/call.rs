//! A product as it was asked for, its buffers checked and turned into addresses; and as cuBLASLt sees it.
//!
//! A row-major r × c matrix is a column-major c × r one with leading dimension c, so the transposes change sides:
//!
//! | product | row-major | D = op(A)·op(B) | m × n, k |
//! |---|---|---|---|
//! | forward | Y = X·Wᵀ | Wᵀ·X (TN) | outputs × rows, inputs |
//! | to inputs | dX = dY·W | W·dY (NN) | inputs × rows, outputs |
//! | to weights | dW = dYᵀ·X | X·dYᵀ (NT) | inputs × outputs, rows |

use crate::ops::cuda::CudaBuffer;
use crate::ops::cuda::cublaslt::{Description, Fused, Operands};
use crate::ops::cuda::launch::{check, int};
use crate::ops::work::{Epilogue, Product};
use crate::ops::{DType, Linear};
use crate::{Error, Result};

/// What a plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProductKey {
    pub product: Product,
    pub shape: Linear,
    pub epilogue: Epilogue,
    pub dtype: DType,
    pub output: DType,
    /// Of the bias gradient, where there is one.
    pub gradient: Option<DType>,
    /// Bytes that the addresses of A, B and the output are multiples of.
    alignment: [u32; 3],
}

/// A product on checked buffers. The addresses live as long as the call that borrowed the buffers.
#[derive(Debug, Clone, Copy)]
pub struct ProductCall {
    pub key: ProductKey,
    pub a: u64,
    pub b: u64,
    pub out: u64,
    /// The bias, or the bias gradient.
    pub bias: u64,
    /// The GELU's input.
    pub pre: u64,
}

/// m, n, k in the library's terms.
pub const fn dimensions(product: Product, shape: Linear) -> [usize; 3] {
    let Linear { rows, inputs, outputs, .. } = shape;
    match product {
        Product::Forward => [outputs, rows, inputs],
        Product::ToInputs => [inputs, rows, outputs],
        Product::ToWeights => [inputs, outputs, rows],
    }
}

const fn name(product: Product) -> &'static str {
    match product {
        Product::Forward => "linear_forward",
        Product::ToInputs => "linear_to_inputs",
        Product::ToWeights => "linear_to_weights",
    }
}

impl ProductCall {
    /// `operands` are A and B.
    pub fn new(
        product: Product,
        shape: Linear,
        epilogue: Epilogue,
        dtype: DType,
        out: &mut CudaBuffer,
        operands: [&CudaBuffer; 2],
    ) -> Result<Self> {
        let [m, n, k] = dimensions(product, shape);
        for (what, value) in [("rows", shape.rows), ("inputs", shape.inputs), ("outputs", shape.outputs)] {
            int(&format!("{}: {what}", name(product)), value)?;
        }
        let lengths = [m * k, k * n];
        for ((buffer, len), name_of) in operands.iter().zip(lengths).zip(operand_names(product)) {
            check(name(product), name_of, buffer, len, dtype)?;
        }
        // Sums for a wider result are kept as they are; an epilogue that reads data would have to be of two types.
        let wider = out.dtype() == DType::F32 && matches!(epilogue, Epilogue::None | Epilogue::BiasGradient);
        let output = if wider { DType::F32 } else { dtype };
        check(name(product), "the result", out, m * n, output)?;
        if k == 0 && m * n > 0 {
            return Err(Error::input(
                format!("{}: a sum of no terms ({shape:?})", name(product)),
                "give a size of 1 or more",
            ));
        }
        let [a, b] = operands.map(|buffer| buffer.memory.pointer());
        let out = out.memory.pointer();
        let alignment = [a, b, out].map(alignment);
        let key = ProductKey { product, shape, epilogue, dtype, output, gradient: None, alignment };
        Ok(ProductCall { key, a, b, out, bias: 0, pre: 0 })
    }

    pub fn with_bias(self, bias: &CudaBuffer) -> Result<Self> {
        check(name(self.key.product), "bias", bias, self.key.shape.outputs, self.key.dtype)?;
        Ok(ProductCall { bias: bias.memory.pointer(), ..self })
    }

    /// The gradient is of the data's type or fp32.
    pub fn with_gradient(mut self, dbias: &mut CudaBuffer) -> Result<Self> {
        let dtype = if dbias.dtype() == DType::F32 { DType::F32 } else { self.key.dtype };
        check(name(self.key.product), "dbias", dbias, self.key.shape.outputs, dtype)?;
        self.key.gradient = Some(dtype);
        Ok(ProductCall { bias: dbias.memory.pointer(), ..self })
    }

    pub fn with_pre(self, pre: &CudaBuffer) -> Result<Self> {
        check(name(self.key.product), "pre", pre, self.out_len(), self.key.dtype)?;
        Ok(ProductCall { pre: pre.memory.pointer(), ..self })
    }

    pub const fn out_len(&self) -> usize {
        let [m, n, _] = dimensions(self.key.product, self.key.shape);
        m * n
    }

    pub const fn beta(&self) -> f32 {
        if self.key.shape.accumulate { 1.0 } else { 0.0 }
    }

    /// The product alone, into its output.
    pub const fn operands(&self) -> Operands {
        let ProductCall { a, b, out, bias, pre, .. } = *self;
        Operands { a, b, c: out, d: out, bias, aux: pre, beta: self.beta() }
    }
}

impl ProductKey {
    pub fn description(&self, fused: Fused) -> Description {
        let [m, n, k] = dimensions(self.product, self.shape);
        let [a, b, out] = self.alignment;
        Description {
            m,
            n,
            k,
            transpose_a: self.product == Product::Forward,
            transpose_b: self.product == Product::ToWeights,
            input: self.dtype,
            output: self.output,
            fused,
            alignment: [a, b, out, out],
        }
    }
}

const fn operand_names(product: Product) -> [&'static str; 2] {
    match product {
        Product::Forward => ["w", "x"],
        Product::ToInputs => ["w", "dy"],
        Product::ToWeights => ["x", "dy"],
    }
}

/// The largest power of two, up to 256, that divides the address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Column-major op(A)·op(B) of the row-major operands is the row-major product, by the definition of each.
    #[test]
    fn column_major_products_are_the_row_major_ones() {
        let shape = Linear::new(2, 3, 4);
        // The row-major operand A of each product as (rows, columns): W, W, X.
        for (product, a_rows, a_cols) in
            [(Product::Forward, 4, 3), (Product::ToInputs, 4, 3), (Product::ToWeights, 2, 3)]
        {
            let [m, _, k] = dimensions(product, shape);
            let transposed = product == Product::Forward;
            // Stored column-major it is a_cols × a_rows.
            let op = if transposed { (a_rows, a_cols) } else { (a_cols, a_rows) };
            assert_eq!(op, (m, k), "{product:?}");
        }
    }

    #[test]
    fn alignment_is_the_address_own_up_to_256() {
        assert_eq!([0x1000, 0x1002, 0x1010, 0x1080].map(alignment), [256, 2, 16, 128]);
    }
}
