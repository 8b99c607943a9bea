//! The tiles the attention kernels were made for, and which one a GPU gets: by its shared memory.

use super::PAD;
use crate::ops::DType;

/// Head sizes that have kernels on tensor cores (bf16 and f16).
pub const HEAD_SIZES: [usize; 6] = [32, 64, 80, 96, 128, 256];

/// Warps an SM should hold at least, so that while one waits another multiplies.
const WARPS_WANTED: usize = 8;
/// Shared memory the driver takes of an SM for each block, and an SM has beyond what one block may ask for.
const RESERVED_BYTES: usize = 1024;
/// Bytes of an element.
const ELEMENT: usize = 2;

/// What a kernel made by `ATTENTION_FORWARD` in `cuda/attention_forward.cu` takes: `rows` of queries a block, which
/// walks over tiles of `keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardTile {
    /// Elements of a head.
    pub head_size: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Queries that a block takes.
    pub rows: usize,
    /// Keys of a tile, of which a block takes one after another.
    pub keys: usize,
}

/// What a kernel made by `ATTENTION_BACKWARD` in `cuda/attention_backward.cu` takes: `keys` a block, which walks over
/// tiles of `queries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackwardTile {
    /// Elements of a head.
    pub head_size: usize,
    /// Queries of a tile, of which a block takes one after another.
    pub queries: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Warps that share their keys.
    split: usize,
    stages: usize,
    /// Keys that a block takes.
    pub keys: usize,
}

const fn forward(head_size: usize, warps: usize, rows: usize, keys: usize) -> ForwardTile {
    ForwardTile { head_size, warps, rows, keys }
}

/// Of each head size the faster first.
const FORWARD: [ForwardTile; 9] = [
    forward(32, 4, 128, 64),
    forward(64, 4, 128, 64),
    forward(80, 4, 128, 64),
    forward(96, 4, 128, 64),
    forward(128, 4, 128, 64),
    forward(128, 4, 128, 32),
    forward(256, 8, 128, 64),
    forward(256, 8, 128, 32),
    forward(256, 4, 64, 32),
];

const fn backward(head_size: usize, queries: usize, warps: usize, keys: usize) -> BackwardTile {
    BackwardTile { head_size, queries, warps, split: 1, stages: 2, keys }
}

const fn split(queries: usize, warps: usize, stages: usize, keys: usize) -> BackwardTile {
    BackwardTile { head_size: 256, queries, warps, split: 2, stages, keys }
}

const BACKWARD: [BackwardTile; 12] = [
    backward(32, 64, 4, 128),
    backward(64, 64, 4, 128),
    backward(64, 32, 4, 128),
    backward(80, 64, 8, 128),
    backward(80, 32, 8, 128),
    backward(96, 64, 8, 128),
    backward(96, 32, 8, 128),
    backward(128, 64, 8, 128),
    backward(128, 32, 4, 64),
    split(64, 8, 2, 64),
    split(32, 8, 2, 64),
    split(32, 4, 1, 32),
];

/// What a kernel made by `ATTENTION_FORWARD_SM90` in `cuda/attention_forward_sm90.cu` takes: 128 rows of queries a
/// block of two warpgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarpgroupTile {
    /// Elements of a head.
    pub head_size: usize,
    /// Keys of a tile, of which a block takes one after another.
    pub keys: usize,
    stages: usize,
}

const WARPGROUP: [WarpgroupTile; 2] =
    [WarpgroupTile { head_size: 64, keys: 128, stages: 4 }, WarpgroupTile { head_size: 128, keys: 128, stages: 3 }];

impl WarpgroupTile {
    /// Queries that a block takes, 64 for each warpgroup.
    pub const ROWS: usize = 128;
    /// Threads of a block: two warpgroups of 128.
    pub const THREADS: usize = 256;
    /// The stages start at a multiple of this, wherever shared memory does.
    const ALIGNMENT: usize = 1024;

    /// Bytes of dynamic shared memory of a block: the stages of K and V with room to align them, and Q.
    pub const fn shared_bytes(&self) -> usize {
        let stages = 2 * self.stages * self.keys * self.head_size;
        Self::ALIGNMENT + ELEMENT * (stages + Self::ROWS * (self.head_size + PAD))
    }

    /// The kernel's name, such as `attention_forward_sm90_d128_128x128_bf16`.
    pub fn kernel(&self, dtype: DType) -> String {
        format!("attention_forward_sm90_d{}_{}x{}_{}", self.head_size, Self::ROWS, self.keys, dtype.name())
    }
}

/// The forward tile on `wgmma` for this head size; `None` where there is none.
pub fn warpgroup_tile(head_size: usize) -> Option<WarpgroupTile> {
    WARPGROUP.into_iter().find(|tile| tile.head_size == head_size)
}

impl ForwardTile {
    /// Bytes of dynamic shared memory of a block: its queries, and two tiles each of K and V.
    pub const fn shared_bytes(&self) -> usize {
        ELEMENT * (self.rows + 4 * self.keys) * (self.head_size + PAD)
    }

