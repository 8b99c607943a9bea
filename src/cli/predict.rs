//! `bubblebench predict`: one question to a cost model, answered with an interval.

use super::fit::this_machines_folder;
use super::known::known;
use super::terminal;
use crate::collectives::{CollectiveOperation, Element};
use crate::corun::cuda::Streams;
use crate::corun::sharing::Sharing;
use crate::cost;
use crate::cost::predict::{self, Answer, CollectiveQuery, CorunPrediction, LayerPrediction, Prediction};
use crate::records::store::COST_MODEL;
use crate::records::{CostModel, files};
use crate::report::Table;
use crate::shape::{AttentionKind, DType, LayerShape, Normalization, Positions, Recompute};
use crate::{Error, Result, nearest, units};
use std::path::{Path, PathBuf};

/// What `bubblebench predict` is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bubblebench predict --cost-model cost_model.json layer --hidden 1024 \\\n    \
    --heads 16 --sequence 512 --micro-batch 2\n  \
    bubblebench predict --cost-model cost_model.json layer --hidden 4096 \\\n    \
    --heads 32 --kv-heads 8 --ffn-hidden 14336 --gated --norm rmsnorm \\\n    \
    --positions rotary --no-bias --sequence 8192 --micro-batch 1\n  \
    bubblebench predict --cost-model cost_model.json collective \\\n    \
    --operation all_reduce --ranks 8 --bytes 16MiB --json\n  \
    bubblebench predict --cost-model cost_model.json corun \\\n    \
    --main gpt-h512-a8-s256-b1-t1-f32-forward --side mlp-b32 --sharing free")]
