//! Kernels that load exactly one resource of the GPU (`cuda/pressure.cu`), with a dial of space (blocks, one an SM) and one
//! of time (the share of it at work). Names are those of the host's own pressure (`corun::pressure`) where both have one.
//!
//! [`PressureKernel`] says which and how hard, [`CudaPressure`] is that with its memory on one GPU.

use super::launch::{Arg, int};
use super::mapped::Mapped;
use super::memory::CudaMemory;
use super::{Cuda, Geometry, Gpu};
use crate::machine::driver_error;
use crate::{Error, Result};
use cudarc::driver::result;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

/// A resource of the GPU that a kernel of `cuda/pressure.cu` loads, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PressureResource {
    /// The tensor pipe, by products of 16 × 8 × 16 in bf16.
    Tensor,
    /// The FMA pipe, by multiply-adds in fp32.
    Fma,
    /// DRAM, which is read and written.
    Memory,
    /// The L2 cache, which is read, all of it or the part that the working set says.
    Cache,
    /// Shared memory, which is read.
    Shared,
    /// The issue slots of the warp schedulers.
    Issue,
}

/// Bytes of a tile of `cuda/pressure.cu`: 512 threads × 4 vectors of 16 bytes.
pub const TILE_BYTES: u64 = 512 * 4 * 16;
/// The most rounds of the tensor kernel after which its sums of products are still exact.
pub const MOST_TENSOR_ROUNDS: u32 = 16_384;
/// The software device is thousands of times slower: its slices are shorter by this factor.
const SOFTWARE_SHARE: u32 = 100;

impl PressureResource {
    /// Every resource.
    pub const ALL: [PressureResource; 6] = [
        PressureResource::Tensor,
        PressureResource::Fma,
        PressureResource::Memory,
        PressureResource::Cache,
        PressureResource::Shared,
        PressureResource::Issue,
    ];

    /// The resource's name in kernels and cases, such as `tensor`.
    pub const fn name(self) -> &'static str {
        match self {
            PressureResource::Tensor => "tensor",
            PressureResource::Fma => "fma",
            PressureResource::Memory => "memory",
            PressureResource::Cache => "cache",
            PressureResource::Shared => "shared",
            PressureResource::Issue => "issue",
        }
    }

    /// The resource of this name, as [`PressureResource::name`] spells it; `None` for another text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == text)
    }

    /// The unit in which its progress is counted: `flop`, `bytes` or `instructions` (of a warp).
    pub const fn unit(self) -> &'static str {
        match self {
            PressureResource::Tensor | PressureResource::Fma => "flop",
            PressureResource::Memory | PressureResource::Cache | PressureResource::Shared => "bytes",
            PressureResource::Issue => "instructions",
        }
    }

    /// Threads of a block of its kernel.
    pub const fn threads(self) -> u32 {
        match self {
            PressureResource::Memory | PressureResource::Cache => 512,
            _ => 256,
        }
    }

    /// What one block does in one round, in [`PressureResource::unit`]; the constants are those of the kernels.
    pub const fn units_per_round(self) -> u64 {
        match self {
            // 8 warps × 8 products of 2 · 16 · 8 · 16
            PressureResource::Tensor => 8 * 8 * 4096,
            PressureResource::Fma => 256 * 8 * 2,
            PressureResource::Memory => 2 * TILE_BYTES,
            PressureResource::Cache => TILE_BYTES,
            PressureResource::Shared => 256 * 8 * 16,
            // 8 warps × 4 chains × 4
            PressureResource::Issue => 8 * 4 * 4,
        }
    }

    /// Rounds that last about 50 µs on a GPU of today: short enough to stop, long enough that looking for the stop is free.
    const fn rounds(self) -> u32 {
        match self {
            PressureResource::Tensor => 800,
            PressureResource::Fma => 5000,
            PressureResource::Memory => 25,
            PressureResource::Cache => 64,
            PressureResource::Shared => 350,
            PressureResource::Issue => 2800,
        }
    }

    const fn walks_through_memory(self) -> bool {
        matches!(self, PressureResource::Memory | PressureResource::Cache)
    }
}

