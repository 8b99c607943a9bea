//! A job's stage times: layers, embedding, head and loss, tensor-parallel collectives, messages between stages; and what
//! follows the pipeline: gradient all-reduce and optimizer step.
//!
//! docs/pipeline.md has the equations. What the cost model cannot price is left out and named in [`Costs::notes`].

use super::job::Job;
use super::layout::{Layout, Placement};
use super::memory;
use super::prices::{LayerPrice, PricedCollective, Prices};
use super::times::{StageTimes, Times};
use crate::Result;
use crate::shape::operation::{Epilogue, Operation, Product};
use crate::shape::{DType, LayerShape, Linear, Phase, Recompute, Rows};
use crate::units::{counted, format_bytes};

/// What one iteration of a job is made of: the times of its pipeline, and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// The times of the pipeline's stages and of the messages between them, whole ns.
    pub times: Times,
    /// The number format in which everything was priced.
    pub dtype: DType,
    /// The price of one layer for one micro-batch on one tensor-parallel rank.
    pub layer: LayerPrice,
    /// What follows the pipeline, by where the schedule puts the layers.
    after: [(Placement, After); 3],
    /// Whether everything that was priced lies within what the cost model was measured on.
    pub in_range: bool,
    /// What has no price or an extrapolated one, a sentence each.
    pub notes: Vec<String>,
}

/// What follows once the pipeline has drained: the reduction of the gradients, and then the optimizer step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct After {
    /// Time of the gradients' all-reduces, in ns: over the data-parallel ranks (and the two copies of a two-way
    /// pipeline), and between the stages that share the embedding's matrix.
    pub gradients_ns: u64,
    /// Time of the gradients' norm over the model-parallel ranks and of the optimizer step of the device that holds
    /// most parameters, in ns.
    pub optimizer_ns: u64,
}

impl After {
    /// Gradients and optimizer step one after the other, in ns: none of it overlaps.
    pub const fn total_ns(&self) -> u64 {
        self.gradients_ns.saturating_add(self.optimizer_ns)
    }
}

impl Costs {
    /// What follows the pipeline when a schedule places the layers this way, which decides how many parameters a device
    /// holds.
    pub fn after(&self, placement: Placement) -> After {
        let found = self.after.iter().find(|(p, _)| *p == placement);
        found.map_or_else(After::default, |(_, after)| *after)
    }
}

struct Pricing<'a> {
    job: &'a Job,
    prices: &'a dyn Prices,
    shape: LayerShape,
    in_range: bool,
    notes: Vec<String>,
}

/// Prices a job's iteration in the number format `dtype`. Fails if the layer has no price; whatever else has none
/// counts 0 and is named in [`Costs::notes`].
pub fn of_job(job: &Job, prices: &dyn Prices, dtype: DType) -> Result<Costs> {
    let shape = job.layer(dtype);
    let layer = prices.layer(shape)?;
    let mut pricing = Pricing { job, prices, shape, in_range: layer.in_range, notes: Vec::new() };
    if !layer.in_range {
        pricing
            .notes
            .push(format!("layer {} lies outside what was measured: its times are extrapolated", shape.slug()));
    }
    let times = pricing.times(&layer);
    let own = pricing.after(job.layout());
    let Pricing { in_range, notes, .. } = pricing;
    let after = [Placement::Loop, Placement::Vee, Placement::Both].map(|placement| {
        // What has no price was named for the job's own layout already.
        let mut other = Pricing { job, prices, shape, in_range: true, notes: Vec::new() };
        let layout = Layout { placement, chunks: 2, ..job.layout() };
        (placement, if placement == job.layout().placement { own } else { other.after(layout) })
    });
    Ok(Costs { times, dtype, layer, after, in_range, notes })
}

