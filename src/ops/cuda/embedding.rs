//! Embedding lookup and its gradient on the GPU: launches and the scratch memory that lists each token's rows. The kernels
//! and their contract are in `cuda/embedding.cu`.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::machine::driver_error;
use crate::ops::{DType, Embedding};
use crate::{Error, Result};
use cudarc::driver::result;

const WARP: usize = 32;
/// Vectors of 16 bytes of each input that a thread has in flight (`kInFlight`).
const IN_FLIGHT: usize = 4;
const MOST_THREADS: usize = 256;
/// Rows a block of the lookup takes when one warp is enough for a row.
const ROWS_PER_BLOCK: usize = 4;
/// Threads of the blocks that sum rows.
const SUM_THREADS: usize = 128;
const LIST_THREADS: u32 = 256;
/// Blocks in the second dimension of a grid.
const MOST_TILES: usize = 65_535;

/// The launch of the lookup: a thread moves up to four vectors (16 bytes) of a row at once.
pub fn forward_geometry(shape: Embedding, dtype: DType) -> Geometry {
    let vectors = (shape.hidden * dtype.bytes()).div_ceil(16);
    let threads = vectors.div_ceil(IN_FLIGHT).next_multiple_of(WARP).clamp(WARP, MOST_THREADS);
    let rows_per_block = if threads == WARP { ROWS_PER_BLOCK } else { 1 };
    let grid = u32::try_from(shape.rows.div_ceil(rows_per_block)).unwrap_or(u32::MAX);
    Geometry::new([grid, 1, 1], [threads as u32, rows_per_block as u32, 1])
}

/// The launch that sums rows into `targets` rows of a table: a thread takes one vector (16 bytes) of columns.
pub fn sum_geometry(targets: usize, shape: Embedding, dtype: DType) -> Geometry {
    let vectors = (shape.hidden * dtype.bytes()).div_ceil(16);
    let threads = vectors.next_multiple_of(WARP).clamp(WARP, SUM_THREADS);
    let dimension = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Geometry::new([dimension(targets), dimension(vectors.div_ceil(threads)), 1], [threads as u32, 1, 1])
}

/// Where the lists of the tokens' rows lie in scratch memory, in integers from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lists {
    /// Offset of each token's number of rows: `vocabulary` integers, zero before the first kernel.
    pub counts: usize,
    /// Offset of the number of places handed out so far: one integer, zero before the first kernel.
    pub cursor: usize,
    /// Offset of each token's first place in the lists, set for tokens that occur: `vocabulary` integers.
    pub starts: usize,
    /// Offset of each row's position among the rows of its token, in no particular order: `rows` integers.
    pub slot: usize,
    /// Offset of the rows grouped by token, in no particular order within a token: `rows` integers.
    pub list: usize,
    /// Offset of the rows grouped by token, ascending within a token: `rows` integers.
    pub ordered: usize,
    /// The length of all lists together, in integers.
    pub len: usize,
}

impl Lists {
    /// Lays out the lists for this shape, with what has to be zero first: the counts and the cursor.
    pub const fn new(shape: Embedding) -> Self {
        let starts = shape.vocabulary + 1;
        let slot = starts + shape.vocabulary;
        let list = slot + shape.rows;
        let ordered = list + shape.rows;
        Lists { counts: 0, cursor: shape.vocabulary, starts, slot, list, ordered, len: ordered + shape.rows }
    }

    /// The number of integers, from the start, that must be zero before the first kernel.
    pub const fn zeros(&self) -> usize {
        self.starts
    }
}

/// Rows, sequence, vocabulary and hidden size as the kernels take them.
struct Sizes {
    rows: Arg,
    sequence: Arg,
    vocabulary: Arg,
    hidden: Arg,
}

impl Sizes {
    fn new(shape: Embedding, dtype: DType) -> Result<Self> {
        if shape.sequence == 0 && shape.rows > 0 {
            return Err(Error::input("embedding: a sequence of no positions", "give every row a position"));
        }
        if (shape.hidden * dtype.bytes()).div_ceil(16 * SUM_THREADS) > MOST_TILES {
            return Err(Error::input(format!("embedding of {} columns", shape.hidden), "choose a smaller hidden size"));
        }
        Ok(Sizes {
            rows: Arg::I32(int("embedding rows", shape.rows)?),
            sequence: Arg::I32(int("embedding sequence", shape.sequence)?),
            vocabulary: Arg::I32(int("embedding vocabulary", shape.vocabulary)?),
            hidden: Arg::I32(int("embedding columns", shape.hidden)?),
        })
    }
}