/// The pressure that is wanted: which resource, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PressureKernel {
    /// The resource that is loaded.
    pub resource: PressureResource,
    /// Blocks of the launch, 1 to 65536: one on each SM, as long as there are as many SMs.
    pub blocks: u32,
    /// Share of the time at work in percent, 1 to 100.
    pub duty: u32,
    /// Bytes of memory that `memory` and `cache` walk through; the others have no working set.
    pub working_set_bytes: u64,
}

impl PressureKernel {
    /// Pressure on all of `sms` multiprocessors, all the time; `memory` walks through four times the L2, `cache`
    /// through half of it.
    pub fn full(resource: PressureResource, sms: u32, l2_bytes: u64) -> Self {
        let working_set_bytes = match resource {
            PressureResource::Memory => 4 * l2_bytes,
            PressureResource::Cache => l2_bytes / 2,
            _ => 0,
        };
        PressureKernel { resource, blocks: sms, duty: 100, working_set_bytes }
    }

    /// The kernel's name, such as `pressure_tensor`.
    pub fn kernel(&self) -> String {
        format!("pressure_{}", self.resource.name())
    }

    /// The launch: the wanted number of blocks, of as many threads as the resource's kernel has.
    pub fn geometry(&self) -> Geometry {
        Geometry::new([self.blocks, 1, 1], [self.resource.threads(), 1, 1])
    }

    /// Whole tiles of the working set: at least one, for `memory` at least one a block and as many for each; 0 for
    /// resources without one.
    pub fn tiles(&self) -> u64 {
        let wanted = self.working_set_bytes.div_ceil(TILE_BYTES).max(1);
        match self.resource {
            PressureResource::Memory => wanted.next_multiple_of(u64::from(self.blocks.max(1))),
            PressureResource::Cache => wanted,
            _ => 0,
        }
    }

    fn check(&self) -> Result<()> {
        if self.blocks == 0 || self.blocks > 1 << 16 || !(1..=100).contains(&self.duty) {
            return Err(Error::input(
                format!("a pressure of {} blocks at {} % of the time", self.blocks, self.duty),
                "1 to 65536 blocks, 1 to 100 %",
            ));
        }
        Ok(())
    }
}

/// Pressure with its memory on one GPU, ready to be launched any number of times.
pub struct CudaPressure {
    spec: PressureKernel,
    rounds: u32,
    data: Option<CudaMemory>,
    sink: CudaMemory,
    /// The stop word, then the slices done by each block.
    page: Arc<Mapped>,
}

/// Stops a [`CudaPressure`] and reads its progress from another thread, while it runs.
#[derive(Clone)]
pub struct PressureControl {
    page: Arc<Mapped>,
    blocks: u32,
    units_per_slice: u64,
}

impl CudaPressure {
    /// Makes the memory that the pressure needs; an error where blocks or duty are out of range or the GPU has no room.
    pub fn new(gpu: &Arc<Gpu>, spec: PressureKernel) -> Result<Self> {
        spec.check()?;
        let rounds = spec.resource.rounds();
        let rounds = if gpu.facts().software { (rounds / SOFTWARE_SHARE).max(1) } else { rounds };
        let page = Arc::new(Mapped::new(gpu, 1 + spec.blocks as usize)?);
        let sink = CudaMemory::new(gpu, 4 * (spec.blocks * spec.resource.threads()) as usize)?;
        let data = match spec.resource.walks_through_memory() {
            true => Some(random_memory(gpu, spec.tiles() * TILE_BYTES)?),
            false => None,
        };
        Ok(CudaPressure { spec, rounds, data, sink, page })
    }

    /// Which resource this loads, and how hard.
    pub fn spec(&self) -> &PressureKernel {
        &self.spec
    }

    /// A handle that stops this pressure and reads its progress from any thread, while it runs.
    pub fn control(&self) -> PressureControl {
        let units_per_slice = self.spec.resource.units_per_round() * u64::from(self.rounds);
        PressureControl { page: Arc::clone(&self.page), blocks: self.spec.blocks, units_per_slice }
    }

    /// Bytes that this holds on the GPU.
    pub fn memory_bytes(&self) -> u64 {
        (self.sink.bytes() + self.data.as_ref().map_or(0, CudaMemory::bytes)) as u64
    }

