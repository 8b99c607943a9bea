//! What a wrong job file is answered with: a right one, in which one line is changed at a time.

use crate::errors::refused;
use crate::hold::ROOT;
use std::fs;
use std::path::Path;

/// What stands in the right job, and what is put in its place.
const CHANGES: &[(&str, &str)] = &[
    ("[model]", "[modle]"),
    ("[parallel]", "[[parallel]]"),
    ("[[side]]", "[[sides]]"),
    ("layers = 24", "layers = "),
    ("layers = 24", "layer = 24"),
    ("layers = 24", "layers = \"many\""),
    ("layers = 24", "layers = 3"),
    ("layers = 24", "layers = 24\nkv_heads = 5"),
    ("layers = 24", "layers = 24\ngated = true"),
    ("layers = 24", "layers = 24\nnorm = \"rmsnrom\""),
    ("layers = 24", "preset = \"gpt-22\""),
    ("vocabulary = 30720          #", "#"),
    ("heads = 12\nsequence = 512", "heads = 11\nsequence = 512"),
    ("sequence = 512", "sequence = 0"),
    ("dtype = \"f32\"", "dtype = \"f23\""),
    ("dtype = \"f32\"", "dtype = 32"),
    ("pipeline = 4", "# none"),
    ("pipeline = 4", "pipeline = -4"),
    ("pipeline = 4", "pipeline = 4\ntensor = 5"),
    ("pipeline = 4", "pipeline = 4\nchunks = 2"),
    ("pipeline = 4", "pipeline = 4\nlayout = [6, 6, 6, 5]"),
    ("pipeline = 4", "pipeline = 4\nlayout = \"Et*6|t*12|t*6L\""),
    ("pipeline = 4", "pipeline = 4\nzero = 3"),
    ("pipeline = 4", "pipeline = 4\ncontext = 3"),
    ("pipeline = 4", "pipeline = 4\nexpert = 8"),
    ("pipeline = 4", "pipeline = 4\nsequence_parallel = \"yes\""),
    ("pipeline = 4", "pipeline = 4\nrecompute = \"all\""),
    ("micro_batch = 8", "micro_batch = 7"),
    ("schedule = \"1f1b\"", "schedule = \"zb-h3\""),
    ("schedule = \"1f1b\"", "schedule = \"interleaved\"\nchunks = 7"),
    ("schedule = \"1f1b\"", "schedule = \"chimera\"\ndata = 8"),
    ("cost_model = \"cost_model.json\"", "cost_model = \"elsewhere.json\""),
    ("cost_model = \"cost_model.json\"", "gpu = \"a100\""),
    ("memory_gib = 24", "memory_gib = \"24G\""),
    ("batch = 16", "# none"),
    ("kernels_ns = [90e3,", "kernels_ns = [\"90us\","),
    ("kernels_ns = [", "kernel_ns = 1\nkernels_ns = ["),
    ("memory_gib = 0.4", "# none"),
    ("value = 0.8", "value = -1"),
    ("main_slowdown = \"1%\"", "main_slowdown = 1"),
    ("main_slowdown = \"1%\"", "main_slowdowm = \"1%\""),
    ("sides_per_bubble = 2", "sides_per_bubble = 0"),
];

pub fn job_files() -> String {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(ROOT);
    let right = fs::read_to_string(root.join("examples/gpt-rtx3090-4.toml")).unwrap();
    let right = right.replace("../results/published/rtx3090/", "");
    fs::copy(root.join("results/published/rtx3090/cost_model.json"), folder.path().join("cost_model.json")).unwrap();
    let mut text = String::new();
    for (from, to) in CHANGES {
        assert!(right.contains(from), "the example has no `{from}` to change any more");
        fs::write(folder.path().join("job.toml"), right.replacen(from, to, 1)).unwrap();
        text += &format!("# `{}` is now `{}`\n", from.replace('\n', " ⏎ "), to.replace('\n', " ⏎ "));
        text += &refused(folder.path(), &["plan", "job.toml"]);
    }
    text
}
