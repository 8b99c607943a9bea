//! Blocks for sums of columns of narrow matrices (`cuda/columns.cuh`): as many threads side by side as a row has 16-byte
//! vectors, the others on further rows. Pooling and group normalisation launch them.

use crate::ops::DType;

const WARP: usize = 32;
/// Threads of the largest such block (`kColumnThreads`).
const THREADS: usize = 256;

/// Threads side by side, and strips of rows beside each other in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    pub lanes: usize,
    pub strips: usize,
    /// Blocks side by side that cover all columns.
    pub tiles: usize,
}

impl Columns {
    /// For `cols` columns and sums over `rows` rows.
    pub fn new(cols: usize, rows: usize, dtype: DType) -> Self {
        let width = 16 / dtype.bytes();
        let lanes = cols.div_ceil(width).next_power_of_two().min(WARP);
        let strips = rows.next_power_of_two().clamp(WARP / lanes, THREADS / lanes);
        Columns { lanes, strips, tiles: cols.div_ceil(lanes * width) }
    }

    pub const fn block(&self) -> [u32; 3] {
        [self.lanes as u32, self.strips as u32, 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn blocks_are_whole_warps_and_cover_every_column() {
        let mut random = SplitMix(11);
        for _ in 0..2000 {
            let (cols, rows) = (1 + random.below(3000), 1 + random.below(1000));
            for dtype in [DType::Bf16, DType::F16, DType::F32] {
                let c = Columns::new(cols, rows, dtype);
                assert!(c.lanes.is_power_of_two() && c.lanes <= 32 && (c.lanes * c.strips).is_multiple_of(32));
                assert!(c.lanes * c.strips <= 256 && c.tiles * c.lanes * (16 / dtype.bytes()) >= cols, "{c:?}");
            }
        }
    }
}
