//! What a job file says, and what its mistakes are answered with.

use super::*;
use proptest::prelude::*;

const RIGHT: &str = r#"
[model]
preset = "gpt-22b"
[parallel]
pipeline = 8
tensor = 8
data = 2
micro_batch = 4
global_batch = 64
schedule = "interleaved"
chunks = 3
sequence_parallel = true
recompute = "selective"
[hardware]
cost_model = "models/cost_model.json"
gpus_per_node = 8
memory_gib = 80
[[side]]
model = "convnet"
batch = 16
[[side]]
name = "mine"
step_ns = 2.5e6
kernel_ns = 120_000
memory_gib = 3
pressure = { memory = 0.3 }
[limits]
main_slowdown = "0.5%"
memory_headroom_gib = 1.5
sides_per_bubble = 3
beside_compute = "priority"
[[side]]
preset = "gpt-125m"
batch = 4
split = false
after_ns = 100
[[side]]
name = "listed"
kernels_ns = [120e3, 80_000]
memory_gib = 1
beside_rate = 0.5
"#;

fn parse(text: &str) -> Result<Job> {
    Job::parse(Path::new("jobs/job.toml"), text)
}

#[test]
fn every_key_is_read() {
    let job = parse(RIGHT).unwrap();
    assert_eq!((job.model.layers, job.model.hidden, job.model.vocabulary), (48, 6144, 51_200));
    assert_eq!((job.micro_batches(), job.gpus()), (8, 128));
    assert_eq!(job.cell_layers(job.layout()), [2; 24]);
    assert_eq!(job.parallel.schedule, ScheduleName::Interleaved);
    assert_eq!(job.parallel.recompute, Recompute::Selective);
    assert!(job.parallel.sequence_parallel);
    assert_eq!(job.hardware.cost_models, [Path::new("jobs/models/cost_model.json")]);
    assert_eq!(job.side[0].measured.as_deref(), Some("convnet-b16"));
    assert_eq!((job.side[1].step_ns, job.side[1].kernel_ns), (Some(2.5e6), Some(120_000.0)));
    assert_eq!(job.side[1].pressure.as_ref().unwrap()["memory"], 0.3);
    assert_eq!(job.side[1].line, 21);
    assert_eq!((job.limits.main_slowdown, job.limits.memory_headroom_gib), (0.005, 1.5));
    assert_eq!((job.limits.sides_per_bubble, job.limits.beside_compute.as_deref()), (3, Some("priority")));
    let (gpt, listed) = (&job.side[2], &job.side[3]);
    let sizes = SideGpt { layers: 12, hidden: 768, heads: 12, sequence: 2048, vocabulary: 51_200, batch: 4 };
    assert_eq!((gpt.name.as_str(), gpt.gpt, gpt.split, gpt.after_ns), ("gpt-125m-b4", Some(sizes), false, Some(100.0)));
    assert_eq!((listed.kernels_ns.as_deref(), listed.beside_rate), (Some(&[120e3, 80e3][..]), Some(0.5)));
    assert!(listed.split && job.side[0].split);
}

/// What people train in 2026: every key of a Llama's, and a preset that has them.
#[test]
fn a_llama_is_described_by_keys_or_by_its_preset() {
    let parallel = "[parallel]\npipeline = 4\ntensor = 2\ndata = 2\ncontext = 2\nmicro_batch = 1\nglobal_batch = 16\n\
        sequence_parallel = true\nzero = 1\noverlap_gradients = true\noverlap_parameters = true\n\
        gradient_dtype = \"bf16\"\nrecompute_layers = 2\nlayout = [19, 21, 21, 19]\n\
        [hardware]\ncost_model = [\"layers.json\", \"network.json\"]\ngpu = \"h100-sxm\"\n";
    let keys = "[model]\nlayers = 80\nhidden = 8192\nheads = 64\nkv_heads = 8\nffn_hidden = 28672\ngated = true\n\
        norm = \"rmsnorm\"\npositions = \"rotary\"\nbias = false\ntied = false\nsequence = 4096\nvocabulary = 32000\n";
    let (written, preset) = (
        parse(&format!("{keys}{parallel}")).unwrap(),
        parse(&format!("[model]\npreset = \"llama2-70b\"\n{parallel}")).unwrap(),
    );
    let unnamed = |job: &Job| Model { name: String::new(), ..job.model.clone() };
    assert_eq!(unnamed(&written), unnamed(&preset));
    let p = &written.parallel;
    assert_eq!((p.context, p.zero, p.recompute_layers, p.gradient_dtype), (2, 1, Some(2), DType::Bf16));
    assert!(p.overlap_gradients && p.overlap_parameters);
    assert_eq!((written.gpus(), written.replicas()), (32, 4));
    assert_eq!(written.cell_layers(written.layout()), [19, 21, 21, 19]);
    let shape = written.layer(DType::Bf16);
    assert_eq!(shape.slug(), "h8192-a64-s4096-b1-t2-bf16-kv8-ffn28672-gated-rms-rope-nobias-sp-c2");
    let models = ["jobs/layers.json", "jobs/network.json"];
    assert_eq!(written.hardware.cost_models, models.map(Path::new));
    assert_eq!(written.hardware.gpu.as_deref(), Some("h100-sxm"));
    // 32,000 rows over two ranks, padded to groups of 128 each.
    assert_eq!(written.local_vocabulary(), 16_000);
}