impl Pricing<'_> {
    /// Stages of equal layers; embedding and head apart, for the schedule to place.
    fn times(&mut self, layer: &LayerPrice) -> Times {
        let layers = self.job.layers_per_stage() as f64;
        let embedding = self.embedding();
        let (forward, backward) = self.tensor_parallel();
        let body = [
            layers * (layer.forward_ns + forward),
            layers * (layer.backward_input_ns + backward),
            layers * layer.backward_weight_ns,
        ];
        let head = self.head(layer);
        let whole = |t: [f64; 3]| {
            let [f, b, w] = t.map(|ns| ns.round() as u64);
            StageTimes::new(f, b, w)
        };
        Times {
            first: whole(embedding),
            last: whole(head),
            ..Times::even(self.job.parallel.pipeline as usize, whole(body), self.send_recv())
        }
    }

    fn after(&mut self, layout: Layout) -> After {
        let parameters = memory::parameters(self.job, layout);
        let largest = parameters.into_iter().max().unwrap_or(0);
        let update = Operation::Adamw { len: largest as usize };
        let step = self.small(&update, "the optimizer step") + self.norm();
        let gradients = self.gradients(largest, layout) + self.tied_embedding(layout);
        After { gradients_ns: gradients.round() as u64, optimizer_ns: step.round() as u64 }
    }

    /// Look-up, and the gradient of the table; nothing to pass on.
    fn embedding(&mut self) -> [f64; 3] {
        let rows = self.shape.norm_rows();
        let (forward, weights) = (Operation::EmbeddingForward(rows), Operation::EmbeddingToWeights(rows));
        [self.small(&forward, "the embedding look-up"), 0.0, self.small(&weights, "the embedding's gradient")]
    }

    /// An operation that is small beside the layers: left out where it cannot be priced.
    fn small(&mut self, operation: &Operation, what: &str) -> f64 {
        match self.prices.operation(operation, self.shape.dtype) {
            Some(price) => {
                if !price.in_range {
                    self.outside(format!("{what} lies outside what was measured: its time is extrapolated"));
                }
                price.time_ns
            }
            None => {
                self.outside(format!("{what} is not in the cost model: counted as 0"));
                0.0
            }
        }
    }

    /// Something has no price, or one beyond what was measured.
    fn outside(&mut self, note: String) {
        self.in_range = false;
        self.notes.push(note);
    }

    /// The head's three products and the loss.
    fn head(&mut self, layer: &LayerPrice) -> [f64; 3] {
        let s = self.shape;
        let columns = self.job.model.vocabulary.div_ceil(s.tensor) as usize;
        let shape = Linear::new(s.rows() as usize, s.hidden as usize, columns);
        let mut by_rate = false;
        let mut times = [
            (Product::Forward, layer.forward_ns, Phase::Forward),
            (Product::ToInputs, layer.backward_input_ns, Phase::BackwardInput),
            (Product::ToWeights, layer.backward_weight_ns, Phase::BackwardWeight),
        ]
        .map(|(product, ns, phase)| {
            let operation = Operation::Linear { product, shape, epilogue: Epilogue::None };
            let price = self.prices.operation(&operation, s.dtype).filter(|p| p.in_range);
            // Beyond the products that were measured, the rate the whole layer reaches is the better guide.
            by_rate |= price.is_none();
            price.map_or_else(|| ns * operation.flop() / s.flop(phase).max(1.0), |p| p.time_ns)
        });
        if by_rate {
            self.outside("the head's products lie outside what was measured: counted at a layer's FLOP rate".into());
        }
        let rows = Rows { rows: s.rows() as usize, cols: columns };
        times[0] += self.small(&Operation::CrossEntropy(rows), "the loss");
        times
    }

    /// Tensor-parallel time of one layer, forward and backward: two all-reduces each way (Narayanan et al., arXiv
    /// 2104.04473, §2.3), or with sequence parallelism two all-gathers and two reduce-scatters (Korthikanti et al.,
    /// arXiv 2205.05198, §4.2). Full recomputation repeats the forward ones.
    fn tensor_parallel(&mut self) -> (f64, f64) {
        let tensor = self.shape.tensor;
        if tensor == 1 {
            return (0.0, 0.0);
        }
        let nodes = tensor.div_ceil(self.job.hardware.gpus_per_node);
        let operations: &[&'static str] =
            if self.job.parallel.sequence_parallel { &["all_gather", "reduce_scatter"] } else { &["all_reduce"] };
        let once: f64 = operations
            .iter()
            .map(|&operation| {
                let bytes = self.rows_bytes();
                self.collective(PricedCollective { operation, ranks: tensor, nodes, bytes })
            })
            .sum();
        let repeated = if self.shape.recompute == Recompute::Full { 2.0 } else { 1.0 };
        (2.0 * once, 2.0 * once * repeated)
    }

    /// Activations between two layers: micro-batch × sequence × hidden.
    fn rows_bytes(&self) -> u64 {
        self.shape.rows() * self.shape.hidden * self.shape.dtype.bytes() as u64
    }

    /// With sequence parallelism each tensor-parallel rank sends its own part.
    fn send_recv(&mut self) -> u64 {
        if self.job.parallel.pipeline == 1 {
            return 0;
        }
        let parts = if self.job.parallel.sequence_parallel { self.shape.tensor } else { 1 };
        let bytes = self.rows_bytes().div_ceil(parts);
        self.collective(PricedCollective { operation: "send_recv", ranks: 2, nodes: self.nodes(), bytes }).round()
            as u64
    }

    /// Gradients are reduced in 32 bits, as Megatron-LM does by default for 16-bit training. In a two-way pipeline every
    /// stage has two copies, which are data-parallel to each other.
    fn gradients(&mut self, parameters: u64, layout: Layout) -> f64 {
        let copies = if layout.splits() { 1 } else { 2 };
        let ranks = self.job.parallel.data.saturating_mul(copies);
        if ranks == 1 || self.job.gpus() == 1 {
            return 0.0;
        }
        let nodes = ranks.saturating_mul(self.shape.tensor).div_ceil(self.job.hardware.gpus_per_node).min(ranks);
        let bytes = parameters.saturating_mul(4);
        self.collective(PricedCollective { operation: "all_reduce", ranks, nodes, bytes })
    }

    /// Embedding and head are one matrix: where two devices hold it, its gradient is summed between them.
    fn tied_embedding(&mut self, layout: Layout) -> f64 {
        if layout.placement != Placement::Loop || layout.stages == 1 {
            return 0.0;
        }
        let columns = self.job.model.vocabulary.div_ceil(self.shape.tensor);
        let bytes = columns.saturating_mul(self.shape.hidden).saturating_mul(4);
        self.collective(PricedCollective { operation: "all_reduce", ranks: 2, nodes: self.nodes(), bytes })
    }

    /// The gradients' norm: one number over the ranks that share a model. Microseconds, so no price is no fault.
    fn norm(&self) -> f64 {
        let ranks = self.job.parallel.pipeline.saturating_mul(self.shape.tensor);
        let nodes = ranks.div_ceil(self.job.hardware.gpus_per_node);
        let message = PricedCollective { operation: "all_reduce", ranks, nodes, bytes: 4 };
        if ranks == 1 { 0.0 } else { self.prices.collective(message).map_or(0.0, |p| p.time_ns) }
    }

    /// Between the ends of a pipeline, or neighbours in it: two nodes if the job has more than one.
    fn nodes(&self) -> u64 {
        if self.job.gpus() > self.job.hardware.gpus_per_node { 2 } else { 1 }
    }

    fn collective(&mut self, message: PricedCollective) -> f64 {
        let what = format!(
            "{} of {} between {} on {}",
            message.operation,
            format_bytes(message.bytes),
            counted(message.ranks, "rank"),
            counted(message.nodes, "node")
        );
        match self.prices.collective(message) {
            None => {
                self.outside(format!("{what} is not in the cost model: counted as 0"));
                0.0
            }
            Some(price) => {
                if !price.in_range {
                    self.outside(format!("{what} lies outside what was measured: its time is extrapolated"));
                }
                price.time_ns
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prices::Price;
    use std::path::Path;

    /// A machine whose prices are round numbers.
    struct Made;

    impl Prices for Made {
        fn layer(&self, _: LayerShape) -> Result<LayerPrice> {
            Ok(LayerPrice {
                forward_ns: 1000.0,
                backward_input_ns: 1100.0,
                backward_weight_ns: 900.0,
                activation_bytes: 10,
                in_range: true,
            })
        }
        fn collective(&self, message: PricedCollective) -> Option<Price> {
            (message.operation != "reduce_scatter")
                .then_some(Price { time_ns: message.bytes as f64 / 1000.0, in_range: message.nodes == 1 })
        }

        fn operation(&self, operation: &Operation, _: DType) -> Option<Price> {
            match operation {
                Operation::Linear { .. } | Operation::Adamw { .. } => None,
                _ => Some(Price { time_ns: 7.0, in_range: true }),
            }
        }
    }

    fn job(parallel: &str) -> Job {
        let text = format!(
            "[model]\nlayers = 8\nhidden = 512\nheads = 8\nsequence = 128\nvocabulary = 4096\n[parallel]\n{parallel}"
        );
        Job::parse(Path::new("job.toml"), &text).unwrap()
    }

    #[test]
    fn a_plain_job_is_layers_and_a_head() {
        let job = job("pipeline = 4\nmicro_batch = 2\nglobal_batch = 16");
        let costs = of_job(&job, &Made, DType::Bf16).unwrap();
        assert_eq!(costs.times.stage, [StageTimes::new(2000, 2200, 1800); 4]);
        assert_eq!(costs.times.first, StageTimes::new(7, 0, 7));
        let head = |ns: f64, phase| ns * 2.0 * 256.0 * 512.0 * 4096.0 / job.layer(DType::Bf16).flop(phase);
        let last = costs.times.last;
        assert_eq!(last.forward_ns, (7.0 + head(1000.0, Phase::Forward)).round() as u64);
        assert_eq!(last.backward_weight_ns, head(900.0, Phase::BackwardWeight).round() as u64);
        assert_eq!(costs.times.send_recv_ns, (256.0f64 * 512.0 * 2.0 / 1000.0).round() as u64);
        // Only the shared matrix's gradient, 4096 × 512 in 32 bits; the norm's four bytes.
        assert_eq!(costs.after(Placement::Loop), After { gradients_ns: 8389, optimizer_ns: 0 });
        assert_eq!(costs.after(Placement::Vee).gradients_ns, 0);
        let copies = 4 * memory::parameters(&job, Layout { placement: Placement::Both, stages: 4, chunks: 2 })[0];
        assert_eq!(costs.after(Placement::Both).gradients_ns, (copies as f64 / 1000.0).round() as u64);
        assert!(!costs.in_range && costs.notes.len() == 2, "{:?}", costs.notes);
        assert!(costs.notes[0].contains("the head's products") && costs.notes[1].contains("the optimizer step"));
    }

    #[test]
    fn tensor_and_data_parallel_collectives_are_added() {
        let job = job("pipeline = 2\ntensor = 2\ndata = 8\nmicro_batch = 2\nglobal_batch = 32\nrecompute = \"full\"");
        let costs = of_job(&job, &Made, DType::Bf16).unwrap();
        let reduce = 2.0 * 256.0 * 512.0 * 2.0 / 1000.0;
        assert_eq!(costs.times.stage[0].forward_ns, (4.0 * (1000.0f64 + reduce)).round() as u64);
        assert_eq!(costs.times.stage[0].backward_input_ns, (4.0 * (1100.0f64 + 2.0 * reduce)).round() as u64);
        assert_eq!(costs.times.stage[0].backward_weight_ns, 3600);
        let matrix = 4096 * 512 / 2;
        let bytes = 4 * memory::parameters(&job, job.layout())[0] + 4 * matrix;
        assert_eq!(costs.after(Placement::Loop).gradients_ns, (bytes as f64 / 1000.0).round() as u64);
        assert!(!costs.in_range && costs.notes.iter().any(|n| n.contains("between 8 ranks on 2 nodes")));
    }

    #[test]
    fn what_cannot_be_priced_is_named() {
        let job = job("pipeline = 2\ntensor = 2\nmicro_batch = 2\nglobal_batch = 32\nsequence_parallel = true");
        let costs = of_job(&job, &Made, DType::Bf16).unwrap();
        assert!(
            !costs.in_range && costs.notes.iter().any(|n| n.contains("reduce_scatter") && n.contains("counted as 0"))
        );
        assert_eq!(costs.times.send_recv_ns, (256.0f64 * 512.0 / 1000.0).round() as u64);
    }
}