impl Cuda {
    pub(super) fn try_embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut CudaBuffer,
        tokens: &CudaBuffer,
        table: &CudaBuffer,
        positions: &CudaBuffer,
    ) -> Result<()> {
        let (dtype, name) = (self.data_type(), "embedding_forward");
        check(name, "out", out, shape.rows * shape.hidden, dtype)?;
        check(name, "tokens", tokens, shape.rows, DType::U32)?;
        check(name, "table", table, shape.vocabulary * shape.hidden, dtype)?;
        check(name, "positions", positions, shape.sequence * shape.hidden, dtype)?;
        let sizes = Sizes::new(shape, dtype)?;
        if shape.rows * shape.hidden == 0 {
            return Ok(());
        }
        let pointers = [out.arg_mut(), tokens.arg(), table.arg(), positions.arg()];
        let numbers = [sizes.rows, sizes.sequence, sizes.vocabulary, sizes.hidden];
        let mut arguments = [&pointers[..], &numbers[..]].concat();
        self.launch(&format!("{name}_{}", dtype.name()), forward_geometry(shape, dtype), &mut arguments)
    }

    /// dtable\[token\[r\]\] += dout\[r\], dpositions\[r mod sequence\] += dout\[r\].
    pub(super) fn try_embedding_to_weights(
        &mut self,
        shape: Embedding,
        dtable: &mut CudaBuffer,
        dpositions: &mut CudaBuffer,
        dout: &CudaBuffer,
        tokens: &CudaBuffer,
    ) -> Result<()> {
        let (dtype, name) = (self.data_type(), "embedding_to_weights");
        check(name, "dtable", dtable, shape.vocabulary * shape.hidden, dtype)?;
        check(name, "dpositions", dpositions, shape.sequence * shape.hidden, dtype)?;
        check(name, "dout", dout, shape.rows * shape.hidden, dtype)?;
        check(name, "tokens", tokens, shape.rows, DType::U32)?;
        let sizes = Sizes::new(shape, dtype)?;
        if shape.rows * shape.hidden == 0 {
            return Ok(());
        }
        self.add_to_table(shape, &sizes, dtable, dout, tokens)?;
        let mut arguments = [dpositions.arg_mut(), dout.arg(), sizes.rows, sizes.sequence, sizes.hidden];
        let geometry = sum_geometry(shape.sequence, shape, dtype);
        self.launch(&format!("embedding_positions_{}", dtype.name()), geometry, &mut arguments)
    }

    /// Lists each token's rows, then adds them up.
    fn add_to_table(
        &mut self,
        shape: Embedding,
        sizes: &Sizes,
        dtable: &mut CudaBuffer,
        dout: &CudaBuffer,
        tokens: &CudaBuffer,
    ) -> Result<()> {
        let dtype = self.data_type();
        let lists = Lists::new(shape);
        let start = self.scratch(lists.len * size_of::<i32>())?;
        self.bind()?;
        // SAFETY: scratch memory of that length and more, on this stream's own context.
        unsafe { result::memset_d8_async(start, 0, lists.zeros() * size_of::<i32>(), self.stream.cu_stream()) }
            .map_err(|e| driver_error("cannot clear scratch memory", e))?;
        let at = |integers: usize| Arg::Pointer(start + (integers * size_of::<i32>()) as u64);
        let (counts, cursor, starts) = (at(lists.counts), at(lists.cursor), at(lists.starts));
        let (slot, list, ordered) = (at(lists.slot), at(lists.list), at(lists.ordered));
        for (kernel, pointers) in [
            ("embedding_count", &[counts, slot][..]),
            ("embedding_allocate", &[starts, cursor, counts, slot]),
            ("embedding_place", &[list, starts, slot]),
            ("embedding_rank", &[ordered, list, starts, counts]),
        ] {
            let mut arguments = [pointers, &[tokens.arg(), sizes.rows, sizes.vocabulary]].concat();
            self.launch(kernel, Geometry::flat(shape.rows, LIST_THREADS), &mut arguments)?;
        }
        let pointers = [dtable.arg_mut(), dout.arg(), tokens.arg(), counts, starts, ordered, cursor];
        let mut arguments = [&pointers[..], &[sizes.hidden]].concat();
        let geometry = sum_geometry(shape.rows, shape, dtype);
        self.launch(&format!("embedding_table_{}", dtype.name()), geometry, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn every_shape_gets_launches_the_kernels_allow() {
        let mut random = SplitMix(13);
        for _ in 0..2000 {
            let (rows, sequence) = (1 + random.below(100_000), 1 + random.below(9000));
            let shape =
                Embedding { rows, sequence, vocabulary: 1 + random.below(200_000), hidden: 1 + random.below(30_000) };
            for dtype in [DType::Bf16, DType::F32] {
                let Geometry { grid, block, .. } = forward_geometry(shape, dtype);
                assert!(block[0] % 32 == 0 && block[0] * block[1] <= 256 && (block[1] == 1 || block[0] == 32));
                assert!((grid[0] * block[1]) as usize >= rows);
                let Geometry { grid, block, .. } = sum_geometry(rows, shape, dtype);
                assert!(block[0] % 32 == 0 && block[0] <= 128 && grid[0] as usize == rows && grid[1] < 65_536);
                assert!(grid[1] as usize * block[0] as usize * 16 / dtype.bytes() >= shape.hidden);
            }
        }
    }

    #[test]
    fn lists_do_not_overlap() {
        let shape = Embedding { rows: 10, sequence: 5, vocabulary: 7, hidden: 3 };
        let lists = Lists::new(shape);
        let ends = [lists.cursor, lists.starts, lists.slot, lists.list, lists.ordered, lists.len];
        let starts = [lists.counts, lists.cursor, lists.starts, lists.slot, lists.list, lists.ordered];
        for ((start, end), len) in starts.into_iter().zip(ends).zip([7, 1, 7, 10, 10, 10]) {
            assert_eq!(end - start, len);
        }
        assert_eq!(lists.zeros(), 8);
    }
}
