//! A GPU as these cases use it: one stream, timed by events between two clock stamps.

use super::bench::{Bench, LaunchMode, TimedWork};
use crate::clock::cuda::CudaClock;
use crate::ops::cuda::{Cuda, Gpu, Graph, Priority};
use crate::ops::work::Operation;
use crate::ops::{DType, Ops};
use crate::records::measurement::{Backend, Cache, Launch};
use crate::suite::{Context, Platform, RawSample};
use crate::{Error, Result};
use serde_json::{Value, json};

/// Type of the big model's data and of the small models' on a GPU.
const DATA: DType = DType::Bf16;

pub struct CudaBench {
    // Fields go in this order: a graph before its stream.
    graph: Option<Graph>,
    clock: CudaClock,
    ops: Cuda,
    platform: Platform,
}

impl Bench for CudaBench {
    type Ops = Cuda;
    const BACKEND: Backend = Backend::Cuda;
    const ROTATES: bool = false;

    fn open(context: &Context) -> Result<Self> {
        let gpu = Gpu::open(context.platform.ordinal())?;
        let ops = Cuda::on(&gpu, DATA, Priority::Plain)?;
        Ok(CudaBench { graph: None, clock: CudaClock::new(&gpu)?, ops, platform: context.platform })
    }

    fn serves(&self, context: &Context) -> bool {
        self.platform == context.platform
    }

    fn within<R: Send>(&mut self, work: impl FnOnce(&mut Cuda) -> R + Send) -> R {
        // The graph's buffers may be freed by what comes next.
        self.graph = None;
        work(&mut self.ops)
    }

    fn settle(&mut self, how: LaunchMode, work: TimedWork<'_, Cuda>) -> Result<()> {
        self.graph = None;
        let mut run = |ops: &mut Cuda| {
            work(ops);
            Ok(())
        };
        if how.launch == Launch::Graph {
            let graph = self.ops.capture(&mut run)?;
            graph.launch(&mut self.ops)?;
            self.ops.synchronize()?;
            self.graph = Some(graph);
        }
        self.clock.settle(&mut self.ops, &mut run).map(drop)
    }

    /// Of a product: the algorithm kept, and the time of each form when the plan was made. Of attention: its kernel.
    fn choice(&self, operation: &Operation) -> Option<Value> {
        match *operation {
            Operation::Linear { product, shape, epilogue } => {
                let plan = self.ops.product_plan(product, shape, epilogue)?;
                Some(json!({ "form": plan.form, "candidates": plan.candidates }))
            }
            Operation::AttentionForward(shape) => Some(json!({ "kernel": self.ops.attention_kernel(shape)? })),
            _ => None,
        }
    }

    fn time(&mut self, how: LaunchMode, n: u64, work: TimedWork<'_, Cuda>) -> Result<Vec<RawSample>> {
        let CudaBench { graph, clock, ops, .. } = self;
        let mut run = |ops: &mut Cuda| match (how.launch, &*graph) {
            (Launch::Graph, Some(graph)) => graph.launch(ops),
            (Launch::Graph, None) => {
                Err(Error::machine("a graph is timed before it is captured", "prepare the case first"))
            }
            _ => {
                work(ops);
                Ok(())
            }
        };
        match how.cache {
            // Behind one run that is not timed, while which the timed ones are queued.
            Cache::Warm => Ok(vec![RawSample::of(&clock.warm_behind(ops, 1, n, &mut run)?, n)]),
            Cache::Cold => (0..n).map(|_| Ok(RawSample::of(&clock.cold(ops, &mut run)?, 1))).collect(),
        }
    }
}