pub struct PredictArgs {
    /// The model to ask [default: cost_model.json in BUBBLEBENCH_RESULTS, else in results/<machine>]
    #[arg(long, global = true, value_name = "FILE", display_order = 100)]
    cost_model: Option<PathBuf>,
    /// Answer as JSON (bubblebench.prediction/1)
    #[arg(long, global = true, display_order = 101)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, clap::Subcommand)]
enum Question {
    /// A GPT layer's phases for one micro-batch on one tensor-parallel rank
    Layer(LayerArgs),
    /// A collective or send/recv
    Collective(CollectiveArgs),
    /// A main beside a side
    Corun(CorunArgs),
}

/// Optional here and checked after the file: what is wrong with the file is said first.
#[derive(Debug, clap::Args)]
struct LayerArgs {
    /// Hidden size of the whole layer, in elements (h)
    #[arg(long, value_name = "H")]
    hidden: Option<u64>,
    /// Attention heads of the whole layer (a); they divide the hidden size
    #[arg(long, value_name = "A")]
    heads: Option<u64>,
    /// Length of a sequence, in tokens (s)
    #[arg(long, value_name = "S")]
    sequence: Option<u64>,
    /// Sequences of one micro-batch (b)
    #[arg(long, value_name = "B")]
    micro_batch: Option<u64>,
    /// Tensor-parallel ranks that the layer is divided over (t); the answer is one rank's time
    #[arg(long, value_name = "T", default_value_t = 1)]
    tensor: u64,
    /// Type of activations, parameters and gradients [default: the one measured]
    #[arg(long, value_name = "TYPE", value_parser = known(DType::TRAINED.map(DType::name)))]
    dtype: Option<String>,
    /// What the backward pass computes again: nothing, attention, or the whole forward
    #[arg(long, value_name = "WHAT", default_value = "none", value_parser = known(Recompute::ALL.map(Recompute::name)))]
    recompute: String,
    /// Heads of keys and values of the whole layer (grouped-query attention); they divide the heads [default: as many]
    #[arg(long, value_name = "K")]
    kv_heads: Option<u64>,
    /// Inner width of the MLP of the whole layer, in elements [default: 4 h]
    #[arg(long, value_name = "F")]
    ffn_hidden: Option<u64>,
    /// A gated MLP: its first product is twice as wide, and one half gates the other (SwiGLU)
    #[arg(long)]
    gated: bool,
    /// How rows are normalised
    #[arg(long, value_name = "NORM", default_value = "layernorm", value_parser = known(Normalization::ALL.map(Normalization::name)))]
    norm: String,
    /// How positions come in: added to the embedding, or rotated into queries and keys of every layer
    #[arg(long, value_name = "KIND", default_value = "learned", value_parser = known(Positions::ALL.map(Positions::name)))]
    positions: String,
    /// Products without biases
    #[arg(long)]
    no_bias: bool,
    /// Attention of every position to every other, as in BERT
    #[arg(long)]
    non_causal: bool,
    /// Whether attention is one kernel that keeps its scores on the chip, or they lie in memory
    #[arg(long, value_name = "KIND", default_value = "flash", value_parser = known(AttentionKind::ALL.map(AttentionKind::name)))]
    attention: String,
    /// Normalisations and skip paths divided along the sequence, over the tensor-parallel ranks
    #[arg(long)]
    sequence_parallel: bool,
}

#[derive(Debug, clap::Args)]
struct CollectiveArgs {
    /// The operation; of send_recv a pattern may be named too, as in send_recv/one_way
    #[arg(long, value_name = "NAME", value_parser = known(CollectiveOperation::ALL.map(|operation| operation.definition().name())))]
    operation: Option<String>,
    /// Ranks that take part (GPUs, or threads of the host)
    #[arg(long, value_name = "N")]
    ranks: Option<u64>,
    /// Nodes that the ranks are spread over
    #[arg(long, value_name = "K", default_value_t = 1)]
    nodes: u64,
    /// Message size as nccl-tests counts it: 65536, 64KiB, 16MiB
    #[arg(long, value_name = "BYTES")]
    bytes: Option<String>,
    /// One operation synchronised on its own instead of one of a back-to-back run
    #[arg(long)]
    isolated: bool,
    /// Element type [default: any measured]
    #[arg(long, value_name = "TYPE", value_parser = known(Element::ALL.map(Element::name)))]
    dtype: Option<String>,
}

#[derive(Debug, clap::Args)]
struct CorunArgs {
    /// The main, as it stands in the measurements, e.g. gpt-h512-a8-s256-b1-t1-f32-forward
    #[arg(long, value_name = "ID")]
    main: Option<String>,
    /// The side, e.g. mlp-b32, convnet-b16, pressure-memory
    #[arg(long, value_name = "NAME")]
    side: Option<String>,
    /// How both share the device: free, split and nice on a CPU, stream and priority on a GPU
    #[arg(long, value_name = "MODE", value_parser = known(Sharing::ALL.map(Sharing::name).into_iter().chain(Streams::ALL.map(Streams::name))))]
    sharing: Option<String>,
}

/// Asks the cost model and prints its answer.
pub fn run(args: &PredictArgs) -> Result<()> {
    let path = match &args.cost_model {
        Some(path) => path.clone(),
        None => own_model(None)?,
    };
    let model = load(&path)?;
    let (answer, table) = ask(&model, &args.question)?;
    let out = if args.json { format!("{}\n", files::to_json(&answer)?) } else { table.terminal(terminal::screen()) };
    super::print(&out)
}

/// The model in the folder given, else the one that this machine's own measurements were fitted to.
pub(super) fn own_model(folder: Option<&Path>) -> Result<PathBuf> {
    let variable = || std::env::var_os("BUBBLEBENCH_RESULTS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let own = || variable().unwrap_or_else(this_machines_folder);
    let path = folder.map_or_else(own, Path::to_path_buf).join(COST_MODEL);
    if path.exists() {
        return Ok(path);
    }
    Err(match folder {
        Some(folder) => Error::input(
            format!("there is no cost model: {} is not there", path.display()),
            format!("make it with `bubblebench fit --results {}`, or give --cost-model FILE", folder.display()),
        ),
        None => Error::input(
            format!("this machine has no cost model: {} is not there", path.display()),
            "measure it first with `cargo bench` or `bubblebench measure all`, or give --cost-model FILE",
        ),
    })
}

/// The answer for programs and for people.
fn ask(model: &CostModel, question: &Question) -> Result<(Answer, Table)> {
    Ok(match question {
        Question::Layer(layer) => {
            let shape = layer.shape(model)?;
            let found = predict::layer(model, shape)?;
            let table = layer_table(&shape, &found);
            (Answer::Layer(found), table)
        }
        Question::Collective(collective) => {
            let query = collective.query()?;
            let found = predict::collective(model, &query)?;
            let basis = predict::extrapolation(model, &query);
            (found.into(), collective_table(&query, &found, basis.as_deref()))
        }
        Question::Corun(corun) => {
            let [main, side, sharing] = corun.names()?;
            let found = predict::corun(model, main, side, sharing)?;
            let table = corun_table(main, side, sharing, &found);
            (Answer::Corun(found), table)
        }
    })
}

/// Reads a cost model and refuses one whose numbers cannot be used; layers that stand alone in it are fitted.
pub fn load(path: &Path) -> Result<CostModel> {
    let model: CostModel = files::read_json(path, "cost_model")?;
    cost::check(&model)
        .map_err(|e| Error::input(format!("{}: {e}", path.display()), "nothing was computed from it"))?;
    cost::with_layer_fits(model)
}

fn required<T: Clone>(value: &Option<T>, flag: &str, example: &str) -> Result<T> {
    value.clone().ok_or_else(|| Error::input(format!("{flag} is missing"), format!("give it, e.g. {flag} {example}")))
}

/// The value of that name; any other text is answered with the nearest one.
fn one_of<T: Copy>(flag: &str, text: &str, all: &[T], spelled: fn(T) -> &'static str) -> Result<T> {
    all.iter().copied().find(|value| spelled(*value) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|value| spelled(*value)).collect();
        Error::input(format!("{flag} {text} is unknown"), nearest::cure(text, names))
    })
}

