//! Causal self-attention on the GPU: which tile a head size gets on which GPU, and the launches. The kernels and their
//! contracts are in `cuda/attention_forward.cu`, `cuda/attention_backward.cu` and, for f32, `cuda/attention_plain.cu`.
//! The choice is plain arithmetic, shared with the tests that run the kernels on the CPU.
//!
//! `BUBBLEBENCH_WGMMA=1` takes `cuda/attention_forward_sm90.cu` where it has the head size, on compute capability 9.0 only;
//! without it nothing does.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::ops::{Attention, DType};
use crate::{Error, Result};
use std::sync::OnceLock;

mod tiles;

pub use tiles::{BackwardTile, ForwardTile, HEAD_SIZES, WarpgroupTile, backward_tile, forward_tile, warpgroup_tile};

/// The switch, read once.
const WGMMA: &str = "BUBBLEBENCH_WGMMA";

/// Elements a row of a shared tile is longer than the head (`kTilePad`).
const PAD: usize = 8;
/// Queries the scratch is padded to (`kPadded`), and those one block of the kernels around takes.
const PADDED: usize = 64;
const STRIP: usize = 16;
/// Rows a block of the plain kernels takes, and the widest head they do (`kPlainRows`, `kPlainHead`).
const PLAIN_ROWS: usize = 4;
const PLAIN_HEAD: usize = 256;
/// The largest grid in y.
const MOST_BLOCKS: usize = 65_535;

/// One launch of an attention kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionPlan {
    /// The kernel's name, such as `attention_forward_d128_128x64_bf16`.
    pub kernel: String,
    /// The launch: (batch · heads, tiles of queries or keys) blocks, their threads and dynamic shared memory.
    pub geometry: Geometry,
}

impl AttentionPlan {
    fn new(kernel: String, lines: usize, blocks: usize, threads: usize, shared_bytes: usize) -> Self {
        let geometry = Geometry::new([lines as u32, blocks as u32, 1], [threads as u32, 1, 1]);
        AttentionPlan { kernel, geometry: geometry.shared(shared_bytes as u32) }
    }
}

/// The forward launch on a GPU that allows a block `shared_bytes` of shared memory; an error where no kernel takes the
/// head size.
pub fn forward_plan(shape: Attention, dtype: DType, shared_bytes: u32) -> Result<AttentionPlan> {
    let lines = shape.batch * shape.heads;
    if dtype == DType::F32 {
        return plain_plan("forward_plain", shape);
    }
    let tile = forward_tile(shape.head_size, shared_bytes).ok_or_else(|| unsupported(shape, dtype))?;
    let blocks = shape.sequence.div_ceil(tile.rows);
    Ok(AttentionPlan::new(tile.kernel(dtype), lines, blocks, 32 * tile.warps, tile.shared_bytes()))
}

/// The forward launch on `wgmma`, for compute capability 9.0; `None` where no such kernel takes head size and type.
pub fn forward_plan_wgmma(shape: Attention, dtype: DType) -> Option<AttentionPlan> {
    let tile = warpgroup_tile(shape.head_size).filter(|_| matches!(dtype, DType::Bf16 | DType::F16))?;
    let (lines, blocks) = (shape.batch * shape.heads, shape.sequence.div_ceil(WarpgroupTile::ROWS));
    Some(AttentionPlan::new(tile.kernel(dtype), lines, blocks, WarpgroupTile::THREADS, tile.shared_bytes()))
}

/// Whether this value of `BUBBLEBENCH_WGMMA` asks for `wgmma` (1), on a GPU of that compute capability (90 for 9.0). An
/// error where that GPU has none, and for a value other than 0 and 1.
pub fn wgmma_wanted(value: Option<&str>, capability: u32) -> Result<bool> {
    let refused = |value: &str, cure: String| Err(Error::input(format!("{WGMMA}={value}"), cure));
    match value.map(str::trim) {
        None | Some("" | "0") => Ok(false),
        Some("1") if capability == 90 => Ok(true),
        Some("1") => {
            let has = format!("{}.{}", capability / 10, capability % 10);
            refused("1", format!("wgmma needs compute capability 9.0, this GPU has {has}: unset the variable"))
        }
        Some(other) => refused(other, "choose 0 or 1".to_string()),
    }
}

