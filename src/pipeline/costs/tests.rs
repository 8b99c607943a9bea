use super::*;
use crate::pipeline::prices::Price;
use std::path::Path;

/// A machine whose prices are round numbers.
struct Made;

impl Prices for Made {
    fn layer(&self, _: LayerShape) -> Result<LayerPrice> {
        Ok(LayerPrice::exact(1000.0, 1100.0, 900.0, 10))
    }

    fn collective(&self, message: PricedCollective) -> Option<Price> {
        (message.operation != "reduce_scatter")
            .then_some(Price::exact(message.bytes as f64 / 1000.0, message.nodes == 1))
    }

    fn operation(&self, operation: &Operation, _: DType) -> Option<Price> {
        match operation {
            Operation::Linear { .. } | Operation::Adamw { .. } => None,
            Operation::Copy { .. } => Some(Price::exact(1.0, true)),
            _ => Some(Price::exact(7.0, true)),
        }
    }
}

fn parsed(model: &str, parallel: &str) -> Job {
    let text = format!(
        "[model]\nlayers = 8\nhidden = 512\nheads = 8\nsequence = 128\nvocabulary = 4096\n{model}\n[parallel]\n{parallel}"
    );
    Job::parse(Path::new("job.toml"), &text).unwrap()
}

fn job(parallel: &str) -> Job {
    parsed("", parallel)
}

fn priced(job: &Job) -> (Costs, Times) {
    let costs = of_job(job, &Made, DType::Bf16).unwrap();
    let times = costs.times(job, job.layout());
    (costs, times)
}

/// A message of 256 rows of 512 elements.
const SEND_NS: u64 = 262;

#[test]
fn a_plain_job_is_layers_a_head_and_the_messages_between_stages() {
    let job = job("pipeline = 4\nmicro_batch = 2\nglobal_batch = 16");
    let (costs, times) = priced(&job);
    let stage = |sends_on, sends_back| StageTimes::new(2000 + sends_on * SEND_NS, 2200 + sends_back * SEND_NS, 1800);
    assert_eq!(times.stage, [stage(1, 0), stage(1, 1), stage(1, 1), stage(0, 1)]);
    assert_eq!((costs.send_recv_ns, times.send_recv_ns), (SEND_NS, 0));
    assert_eq!(times.first, StageTimes::new(7, 0, 7));
    let head = |ns: f64, phase| ns * 2.0 * 256.0 * 512.0 * 4096.0 / job.layer(DType::Bf16).flop(phase);
    // Loss and last normalisation with their gradients.
    assert_eq!(times.last.forward_ns, (14.0 + head(1000.0, Phase::Forward)).round() as u64);
    assert_eq!(times.last.backward_input_ns, (7.0 + head(1100.0, Phase::BackwardInput)).round() as u64);
    assert_eq!(times.last.backward_weight_ns, (7.0 + head(900.0, Phase::BackwardWeight)).round() as u64);
    // Only the shared matrix's gradient, 4096 × 512 in 32 bits; the passes over the gradients.
    assert_eq!(costs.after(Placement::Loop), After { gradients_ns: 8389, optimizer_ns: 4 });
    assert_eq!(costs.after(Placement::Vee).gradients_ns, 0);
    let copies = 4 * memory::parameters(&job, Layout { placement: Placement::Both, stages: 4, chunks: 2 })[0];
    assert_eq!(costs.after(Placement::Both).gradients_ns, (copies as f64 / 1000.0).round() as u64);
    assert!(!costs.in_range && costs.notes.len() == 2, "{:?}", costs.notes);
    assert!(costs.notes[0].contains("the head's products") && costs.notes[1].contains("the optimizer step"));
    assert!(costs.assumed().iter().any(|a| a == "the optimizer step: no price, counted as 0"), "{:?}", costs.assumed());
}

#[test]
fn tensor_and_data_parallel_collectives_are_added() {
    let job = job("pipeline = 2\ntensor = 2\ndata = 8\nmicro_batch = 2\nglobal_batch = 32\nrecompute = \"full\"");
    let (costs, times) = priced(&job);
    let reduce = 2.0 * 256.0 * 512.0 * 2.0 / 1000.0;
    // Each of two ranks sends its half, and both gather the whole.
    let send = 262 / 2 + 262;
    assert_eq!(costs.send_recv_ns, send);
    assert_eq!(times.stage[0].forward_ns, (4.0 * (1000.0f64 + reduce)).round() as u64 + send);
    assert_eq!(times.stage[1].backward_input_ns, (4.0 * (1100.0f64 + 2.0 * reduce)).round() as u64 + send);
    assert_eq!(times.stage[0].backward_weight_ns, 3600);
    let matrix = 4096 * 512 / 2;
    let bytes = 4 * memory::parameters(&job, job.layout())[0] + 4 * matrix;
    assert_eq!(costs.after(Placement::Loop).gradients_ns, (bytes as f64 / 1000.0).round() as u64);
    assert!(!costs.in_range && costs.notes.iter().any(|n| n.contains("between 8 ranks on 2 nodes")));
}