impl LayerArgs {
    fn shape(&self, model: &CostModel) -> Result<LayerShape> {
        let plain = LayerShape::new(
            required(&self.hidden, "--hidden", "1024")?,
            required(&self.heads, "--heads", "16")?,
            required(&self.sequence, "--sequence", "512")?,
            required(&self.micro_batch, "--micro-batch", "1")?,
            self.dtype(model)?,
        );
        let shape = LayerShape {
            tensor: self.tensor,
            recompute: one_of("--recompute", &self.recompute, &Recompute::ALL, Recompute::name)?,
            kv_heads: self.kv_heads.unwrap_or(plain.kv_heads),
            ffn_hidden: self.ffn_hidden.unwrap_or(plain.ffn_hidden),
            gated: self.gated,
            norm: one_of("--norm", &self.norm, &Normalization::ALL, Normalization::name)?,
            positions: one_of("--positions", &self.positions, &Positions::ALL, Positions::name)?,
            bias: !self.no_bias,
            causal: !self.non_causal,
            attention: one_of("--attention", &self.attention, &AttentionKind::ALL, AttentionKind::name)?,
            sequence_parallel: self.sequence_parallel && self.tensor > 1,
            ..plain
        };
        shape.validate()?;
        Ok(shape)
    }

    /// As given; else the cost model's own.
    fn dtype(&self, model: &CostModel) -> Result<DType> {
        if let Some(name) = &self.dtype {
            return DType::parse(name).ok_or_else(|| {
                let cure = nearest::cure(name, DType::FLOATS.map(DType::name));
                Error::input(format!("--dtype {name} is unknown"), cure)
            });
        }
        Ok(predict::usual_dtype(model))
    }
}

impl CollectiveArgs {
    fn query(&self) -> Result<CollectiveQuery> {
        Ok(CollectiveQuery {
            operation: required(&self.operation, "--operation", "all_reduce")?,
            ranks: required(&self.ranks, "--ranks", "8")?,
            nodes: self.nodes,
            bytes: units::parse_bytes(&required(&self.bytes, "--bytes", "16MiB")?)?,
            isolated: self.isolated,
            dtype: self.dtype.clone(),
        })
    }
}

impl CorunArgs {
    fn names(&self) -> Result<[&str; 3]> {
        let given = [
            (&self.main, "--main", "gpt-h512-a8-s256-b1-t1-f32-forward"),
            (&self.side, "--side", "mlp-b32"),
            (&self.sharing, "--sharing", "free"),
        ];
        let mut names = [""; 3];
        for (name, (value, flag, example)) in names.iter_mut().zip(given) {
            *name = value
                .as_deref()
                .ok_or_else(|| Error::input(format!("{flag} is missing"), format!("give it, e.g. {flag} {example}")))?;
        }
        Ok(names)
    }
}

fn row(name: &str, p: &Prediction) -> Vec<String> {
    let range = format!("{} – {}", units::format_ns(p.low_ns), units::format_ns(p.high_ns));
    vec![name.into(), units::format_ns(p.median_ns), range, if p.in_range { "yes" } else { "no" }.into()]
}

const COLUMNS: [&str; 4] = ["", "median", "95 % interval", "in range"];

fn layer_table(shape: &LayerShape, p: &LayerPrediction) -> Table {
    let note = format!(
        "One micro-batch on one rank; activations {:.1} MiB, parameters {:.1} MiB.",
        p.activation_bytes as f64 / f64::from(1 << 20),
        p.parameter_bytes as f64 / f64::from(1 << 20)
    );
    let mut table = Table::new(&format!("Layer {}", shape.slug()), &note, &COLUMNS);
    table.row(row("forward", &p.forward));
    table.row(row("backward to inputs", &p.backward_input));
    table.row(row("backward to weights", &p.backward_weight));
    table.row(row("forward + backward", &p.forward_backward));
    table
}

fn collective_table(query: &CollectiveQuery, p: &Prediction, basis: Option<&str>) -> Table {
    let title = format!(
        "{} over {}, {}",
        query.operation,
        units::counted(query.ranks, "rank"),
        units::format_bytes(query.bytes)
    );
    let note = if query.isolated { "One operation, synchronised on its own." } else { "One of a back-to-back run." };
    let note = basis.map_or(note.to_string(), |basis| format!("{note} {basis}"));
    let mut table = Table::new(&title, &note, &COLUMNS);
    table.row(row(&query.operation, p));
    table
}

fn corun_table(main: &str, side: &str, sharing: &str, p: &CorunPrediction) -> Table {
    let note = if p.measured { "This pair was measured." } else { "Predicted from pressure and sensitivity." };
    let columns = ["main slowdown", "95 % interval", "side's own pace", "in range"];
    let mut table = Table::new(&format!("{main} beside {side} ({sharing})"), note, &columns);
    table.row(vec![
        format!("{:.3}x", p.slowdown.median),
        format!("{:.3}x – {:.3}x", p.slowdown.low, p.slowdown.high),
        p.side_rate.map_or("unknown".into(), |r| format!("{:.0}%", 100.0 * r)),
        if p.in_range { "yes" } else { "no" }.into(),
    ]);
    table
}