/// The switch as this process was given it.
pub(super) fn wgmma_switch() -> Option<&'static str> {
    static VALUE: OnceLock<Option<String>> = OnceLock::new();
    VALUE.get_or_init(|| std::env::var_os(WGMMA).map(|value| value.to_string_lossy().into_owned())).as_deref()
}

/// The backward launches, in order: what comes before the products, the products, and dq after them; in f32 one for the
/// queries and one for the keys. An error where no kernel takes the head size.
pub fn backward_plans(shape: Attention, dtype: DType, shared_bytes: u32) -> Result<Vec<AttentionPlan>> {
    let Attention { batch, heads, sequence, head_size, .. } = shape;
    let lines = batch * heads;
    if dtype == DType::F32 {
        return ["backward_plain_query", "backward_plain_key"]
            .map(|name| plain_plan(name, shape))
            .into_iter()
            .collect();
    }
    let tile = backward_tile(head_size, shared_bytes).ok_or_else(|| unsupported(shape, dtype))?;
    let around = |name: &str, blocks| {
        AttentionPlan::new(format!("attention_backward_{name}_{}", dtype.name()), lines, blocks, 8 * STRIP, 0)
    };
    let blocks = sequence.div_ceil(tile.keys);
    Ok(vec![
        around("prepare", padded(sequence) / STRIP),
        AttentionPlan::new(tile.kernel(dtype), lines, blocks, 32 * tile.warps, tile.shared_bytes()),
        around("query", sequence.div_ceil(STRIP)),
    ])
}

/// f32, without tensor cores.
fn plain_plan(name: &str, shape: Attention) -> Result<AttentionPlan> {
    if shape.head_size > PLAIN_HEAD {
        return Err(unsupported(shape, DType::F32));
    }
    let blocks = shape.sequence.div_ceil(PLAIN_ROWS);
    Ok(AttentionPlan::new(format!("attention_{name}_f32"), shape.batch * shape.heads, blocks, 32 * PLAIN_ROWS, 0))
}

/// Elements (fp32) of the two parts of the backward pass's scratch memory: two statistics per query, then the sums of
/// dq.
pub const fn scratch_lens(shape: Attention) -> [usize; 2] {
    let queries = shape.batch * shape.heads * padded(shape.sequence);
    [2 * queries, queries * shape.head_size]
}

const fn padded(sequence: usize) -> usize {
    sequence.next_multiple_of(PADDED)
}

fn unsupported(shape: Attention, dtype: DType) -> Error {
    let sizes = HEAD_SIZES.map(|size| size.to_string()).join(", ");
    Error::input(
        format!("attention with a head size of {} in {} on the GPU", shape.head_size, dtype.name()),
        format!("choose a head size of {sizes} (f32: any up to {PLAIN_HEAD}), or --device host"),
    )
}

/// Heads, sequence and head size as the kernels take them; `None` where there is nothing to do.
fn dimensions(shape: Attention, dtype: DType) -> Result<Option<[Arg; 3]>> {
    let Attention { batch, heads, sequence, head_size, .. } = shape;
    int("attention: batch × heads", batch.saturating_mul(heads))?;
    int("attention: elements of a row of qkv", heads.saturating_mul(head_size).saturating_mul(3))?;
    let longest = MOST_BLOCKS * if dtype == DType::F32 { PLAIN_ROWS } else { STRIP };
    if sequence > longest {
        let what = format!("attention over a sequence of {sequence} in {}", dtype.name());
        return Err(Error::input(what, format!("the kernels take at most {longest}")));
    }
    let sizes = [int("heads", heads)?, int("sequence", sequence)?, int("head size", head_size)?];
    Ok((batch * heads * sequence * head_size > 0).then_some(sizes.map(Arg::I32)))
}

