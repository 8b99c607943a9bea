//! A job's stage times: layers, embedding, head and loss, tensor- and context-parallel collectives, messages between
//! stages; and what follows the pipeline: the exchange of gradients and the optimizer step.
//!
//! docs/pipeline.md has the equations. Every price is listed in [`Costs::prices`] with its interval and its source; what no
//! cost model can price counts as 0 there, and is named in [`Costs::notes`] and [`Costs::assumed`].

use super::job::{Job, spread};
use super::layout::{Layout, Placement};
use super::memory;
use super::prices::{LayerPrice, Price, PriceGroup, PricedCollective, Prices};
use super::times::{StageTimes, Times};
use crate::Result;
use crate::records::cost_model::Source;
use crate::shape::operation::{Epilogue, Operation, Product};
use crate::shape::{DType, LayerShape, Linear, Normalization, Phase, Recompute, Rows};
use crate::units::{counted, format_bytes, significant};

/// What one iteration of a job is made of: the times of its pipeline, and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// The number format in which everything was priced.
    pub dtype: DType,
    /// The price of one layer for one micro-batch on one tensor-parallel rank.
    pub layer: LayerPrice,
    /// The price of a layer that recomputes everything, where only some layers of a stage do.
    pub recomputed: Option<LayerPrice>,
    /// Time of a message between two stages, in ns; both wait for it.
    pub send_recv_ns: u64,
    /// F, B and W of one layer with its collectives, in ns; of one that recomputes everything, in the second place.
    body: [[f64; 3]; 2],
    first: StageTimes,
    last: StageTimes,
    /// What follows the pipeline, by where the schedule puts the layers.
    after: [(Placement, After); 3],
    /// Whether everything that was priced lies within what the cost model was measured on.
    pub in_range: bool,
    /// Every price of the iteration, in the order in which they were asked for.
    pub prices: Vec<ListedPrice>,
    /// What has no price or an extrapolated one, a sentence each.
    pub notes: Vec<String>,
}

/// One price of an iteration.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedPrice {
    /// What was priced.
    pub what: String,
    /// The prices it is wrong together with.
    pub group: PriceGroup,
    /// The price; `None` where no cost model knows it, which counts as 0.
    pub price: Option<Price>,
}

/// What follows once the pipeline has drained: the exchange of the gradients, and then the optimizer step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct After {
    /// Time in ns of the gradients' all-reduce over the ranks that hold the same layers (with ZeRO their reduce-scatter and
    /// the parameters' all-gather), and of the all-reduce between the stages that share the embedding's matrix.
    pub gradients_ns: u64,
    /// Time of the passes over the gradients (zeroing, scaling, norm, clipping) and of the optimizer step of the device
    /// that holds most parameters, in ns.
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

    /// The times of the pipeline under a layout: each cell's layers with their collectives, the messages that leave it, and
    /// embedding and head where the model begins and ends. Whoever sends waits until the message has arrived (Megatron-LM's
    /// synchronous send and receive), so a message is part of the cell's time and takes no time of its own besides.
    pub fn times(&self, job: &Job, layout: Layout) -> Times {
        let layers = job.cell_layers(layout);
        let send = |goes: bool| if goes { self.send_recv_ns } else { 0 };
        let cell = |stage: usize, chunk: usize, of_stage: u64| {
            let n = layers[layout.cell(stage, chunk)] as f64;
            let recomputed = match job.parallel.recompute_layers {
                Some(k) if of_stage > 0 => (k as f64 / of_stage as f64).min(1.0),
                _ => 0.0,
            };
            let [f, b, w] = [0, 1, 2]
                .map(|phase| n * (self.body[0][phase] * (1.0 - recomputed) + self.body[1][phase] * recomputed));
            let away = |other: Option<(usize, usize)>| other.is_some_and(|(s, _)| s != stage);
            StageTimes {
                forward_ns: f.round() as u64 + send(away(layout.next(stage, chunk))),
                backward_input_ns: b.round() as u64 + send(away(layout.previous(stage, chunk))),
                backward_weight_ns: w.round() as u64,
            }
        };
        let mut times = Times::new(Vec::with_capacity(layout.stages), 0);
        let mut cells = Vec::with_capacity(layout.cells());
        for stage in 0..layout.stages {
            let chunks = if layout.splits() { layout.chunks } else { 1 };
            let of_stage = (0..chunks).map(|chunk| layers[layout.cell(stage, chunk)]).sum();
            let own: Vec<StageTimes> = (0..chunks).map(|chunk| cell(stage, chunk, of_stage)).collect();
            times.stage.push(own.iter().fold(StageTimes::default(), |sum, &cell| sum.plus(cell)));
            cells.extend(own);
        }
        let cells = (layout.splits() && layout.chunks > 1).then_some(cells);
        Times { first: self.first, last: self.last, cells, ..times }
    }

    /// F, B and W of one layer with its collectives together, in ns, whatever the job recomputes.
    pub fn layer_ns(&self) -> f64 {
        self.body[0].iter().sum()
    }

    /// F, B and W of what stands beside the layers, in ns: of the embedding, and of head and loss.
    pub const fn ends_ns(&self) -> [u64; 2] {
        [self.first.total_ns(), self.last.total_ns()]
    }

    /// The groups of prices of which one is extrapolated, from a data sheet, or unknown and counted as 0.
    pub fn unsure(&self) -> Vec<PriceGroup> {
        let unsure = |group: &PriceGroup| {
            self.prices.iter().any(|p| p.group == *group && p.price.is_none_or(|price| !price.in_range))
        };
        PriceGroup::ALL.into_iter().filter(unsure).collect()
    }

    /// What was priced that nobody measured on this machine: from published figures or a data sheet, extrapolated, or
    /// unknown and counted as 0.
    pub fn assumed(&self) -> Vec<String> {
        let unsure = |p: &ListedPrice| match p.price {
            None => Some(format!("{}: no price, counted as 0", p.what)),
            Some(price) if price.source == Source::Datasheet => Some(format!("{}: from a data sheet", p.what)),
            Some(price) if !price.in_range => Some(format!("{}: extrapolated", p.what)),
            Some(_) => None,
        };
        self.prices.iter().filter_map(unsure).collect()
    }
}