    /// The kernel's name, such as `attention_forward_d128_128x64_bf16`.
    pub fn kernel(&self, dtype: DType) -> String {
        format!("attention_forward_d{}_{}x{}_{}", self.head_size, self.rows, self.keys, dtype.name())
    }
}

impl BackwardTile {
    /// Bytes of dynamic shared memory of a block: K and V; dS, and P where warps share keys; and the stages of Q, dO
    /// and two statistics per query.
    pub const fn shared_bytes(&self) -> usize {
        let pitch = ELEMENT * (self.head_size + PAD);
        let scores = ELEMENT * self.keys * (self.queries + PAD);
        2 * self.keys * pitch + self.split * scores + self.stages * self.queries * (2 * pitch + 8)
    }

    /// The kernel's name, such as `attention_backward_d128_64x128_bf16`.
    pub fn kernel(&self, dtype: DType) -> String {
        format!("attention_backward_d{}_{}x{}_{}", self.head_size, self.queries, self.keys, dtype.name())
    }
}

/// The forward tile for a GPU whose blocks may have `shared_bytes` of shared memory; `None` where no kernel has that
/// head size, or none fits.
pub fn forward_tile(head_size: usize, shared_bytes: u32) -> Option<ForwardTile> {
    let tiles = FORWARD.iter().filter(|tile| tile.head_size == head_size).copied();
    choose(tiles, |tile| (tile.warps, tile.shared_bytes()), shared_bytes as usize)
}

/// The backward tile for a GPU whose blocks may have `shared_bytes` of shared memory; `None` where no kernel has that
/// head size, or none fits.
pub fn backward_tile(head_size: usize, shared_bytes: u32) -> Option<BackwardTile> {
    let tiles = BACKWARD.iter().filter(|tile| tile.head_size == head_size).copied();
    choose(tiles, |tile| (tile.warps, tile.shared_bytes()), shared_bytes as usize)
}

/// The first of which an SM holds enough warps, else the first that fits at all.
fn choose<T: Copy>(
    tiles: impl Iterator<Item = T> + Clone,
    needs: impl Fn(&T) -> (usize, usize),
    shared_bytes: usize,
) -> Option<T> {
    let enough = |tile: &T| {
        let (warps, bytes) = needs(tile);
        WARPS_WANTED.div_ceil(warps) * (bytes + RESERVED_BYTES) <= shared_bytes + RESERVED_BYTES
    };
    tiles.clone().find(enough).or_else(|| tiles.clone().find(|tile| needs(tile).1 <= shared_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SM_86: u32 = 99 << 10;
    const SM_80: u32 = 163 << 10;
    const SM_90: u32 = 227 << 10;

    #[test]
    fn every_head_size_has_a_tile_on_every_gpu() {
        for head_size in HEAD_SIZES {
            for limit in [SM_86, SM_80, SM_90] {
                let (forward, backward) = (forward_tile(head_size, limit), backward_tile(head_size, limit));
                assert!(forward.is_some_and(|t| t.head_size == head_size && t.shared_bytes() <= limit as usize));
                assert!(backward.is_some_and(|t| t.head_size == head_size && t.shared_bytes() <= limit as usize));
            }
        }
        assert!(forward_tile(72, SM_90).is_none() && backward_tile(72, SM_90).is_none());
    }

    #[test]
    fn more_shared_memory_gets_larger_tiles() {
        let forward = |head_size, limit| forward_tile(head_size, limit).map(|t| (t.rows, t.keys));
        assert_eq!([SM_90, SM_80, SM_86].map(|l| forward(128, l)), [(128, 64), (128, 32), (128, 32)].map(Some));
        assert_eq!([SM_90, SM_80, SM_86].map(|l| forward(256, l)), [(128, 64), (128, 32), (64, 32)].map(Some));
        let backward = |head_size, limit| backward_tile(head_size, limit).map(|t| (t.queries, t.keys));
        assert_eq!([SM_90, SM_80, SM_86].map(|l| backward(64, l)), [(64, 128), (32, 128), (64, 128)].map(Some));
        assert_eq!([SM_90, SM_80, SM_86].map(|l| backward(128, l)), [(64, 128), (64, 128), (32, 64)].map(Some));
        assert_eq!([SM_90, SM_80, SM_86].map(|l| backward(256, l)), [(64, 64), (32, 64), (32, 32)].map(Some));
    }

    #[test]
    fn warpgroup_tiles_fit_hopper() {
        let bytes = |head_size| warpgroup_tile(head_size).map(|tile| tile.shared_bytes());
        assert_eq!([64, 128, 96].map(bytes), [Some(150_528), Some(SM_90 as usize), None]);
    }

    /// Every tile is some GPU's choice: none is built for nothing.
    #[test]
    fn every_tile_is_used() {
        let limits = [SM_86, SM_80, SM_90];
        for tile in FORWARD {
            assert!(limits.iter().any(|&l| forward_tile(tile.head_size, l) == Some(tile)), "{tile:?}");
        }
        for tile in BACKWARD {
            assert!(limits.iter().any(|&l| backward_tile(tile.head_size, l) == Some(tile)), "{tile:?}");
        }
    }
}