/// What is wrong, the line it is in, and a word of the way out.
#[test]
fn each_mistake_is_answered_with_its_line() {
    let cases = [
        ("preset = \"gpt-22b\"", "presett = \"gpt-22b\"", 3, "preset"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22c\"", 3, "did you mean `gpt-22b`"),
        ("preset = \"gpt-22b\"", "preset = 22", 3, "a model's name in quotes"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\nkv_heads = 7", 4, "heads 64 cannot be divided by kv_heads 7"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\nhidden = 4096\ngated = true", 2, "lacks `ffn_hidden`"),
        (
            "preset = \"gpt-22b\"",
            "preset = \"gpt-22b\"\nffn_hidden = 1001",
            7,
            "ffn_hidden 1001 cannot be divided by tensor 8",
        ),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\nnorm = \"rmsnrm\"", 4, "did you mean `rmsnorm`"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\npositions = \"rotary!\"", 4, "did you mean `rotary`"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\nattention = \"flashy\"", 4, "did you mean `flash`"),
        ("preset = \"gpt-22b\"", "preset = \"gpt-22b\"\nexperts = 8", 4, "mixtures of experts have no price yet"),
        ("pipeline = 8", "pipeline = 0", 5, "a whole number from 1"),
        ("pipeline = 8", "pipeline = 17", 5, "layers 48 are fewer than pipeline · chunks 51"),
        ("pipeline = 8", "pipeline = -8", 5, "`pipeline` is -8"),
        ("pipeline = 8", "", 4, "[parallel] lacks `pipeline`"),
        ("tensor = 8", "tensor = 7", 6, "heads 64 cannot be divided by tensor 7"),
        ("global_batch = 64", "global_batch = 60", 9, "cannot be divided by data · micro_batch 8"),
        ("\"interleaved\"", "\"interleafed\"", 10, "did you mean `interleaved`"),
        ("\"interleaved\"", "\"zb-h1\"", 11, "chunks are not a choice of zb-h1"),
        ("\"interleaved\"", "\"zb-v\"", 11, "chunks are not a choice of zb-v"),
        ("global_batch = 64", "global_batch = 72", 9, "micro-batches 9 cannot be divided by stages 8"),
        ("\"interleaved\"\nchunks = 3", "\"dualpipe\"", 9, "dualpipe with 8 micro-batches on 8 stages"),
        ("= true", "= 1", 12, "true or false"),
        ("\"selective\"", "\"some\"", 13, "none, selective, full"),
        ("\"selective\"", "\"selective\"\nrecompute_layers = 1", 14, "both given"),
        ("\"selective\"", "\"none\"\nrecompute_layers = 7", 14, "recompute_layers 7 are more than a stage's 6"),
        ("\"selective\"", "\"none\"\nzero = 3", 14, "zero = 3 with interleaved on 8 stages"),
        ("\"selective\"", "\"none\"\nzero = 4", 14, "give 0, 1, 2 or 3"),
        ("\"selective\"", "\"none\"\ncontext = 3", 14, "sequence 2048 cannot be divided by 2 · context 6"),
        ("\"selective\"", "\"none\"\nexpert = 8", 14, "mixtures of experts have no price yet"),
        ("\"selective\"", "\"none\"\ngradient_dtype = \"f64\"", 14, "f32, bf16"),
        ("\"selective\"", "\"none\"\nlayout = [6, 6, 6, 6, 6, 6, 6, 6]", 14, "8 pieces, the schedule has 24"),
        ("\"selective\"", "\"none\"\nlayout = \"E(t|)*23L\"", 14, "23 layers, the model has 48"),
        ("\"selective\"", "\"none\"\nlayout = \"Et|m|L\"", 14, "multi-token prediction"),
        ("\"selective\"", "\"none\"\nlayout = [1.5]", 14, "whole numbers of layers"),
        ("\"selective\"", "\"none\"\nlayout = true", 14, "a list of numbers"),
        ("[hardware]", "[hardwear]", 14, "did you mean `hardware`"),
        ("memory_gib = 80", "memory_gib = \"80\"", 17, "a number of zero or more"),
        ("step_ns = 2.5e6", "step_ns = 0", 23, "`step_ns` is 0"),
        ("step_ns = 2.5e6", "", 21, "lacks `step_ns`"),
        ("batch = 16", "", 18, "lacks `batch`"),
        ("memory = 0.3", "memory = \"much\"", 26, "a number of zero or more"),
        ("\"0.5%\"", "0.5", 28, "a percentage in quotes"),
        ("headroom_gib = 1.5", "headrom_gib = 1.5", 29, "did you mean `memory_headroom_gib`"),
        ("sides_per_bubble = 3", "sides_per_buble = 3", 30, "did you mean `sides_per_bubble`"),
        ("sides_per_bubble = 3", "sides_per_bubble = 0", 30, "a whole number from 1"),
        ("\"priority\"", "true", 31, "a sharing mode in quotes"),
        ("batch = 4\nsplit", "split", 32, "lacks `batch`"),
        ("\"gpt-125m\"", "\"gpt-124m\"", 33, "did you mean `gpt-125m`"),
        ("batch = 4\nsplit", "batch = 4\nheads = 7\nsplit", 35, "hidden 768 cannot be divided by heads 7"),
        ("preset = \"gpt-125m\"", "layers = 2", 32, "lacks `hidden`"),
        ("batch = 4\nsplit", "batch = 4\nmodel = \"mlp\"\nsplit", 35, "keep one"),
        ("split = false", "split = \"no\"", 35, "true or false"),
        ("[120e3, 80_000]", "[120e3, \"80\"]", 39, "a number of zero or more"),
        ("[120e3, 80_000]", "120e3", 39, "a list of numbers"),
        ("[120e3, 80_000]", "[]", 39, "holds no kernel"),
        ("beside_rate = 0.5", "step_ns = 1", 41, "both given"),
        ("beside_rate = 0.5", "receive_rate = 2", 41, "give a speed from 0.01 to 1"),
        ("sides_per_bubble = 3", "bubble_jitter = \"40%\"", 30, "\"0.01%\" to \"30%\""),
        ("sides_per_bubble = 3", "bubble_jitter = \"30.2%\"", 30, "`bubble_jitter` is 30.2 %"),
        ("sides_per_bubble = 3", "bubble_jitter = \"1e-300%\"", 30, "or \"0%\""),
        ("sides_per_bubble = 3", "bubble_jitter = 5", 30, "a percentage in quotes"),
        ("sides_per_bubble = 3", "bubble_quantile = \"60%\"", 30, "give \"0.1%\" to \"50%\""),
        ("sides_per_bubble = 3", "bubble_quantile = \"50.4%\"", 30, "`bubble_quantile` is 50.4 %"),
        ("sides_per_bubble = 3", "bubble_quantile = \"1e-300%\"", 30, "give \"0.1%\""),
        ("sides_per_bubble = 3", "bubble_quantile = \"0%\"", 30, "`bubble_quantile` is 0 %"),
        ("kernel_ns = 120_000", "kernel_ns = 1e7", 24, "longer than the whole step"),
        ("[model]", "[model", 2, "not TOML"),
    ];
    for (old, new, line, answer) in cases {
        assert!(RIGHT.contains(old), "{old}");
        let error = parse(&RIGHT.replacen(old, new, 1)).unwrap_err().to_string();
        assert!(error.contains(answer), "{new:?}: {error}");
        let place = format!("jobs/job.toml:{line}: ");
        assert!(error.starts_with(&place), "{new:?}: {error}, not {place}");
    }
    assert!(parse("not json").unwrap_err().to_string().starts_with("jobs/job.toml:1: not TOML"));
    assert!(parse("").unwrap_err().to_string().contains("lacks [model]"));
    assert!(parse("[model]\nlayrs = 3\n").unwrap_err().to_string().contains("`layrs`"));
    assert!(parse("side = 3").unwrap_err().to_string().contains("[[side]]"));
}

proptest! {
    /// Whatever stands in the file, the answer is a job or one line that names it.
    #[test]
    fn no_text_panics(cut in 0usize..900, insert in ".{0,12}", drop in 0usize..9) {
        let cut = (0..=cut.min(RIGHT.len())).rev().find(|&i| RIGHT.is_char_boundary(i)).unwrap();
        let rest = (cut + drop..RIGHT.len()).find(|&i| RIGHT.is_char_boundary(i)).unwrap_or(RIGHT.len());
        let text = format!("{}{insert}{}", &RIGHT[..cut], &RIGHT[rest..]);
        if let Err(error) = parse(&text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("jobs/job.toml:"), "{}", error);
            prop_assert!(!error.contains('\n'));
        }
    }
}