fn check_forward(shape: Attention, out: &CudaBuffer, lse: &CudaBuffer, qkv: &CudaBuffer, dtype: DType) -> Result<()> {
    let len = shape.rows() * shape.width();
    check("attention", "out", out, len, dtype)?;
    check("attention", "qkv", qkv, 3 * len, dtype)?;
    check("attention", "lse", lse, shape.lse_len(), DType::F32)
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_attention_forward(
        &mut self,
        shape: Attention,
        out: &mut CudaBuffer,
        lse: &mut CudaBuffer,
        qkv: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        check_forward(shape, out, lse, qkv, dtype)?;
        let Some([heads, sequence, head_size]) = dimensions(shape, dtype)? else { return Ok(()) };
        let plan = self.chosen_forward(shape, dtype)?;
        let mut arguments = vec![out.arg_mut(), lse.arg_mut(), qkv.arg(), heads, sequence];
        if dtype == DType::F32 {
            arguments.push(head_size);
        }
        arguments.push(Arg::F32(shape.scale() as f32));
        self.launch(&plan.kernel, plan.geometry, &mut arguments)
    }

    /// The kernel that the forward pass of this shape takes on this GPU; `None` where there is none.
    pub fn attention_kernel(&self, shape: Attention) -> Option<String> {
        self.chosen_forward(shape, self.data_type()).ok().map(|plan| plan.kernel)
    }

    fn chosen_forward(&self, shape: Attention, dtype: DType) -> Result<AttentionPlan> {
        match forward_plan_wgmma(shape, dtype).filter(|_| self.gpu.wgmma) {
            Some(plan) => Ok(plan),
            None => forward_plan(shape, dtype, self.facts().shared_bytes),
        }
    }

    pub(super) fn try_attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut CudaBuffer,
        dout: &CudaBuffer,
        qkv: &CudaBuffer,
        out: &CudaBuffer,
        lse: &CudaBuffer,
        workspace: &mut CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        check_forward(shape, out, lse, qkv, dtype)?;
        let len = shape.rows() * shape.width();
        check("attention", "dqkv", dqkv, 3 * len, dtype)?;
        check("attention", "dout", dout, len, dtype)?;
        check("attention", "the workspace", workspace, shape.lse_len(), DType::F32)?;
        let Some(sizes) = dimensions(shape, dtype)? else { return Ok(()) };
        let plans = backward_plans(shape, dtype, self.facts().shared_bytes)?;
        let [dqkv, delta] = [dqkv.arg_mut(), workspace.arg_mut()];
        let operands = [dout.arg(), qkv.arg(), out.arg(), lse.arg()];
        let scale = Arg::F32(shape.scale() as f32);
        let arguments = if dtype == DType::F32 {
            plain_arguments(dqkv, delta, operands, sizes, scale)
        } else {
            let [statistics, sums] = scratch_lens(shape);
            let scratch = self.scratch(4 * (statistics + sums))?;
            let [statistics, sums] = [scratch, scratch + 4 * statistics as u64].map(Arg::Pointer);
            tile_arguments(dqkv, [statistics, sums], operands, sizes, scale)
        };
        plans.iter().zip(arguments).try_for_each(|(plan, mut list)| self.launch(&plan.kernel, plan.geometry, &mut list))
    }
}

/// Of the two launches in f32.
fn plain_arguments(
    dqkv: Arg,
    delta: Arg,
    [dout, qkv, out, lse]: [Arg; 4],
    [heads, sequence, head_size]: [Arg; 3],
    scale: Arg,
) -> Vec<Vec<Arg>> {
    vec![
        vec![dqkv, delta, dout, qkv, out, lse, heads, sequence, head_size, scale],
        vec![dqkv, delta, dout, qkv, lse, heads, sequence, head_size, scale],
    ]
}