const PLACEMENTS: [Placement; 3] = [Placement::Loop, Placement::Vee, Placement::Both];

struct Pricing<'a> {
    job: &'a Job,
    prices: &'a dyn Prices,
    shape: LayerShape,
    in_range: bool,
    listed: Vec<ListedPrice>,
    notes: Vec<String>,
}

/// Prices a job's iteration in the number format `dtype`. Fails if the layer has no price; whatever else has none
/// counts 0 and is named in [`Costs::notes`].
pub fn of_job(job: &Job, prices: &dyn Prices, dtype: DType) -> Result<Costs> {
    let shape = job.layer(dtype);
    let layer = prices.layer(shape)?;
    let recomputed = match job.parallel.recompute_layers {
        Some(_) => Some(prices.layer(shape.recompute(Recompute::Full))?),
        None => None,
    };
    let mut pricing = Pricing::new(job, prices, shape);
    if layer.forward.source == Source::Datasheet {
        pricing.in_range = false;
    } else if !layer.in_range() {
        pricing.outside(format!("layer {} lies outside what was measured: its times are extrapolated", shape.slug()));
    }
    for (phase, price) in [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight].into_iter().zip(layer.phases())
    {
        pricing.list(format!("layer, {}", phase.name()), PriceGroup::Layers, Some(price));
    }
    let shared = pricing.layer_collectives(shape.recompute);
    let shared_full = recomputed.map(|_| pricing.layer_collectives(Recompute::Full));
    let add = |layer: &LayerPrice, shared: [f64; 3]| {
        let [f, b, w] = layer.phases().map(|p| p.time_ns);
        [f + shared[0], b + shared[1], w + shared[2]]
    };
    let kept = add(&layer, shared);
    let full = recomputed.as_ref().zip(shared_full).map_or(kept, |(layer, shared)| add(layer, shared));
    let [first, last] = [pricing.embedding(), pricing.head(&layer)]
        .map(|[f, b, w]: [f64; 3]| StageTimes::new(f.round() as u64, b.round() as u64, w.round() as u64));
    let send_recv_ns = pricing.send_recv().round() as u64;
    let mut costs = Costs {
        dtype,
        layer,
        recomputed,
        send_recv_ns,
        body: [kept, full],
        first,
        last,
        after: PLACEMENTS.map(|placement| (placement, After::default())),
        in_range: true,
        prices: Vec::new(),
        notes: Vec::new(),
    };
    let own = pricing.after(job.layout(), &costs);
    costs.after = PLACEMENTS.map(|placement| {
        if placement == job.layout().placement {
            return (placement, own);
        }
        // What has no price was named for the job's own layout already.
        let layout = Layout { placement, chunks: 2, ..job.layout() };
        (placement, Pricing::new(job, prices, shape).after(layout, &costs))
    });
    let Pricing { in_range, listed, mut notes, .. } = pricing;
    let sheet = listed.iter().filter(|p| p.price.is_some_and(|price| price.source == Source::Datasheet)).count();
    if sheet > 0 {
        notes.insert(0, format!("{sheet} of {} are from a data sheet, not measured", counted(listed.len(), "price")));
    }
    if job.parallel.layout.is_none() && !job.model.layers.is_multiple_of(spread::pieces(job.layout()) as u64) {
        let layers: Vec<String> = job.cell_layers(job.layout()).iter().map(u64::to_string).collect();
        notes.push(format!(
            "{} do not divide evenly: spread over the stages as {}, the ends lighter; `layout` sets another",
            counted(job.model.layers, "layer"),
            layers.join(", ")
        ));
    }
    Ok(Costs { in_range, prices: listed, notes, ..costs })
}