    /// Puts `slices` slices (about 50 µs each at full duty) on the stream; they end early once
    /// [`PressureControl::stop`] is called. Launches of one pressure may follow each other, not run beside each other.
    pub fn launch(&mut self, ops: &mut Cuda, slices: u32) -> Result<()> {
        let mut arguments = vec![
            Arg::Pointer(self.page.address(1)),
            Arg::Pointer(self.page.address(0)),
            Arg::I32(int("slices", slices as usize)?),
            Arg::I32(int("rounds", self.rounds as usize)?),
            Arg::I32(int("percent", self.spec.duty as usize)?),
            Arg::Pointer(self.sink.pointer()),
        ];
        if let Some(data) = &self.data {
            arguments.extend([Arg::Pointer(data.pointer()), Arg::U64(data.bytes() as u64 / 16)]);
        }
        ops.launch(&self.spec.kernel(), self.spec.geometry(), &mut arguments)
    }
}

impl PressureControl {
    /// Makes what runs, and what waits behind it, end after a slice.
    pub fn stop(&self) {
        self.page.half(0).store(1, Release);
    }

    /// Lets launches run again; call it only once those that were stopped have ended.
    pub fn rearm(&self) {
        self.page.half(0).store(0, Release);
    }

    /// FLOP, bytes or instructions (by [`PressureResource::unit`]) that all blocks have done since the pressure was
    /// made.
    pub fn progress(&self) -> u64 {
        let slices: u64 = (1..=self.blocks as usize).map(|block| self.page.word(block).load(Acquire)).sum();
        slices * self.units_per_slice
    }
}

/// Bits at random; the same every time.
fn random_memory(gpu: &Arc<Gpu>, bytes: u64) -> Result<CudaMemory> {
    let wrap = |e| driver_error("cannot fill the memory a pressure kernel walks through", e);
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let memory = CudaMemory::new(gpu, bytes)?;
    let mut random = crate::stats::SplitMix(0x9e55);
    let pattern: Vec<u8> = (0..(1 << 20) / 8).flat_map(|_| random.next_u64().to_ne_bytes()).collect();
    for at in (0..bytes).step_by(pattern.len()) {
        let piece = &pattern[..pattern.len().min(bytes - at)];
        // SAFETY: the piece lies within the allocation and is read before the call returns; the context is current.
        unsafe { result::memcpy_htod_sync(memory.pointer() + at as u64, piece) }.map_err(wrap)?;
    }
    // The last piece may still be on its way from the driver's own buffer, and our streams would not wait for it.
    gpu.context().synchronize().map_err(wrap)?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::pressure::Resource;

    #[test]
    fn names_are_the_hosts_where_both_have_one() {
        for resource in Resource::ALL {
            let same = PressureResource::parse(resource.name()).unwrap();
            assert_eq!((same.name(), same.unit()), (resource.name(), resource.unit()));
        }
        assert!(PressureResource::parse("disk").is_none());
        for resource in PressureResource::ALL {
            assert_eq!(PressureResource::parse(resource.name()), Some(resource));
        }
    }

    #[test]
    fn a_dial_out_of_range_is_refused() {
        let spec = PressureKernel::full(PressureResource::Fma, 132, 50 << 20);
        assert!(spec.check().is_ok());
        for wrong in [
            PressureKernel { blocks: 0, ..spec },
            PressureKernel { duty: 0, ..spec },
            PressureKernel { duty: 101, ..spec },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_block_has_tiles_of_its_own_and_sums_stay_exact() {
        for (blocks, bytes) in [(132, 200u64 << 20), (7, 1), (3, 5 * TILE_BYTES + 1)] {
            let spec =
                PressureKernel { resource: PressureResource::Memory, blocks, duty: 100, working_set_bytes: bytes };
            assert!(spec.tiles() * TILE_BYTES >= bytes && spec.tiles().is_multiple_of(u64::from(blocks)));
            assert!(spec.tiles() >= u64::from(blocks));
        }
        assert!(PressureResource::Tensor.rounds() <= MOST_TENSOR_ROUNDS);
    }
}