/// Of the three launches on tensor cores.
fn tile_arguments(
    dqkv: Arg,
    [statistics, sums]: [Arg; 2],
    [dout, qkv, out, lse]: [Arg; 4],
    [heads, sequence, head_size]: [Arg; 3],
    scale: Arg,
) -> Vec<Vec<Arg>> {
    vec![
        vec![statistics, sums, dout, out, lse, heads, sequence, head_size],
        vec![dqkv, sums, statistics, dout, qkv, heads, sequence, scale],
        vec![dqkv, sums, heads, sequence, head_size, scale],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Attention = Attention::new(2, 3, 300, 128);

    #[test]
    fn launches_cover_every_row_and_key() {
        let plan = forward_plan(SHAPE, DType::Bf16, 232_448).unwrap();
        assert_eq!(plan.kernel, "attention_forward_d128_128x64_bf16");
        assert_eq!(plan.geometry, Geometry::new([6, 3, 1], [128, 1, 1]).shared(104_448));
        let plans = backward_plans(SHAPE, DType::F16, 232_448).unwrap();
        let [before, products, after] = &plans[..] else { panic!("three launches") };
        assert_eq!(before.geometry.grid, [6, 20, 1]);
        assert_eq!(products.kernel, "attention_backward_d128_64x128_f16");
        assert_eq!(products.geometry, Geometry::new([6, 3, 1], [256, 1, 1]).shared(158_720));
        assert_eq!(after.geometry.grid, [6, 19, 1]);
        assert_eq!(scratch_lens(SHAPE), [2 * 6 * 320, 6 * 320 * 128]);
    }

    #[test]
    fn wgmma_is_off_unless_asked_for_on_hopper() {
        for (value, capability, wanted) in [
            (None, 90, Some(false)),
            (Some("0"), 80, Some(false)),
            (Some(" 1 "), 90, Some(true)),
            (Some("yes"), 90, None),
        ] {
            assert_eq!(wgmma_wanted(value, capability).ok(), wanted, "{value:?}");
        }
        for capability in [80, 86, 100] {
            let error = wgmma_wanted(Some("1"), capability).unwrap_err().to_string();
            assert!(error.contains("BUBBLEBENCH_WGMMA=1") && error.contains("needs compute capability 9.0"), "{error}");
        }
        let plan = forward_plan_wgmma(SHAPE, DType::F16).unwrap();
        assert_eq!(plan.kernel, "attention_forward_sm90_d128_128x128_f16");
        assert_eq!(plan.geometry, Geometry::new([6, 3, 1], [256, 1, 1]).shared(232_448));
        assert!(forward_plan_wgmma(SHAPE, DType::F32).is_none());
        assert!(forward_plan_wgmma(Attention { head_size: 96, ..SHAPE }, DType::Bf16).is_none());
    }

    #[test]
    fn what_the_kernels_do_not_take_is_refused_with_a_cure() {
        for head_size in [1, 48, 72, 112, 512] {
            let error = forward_plan(Attention { head_size, ..SHAPE }, DType::Bf16, 232_448).unwrap_err().to_string();
            assert!(error.contains(&format!("head size of {head_size}")) && error.contains("80, 96, 128"), "{error}");
            assert!(backward_plans(Attention { head_size, ..SHAPE }, DType::F16, 232_448).is_err());
        }
        assert!(forward_plan(Attention { head_size: 7, ..SHAPE }, DType::F32, 0).is_ok());
        assert!(forward_plan(Attention { head_size: 257, ..SHAPE }, DType::F32, 0).is_err());
        assert!(dimensions(Attention { sequence: 1 << 20, ..SHAPE }, DType::Bf16).is_err());
        assert!(dimensions(Attention { batch: 1 << 31, ..SHAPE }, DType::Bf16).is_err());
        assert!(dimensions(Attention { batch: 0, ..SHAPE }, DType::Bf16).is_ok_and(|sizes| sizes.is_none()));
    }
}