impl<'a> Pricing<'a> {
    const fn new(job: &'a Job, prices: &'a dyn Prices, shape: LayerShape) -> Self {
        Pricing { job, prices, shape, in_range: true, listed: Vec::new(), notes: Vec::new() }
    }

    fn list(&mut self, what: String, group: PriceGroup, price: Option<Price>) {
        if !self.listed.iter().any(|listed| listed.what == what) {
            self.listed.push(ListedPrice { what, group, price });
        }
    }

    /// Something has no price, or one beyond what was measured.
    fn outside(&mut self, note: String) {
        self.in_range = false;
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Lists a price and says where it stands on weak ground; its time in ns.
    fn take(&mut self, what: &str, group: PriceGroup, price: Option<Price>) -> f64 {
        self.list(what.to_string(), group, price);
        match price {
            None => {
                self.outside(format!("{what} is not in the cost model: counted as 0"));
                0.0
            }
            Some(price) => {
                if price.source == Source::Datasheet {
                    self.in_range = false;
                } else if !price.in_range {
                    self.outside(format!("{what} lies outside what was measured: its time is extrapolated"));
                }
                price.time_ns
            }
        }
    }

    /// An operation that is small beside the layers.
    fn small(&mut self, operation: &Operation, what: &str) -> f64 {
        self.take(what, PriceGroup::Operations, self.prices.operation(operation, self.shape.dtype))
    }

    /// A pass that reads and writes this many bytes.
    fn pass(&self, bytes: f64) -> Option<Price> {
        let len = (bytes / (2.0 * self.shape.dtype.bytes() as f64)).round() as usize;
        self.prices.operation(&Operation::Copy { len }, self.shape.dtype)
    }

    /// One price of several passes over memory of the given sizes in bytes.
    fn passes(&mut self, what: &str, sizes: &[f64]) -> f64 {
        let mut sum: Option<Price> = Some(Price::exact(0.0, true));
        for &bytes in sizes.iter().filter(|bytes| **bytes > 0.0) {
            sum = sum.zip(self.pass(bytes)).map(|(sum, price)| Price {
                time_ns: sum.time_ns + price.time_ns,
                low_ns: sum.low_ns + price.low_ns,
                high_ns: sum.high_ns + price.high_ns,
                in_range: sum.in_range && price.in_range,
                source: price.source,
            });
        }
        self.take(what, PriceGroup::Operations, sum)
    }

    fn collective(&mut self, message: PricedCollective) -> f64 {
        if message.ranks < 2 || message.bytes == 0 {
            return 0.0;
        }
        let what = format!(
            "{} of {} between {} on {}",
            message.operation,
            size(message.bytes),
            counted(message.ranks, "rank"),
            counted(message.nodes, "node")
        );
        self.take(&what, message.group(), self.prices.collective(message))
    }

    /// A collective of the tensor-parallel ranks.
    fn tensor_parallel(&mut self, operation: &'static str, bytes: u64) -> f64 {
        let (ranks, nodes) = (self.shape.tensor, self.shape.tensor.div_ceil(self.job.hardware.gpus_per_node));
        self.collective(PricedCollective { operation, ranks, nodes, bytes })
    }

    /// Collectives of one layer in F, B and W, in ns.
    ///
    /// Tensor parallelism: two all-reduces each way (Narayanan et al., arXiv 2104.04473, §2.3); with sequence parallelism
    /// two all-gathers and two reduce-scatters each way, and two more all-gathers for the weights' gradients, which need the
    /// inputs that were not kept whole (Korthikanti et al., arXiv 2205.05198, §4.2). Context parallelism: all-to-alls that
    /// trade positions for heads (Jacobs et al., arXiv 2309.14509) where every rank gets whole heads; else keys and values
    /// are gathered, and their gradients scattered. Full recomputation repeats the forward's. Nothing of it overlaps.
    fn layer_collectives(&mut self, recompute: Recompute) -> [f64; 3] {
        let bytes = self.rows_bytes();
        let (forward, weight) = match (self.shape.tensor, self.shape.sequence_parallel) {
            (1, _) => (0.0, 0.0),
            (_, false) => (2.0 * self.tensor_parallel("all_reduce", bytes), 0.0),
            (_, true) => {
                let gather = self.tensor_parallel("all_gather", bytes);
                (2.0 * gather + 2.0 * self.tensor_parallel("reduce_scatter", bytes), 2.0 * gather)
            }
        };
        let (context_forward, context_backward) = self.context_parallel();
        let again = if recompute == Recompute::Full { forward + context_forward } else { 0.0 };
        [forward + context_forward, forward + context_backward + again, weight]
    }

    fn context_parallel(&mut self) -> (f64, f64) {
        let s = self.shape;
        if s.context == 1 {
            return (0.0, 0.0);
        }
        let (local_heads, kv_heads) = (s.heads / s.tensor, s.local_kv_heads());
        let element = s.dtype.bytes() as u64;
        let queries = s.rows() * s.local_width() * element;
        let keys = s.rows() * kv_heads * s.head_size() * element;
        let nodes = (s.context * s.tensor).div_ceil(self.job.hardware.gpus_per_node).min(s.context);
        let mut over =
            |operation, bytes| self.collective(PricedCollective { operation, ranks: s.context, nodes, bytes });
        if local_heads.is_multiple_of(s.context) && kv_heads.is_multiple_of(s.context) {
            // Q and the output, K and V; the other way their gradients. Each is rearranged before and behind.
            let exchange = 2.0 * over("all_to_all", queries) + 2.0 * over("all_to_all", keys);
            let copies = self.passes("rearrangement for the all-to-all", &[2.0 * (2 * queries + 2 * keys) as f64; 2]);
            return (exchange + copies, exchange + copies);
        }
        let gather = over("all_gather", 2 * keys * s.context);
        (gather, gather + over("reduce_scatter", 2 * keys * s.context))
    }

    /// Activations between two layers: micro-batch × sequence × hidden.
    fn rows_bytes(&self) -> u64 {
        self.shape.rows() * self.shape.hidden * self.shape.dtype.bytes() as u64
    }

    /// Look-up, and the gradient of the table; nothing to pass on. The table is divided over the tensor-parallel ranks, so
    /// their parts are summed.
    fn embedding(&mut self) -> [f64; 3] {
        let (bytes, s) = (self.rows_bytes(), self.shape);
        let rows = Rows { rows: s.rows() as usize, cols: s.hidden as usize };
        let forward = self.small(&Operation::EmbeddingForward(rows), "the embedding look-up");
        let weights = self.small(&Operation::EmbeddingToWeights(rows), "the embedding's gradient");
        let (sum, gather) = match (s.tensor, s.sequence_parallel) {
            (1, _) => (0.0, 0.0),
            (_, false) => (self.tensor_parallel("all_reduce", bytes), 0.0),
            (_, true) => (self.tensor_parallel("reduce_scatter", bytes), self.tensor_parallel("all_gather", bytes)),
        };
        [forward + sum, 0.0, weights + gather]
    }

    /// The last normalisation, the head's three products and the loss.
    fn head(&mut self, layer: &LayerPrice) -> [f64; 3] {
        let s = self.shape;
        let columns = self.job.local_vocabulary() as usize;
        let shape = Linear::new(s.rows() as usize, s.hidden as usize, columns);
        let mut by_rate = false;
        let mut times = [
            (Product::Forward, layer.forward, Phase::Forward),
            (Product::ToInputs, layer.backward_input, Phase::BackwardInput),
            (Product::ToWeights, layer.backward_weight, Phase::BackwardWeight),
        ]
        .map(|(product, like, phase)| {
            let shape = if product == Product::ToWeights { shape.accumulating() } else { shape };
            let operation = Operation::Linear { product, shape, epilogue: Epilogue::None };
            let price = self.prices.operation(&operation, s.dtype);
            let price = price.filter(|p| p.in_range || p.source == Source::Datasheet);
            // Beyond the products that were measured, the rate the whole layer reaches is the better guide.
            by_rate |= price.is_none();
            let price = price.unwrap_or_else(|| by_layer_rate(like, operation.flop() / s.flop(phase).max(1.0)));
            self.list(format!("the head's product, {}", product.name()), PriceGroup::Operations, Some(price));
            price.time_ns
        });
        if by_rate && layer.forward.source != Source::Datasheet {
            self.outside("the head's products lie outside what was measured: counted at a layer's FLOP rate".into());
        }
        let rows = Rows { rows: s.rows() as usize, cols: columns };
        // Loss and gradient in one operation.
        let loss = self.small(&Operation::CrossEntropy(rows), "the loss");
        let norms = match s.norm {
            Normalization::Layernorm => [
                Operation::LayernormForward(s.norm_rows()),
                Operation::LayernormToInputs(s.norm_rows()),
                Operation::LayernormToWeights(s.norm_rows()),
            ],
            Normalization::Rmsnorm => [
                Operation::RmsnormForward(s.norm_rows()),
                Operation::RmsnormToInputs(s.norm_rows()),
                Operation::RmsnormToWeights(s.norm_rows()),
            ],
        };
        let names = [
            "the last normalisation",
            "the last normalisation's gradient to inputs",
            "the last normalisation's gradient to weights",
        ];
        for ((time, norm), what) in times.iter_mut().zip(norms).zip(names) {
            *time += self.small(&norm, what);
        }
        times[0] += loss;
        if s.tensor > 1 {
            let bytes = self.rows_bytes();
            // Largest logit, and sum and target's logit together, of every row in 32 bits.
            times[0] +=
                self.tensor_parallel("all_reduce", 4 * s.rows()) + self.tensor_parallel("all_reduce", 8 * s.rows());
            if s.sequence_parallel {
                let gather = self.tensor_parallel("all_gather", bytes);
                times[0] += gather;
                times[1] += self.tensor_parallel("reduce_scatter", bytes);
                times[2] += gather;
            } else {
                times[1] += self.tensor_parallel("all_reduce", bytes);
            }
        }
        times
    }

    /// Each tensor-parallel rank sends its own part; where the sequence is not divided the receivers gather the parts
    /// (Narayanan et al., arXiv 2104.04473, §4.1).
    fn send_recv(&mut self) -> f64 {
        if self.job.parallel.pipeline == 1 {
            return 0.0;
        }
        let whole = self.rows_bytes();
        let bytes = whole.div_ceil(self.shape.tensor);
        let sent = self.collective(PricedCollective { operation: "send_recv", ranks: 2, nodes: self.nodes(), bytes });
        let gathered = if self.shape.sequence_parallel { 0.0 } else { self.tensor_parallel("all_gather", whole) };
        sent + gathered
    }

    fn after(&mut self, layout: Layout, costs: &Costs) -> After {
        let parameters = memory::parameters(self.job, layout);
        let largest = parameters.into_iter().max().unwrap_or(0);
        let gradients = self.gradients(largest, layout, costs) + self.tied_embedding(layout);
        let step = self.optimizer(largest) + self.norm();
        After { gradients_ns: gradients.round() as u64, optimizer_ns: step.round() as u64 }
    }

    /// A step in Megatron-LM's order: gradients are set to 0 before it, scaled by the number of replicas, their norm is
    /// taken, they are clipped, AdamW updates its 32-bit parameters, and those are rounded for the next forward. With ZeRO
    /// they are looked through for numbers that are none before the exchange, and each rank does what follows it for its
    /// own part.
    fn optimizer(&mut self, parameters: u64) -> f64 {
        let p = &self.job.parallel;
        let own = if p.zero > 0 { parameters.div_ceil(self.job.replicas()) } else { parameters };
        let (all, part) = (parameters as f64, own as f64);
        let gradient = p.gradient_dtype.bytes() as f64;
        let step = self.small(&Operation::Adamw { len: own as usize }, "the optimizer step");
        let scaled = if self.job.replicas() > 1 { 2.0 * gradient * all } else { 0.0 };
        let checked = if p.zero > 0 { gradient * all } else { 0.0 };
        let element = self.shape.dtype.bytes() as f64;
        let rounded = if element < 4.0 { (4.0 + element) * part } else { 0.0 };
        let passes = [gradient * all, scaled, checked, gradient * part, 2.0 * gradient * part, rounded];
        step + self.passes("the passes over gradients and parameters around the step", &passes)
    }

    /// Gradients are exchanged between the ranks that hold the same layers. In a two-way pipeline every stage has two
    /// copies, which are data-parallel to each other.
    fn gradients(&mut self, parameters: u64, layout: Layout, costs: &Costs) -> f64 {
        let copies = if layout.splits() { 1 } else { 2 };
        let ranks = self.job.replicas().saturating_mul(copies);
        if ranks == 1 || self.job.gpus() == 1 {
            return 0.0;
        }
        let p = &self.job.parallel;
        let nodes = ranks.saturating_mul(self.shape.tensor).div_ceil(self.job.hardware.gpus_per_node).min(ranks);
        let bytes = parameters.saturating_mul(p.gradient_dtype.bytes() as u64);
        // The longest stage's backward of the last micro-batch and forward of the first can hide an exchange, but for its
        // last or first layer.
        let layers = self.job.cell_layers(layout).into_iter().max().unwrap_or(1).max(1) as f64;
        let hidden = |whole: f64, overlaps: bool, behind: f64| match overlaps {
            true => (whole - behind).max(whole / layers),
            false => whole,
        };
        let [forward, input, weight] = costs.body[0].map(|ns| ns * layers);
        if p.zero == 0 {
            let whole = self.collective(PricedCollective { operation: "all_reduce", ranks, nodes, bytes });
            return hidden(whole, p.overlap_gradients, input + weight);
        }
        // Gradients that are kept in parts are exchanged after every micro-batch.
        let micro_batches = self.job.micro_batches() as f64;
        let rounds = if p.zero > 1 { micro_batches } else { 1.0 };
        let scatter = self.collective(PricedCollective { operation: "reduce_scatter", ranks, nodes, bytes });
        let exchange = rounds * hidden(scatter, p.overlap_gradients, input + weight);
        let bytes = parameters.saturating_mul(self.shape.dtype.bytes() as u64);
        let gather = self.collective(PricedCollective { operation: "all_gather", ranks, nodes, bytes });
        // Weights that are kept in parts are gathered for every forward and again for every backward.
        let gathers = if p.zero > 2 { 2.0 * micro_batches } else { 1.0 };
        exchange + gathers * hidden(gather, p.overlap_parameters, forward)
    }

    /// Embedding and head are one matrix: where two devices hold it, its gradient is summed between them.
    fn tied_embedding(&mut self, layout: Layout) -> f64 {
        if !self.job.model.tied || layout.placement != Placement::Loop || layout.stages == 1 {
            return 0.0;
        }
        let gradient = self.job.parallel.gradient_dtype.bytes() as u64;
        let bytes = self.job.local_vocabulary().saturating_mul(self.shape.hidden).saturating_mul(gradient);
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
    const fn nodes(&self) -> u64 {
        if self.job.gpus() > self.job.hardware.gpus_per_node { 2 } else { 1 }
    }
}

/// `times` as much as a layer's phase, and 30 % less sure: a product is not a layer.
fn by_layer_rate(like: Price, times: f64) -> Price {
    let price = like.times(times);
    Price { low_ns: price.low_ns / 1.3, high_ns: price.high_ns * 1.3, in_range: false, ..price }
}

/// A size as people say it: exact where it is a round number of KiB, MiB or GiB, else to three digits.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GiB", 1073741824.0), ("MiB", 1048576.0), ("KiB", 1024.0)];
    let exact = format_bytes(bytes);
    let large = UNITS.iter().find(|(_, unit)| bytes as f64 >= *unit);
    match large {
        Some((name, unit)) if !exact.ends_with(name) => format!("{} {name}", significant(bytes as f64 / unit)),
        _ => exact,
    }
}

#[cfg(test)]
mod tests;