/// Gathers before the products, reduce-scatters behind them, and the inputs gathered again for the weights' gradients.
#[test]
fn what_cannot_be_priced_is_named() {
    let job = job("pipeline = 2\ntensor = 2\nmicro_batch = 2\nglobal_batch = 32\nsequence_parallel = true");
    let (costs, times) = priced(&job);
    assert!(!costs.in_range && costs.notes.iter().any(|n| n.contains("reduce_scatter") && n.contains("counted as 0")));
    assert_eq!(costs.send_recv_ns, 131);
    let gather = 256.0 * 512.0 * 2.0 / 1000.0;
    assert_eq!(times.stage[0].backward_weight_ns, (4.0 * (900.0f64 + 2.0 * gather)).round() as u64);
}

/// With ZeRO gradients are scattered and parameters gathered; in parts after every micro-batch from stage 2 on.
#[test]
fn zero_exchanges_parts() {
    let parallel = |zero| format!("pipeline = 1\ndata = 4\nmicro_batch = 2\nglobal_batch = 32\nzero = {zero}");
    let gathered = |zero: u64| {
        let job = job(&parallel(zero));
        let parameters = memory::parameters(&job, job.layout())[0] as f64;
        (priced(&job).0.after(Placement::Loop).gradients_ns as f64, parameters)
    };
    let (all_reduced, parameters) = gathered(0);
    assert_eq!(all_reduced, (4.0 * parameters / 1000.0).round());
    // A reduce-scatter has no price on this machine: what is left are the gathers, of 16-bit parameters.
    assert_eq!(gathered(1).0, (2.0 * parameters / 1000.0).round());
    assert_eq!(gathered(2).0, gathered(1).0);
    assert_eq!(gathered(3).0, (8.0 * 2.0 * parameters / 1000.0).round());
}

/// What backward and forward hide is not waited for, but for a last or first layer's part.
#[test]
fn an_overlapped_exchange_shows_its_end_only() {
    let parallel = "pipeline = 1\ndata = 4\nmicro_batch = 2\nglobal_batch = 32\noverlap_gradients = true";
    let job = job(parallel);
    let whole = 4.0 * memory::parameters(&job, job.layout())[0] as f64 / 1000.0;
    let exposed = (whole - 8.0 * 2000.0).max(whole / 8.0);
    assert_eq!(priced(&job).0.after(Placement::Loop).gradients_ns, exposed.round() as u64);
}

/// Some layers of a stage recompute everything, the others nothing: on this machine both take as long, but the forward's
/// collectives are repeated for those that do.
#[test]
fn layers_that_recompute_repeat_their_collectives() {
    let parallel = "pipeline = 2\ntensor = 2\nmicro_batch = 2\nglobal_batch = 32\nrecompute_layers = 1";
    let (_, times) = priced(&job(parallel));
    let reduce = 2.0 * 256.0 * 512.0 * 2.0 / 1000.0;
    assert_eq!(times.stage[0].backward_input_ns, (4.0 * (1100.0f64 + reduce) + reduce).round() as u64);
}

/// Stages of 1, 3, 3 and 1 layers, and chunks of theirs.
#[test]
fn an_uneven_layout_gives_each_cell_its_layers() {
    let (_, times) = priced(&job("pipeline = 4\nmicro_batch = 2\nglobal_batch = 16\nlayout = [1, 3, 3, 1]"));
    assert_eq!(times.stage.iter().map(|t| t.backward_weight_ns).collect::<Vec<_>>(), [900, 2700, 2700, 900]);
    let interleaved =
        "pipeline = 2\nmicro_batch = 2\nglobal_batch = 16\nschedule = \"interleaved\"\nlayout = \"Et|ttt|ttt|tL\"";
    let (_, times) = priced(&job(interleaved));
    let cells: Vec<u64> = times.cells.unwrap().iter().map(|t| t.backward_weight_ns).collect();
    assert_eq!(cells, [900, 2700, 2700, 900]);
    assert_eq!(times.stage[0].backward_weight_ns, 3600);
    let (costs, times) = priced(&job("pipeline = 3\nmicro_batch = 2\nglobal_batch = 18"));
    assert_eq!(times.stage.iter().map(|t| t.backward_weight_ns).collect::<Vec<_>>(), [2700, 2700, 1800]);
    assert!(costs.notes.iter().any(|n| n.contains("spread over the stages as 3, 3, 2")), "{:?}", costs.notes);
}

/// Positions are traded for heads where every rank gets whole ones, else keys and values are gathered.
#[test]
fn context_parallel_ranks_exchange_heads_or_gather_keys() {
    let parallel = "pipeline = 1\ncontext = 2\nmicro_batch = 2\nglobal_batch = 32";
    let (costs, times) = priced(&job(parallel));
    assert_eq!(costs.layer.forward.time_ns, 1000.0);
    // Q, K, V and the output of 128 rows of 512 elements each, and two copies.
    let exchange = 4.0 * 128.0 * 512.0 * 2.0 / 1000.0 + 2.0;
    assert_eq!(times.stage[0].forward_ns, (8.0 * (1000.0f64 + exchange)).round() as u64);
    let grouped = parsed("kv_heads = 1", parallel);
    let (costs, _) = priced(&grouped);
    assert!(
        costs.prices.iter().any(|p| p.what.starts_with("all_gather of 64KiB between 2 ranks")),
        "{:?}",
        costs.prices
    );
}
