//! Bubbles of recorded runs, with one of every kind planted into them.

use crate::hold::{Golden, ROOT, json, run, stdout, text};
use crate::recording::{ALL_REDUCE, RECEIVE, Recording};
use std::path::Path;
use tempfile::TempDir;

/// Three iterations of 10 ms on the clock of a rank: a wait for a message, an exposed all-reduce, a late launch, a copy
/// that is waited for, and a tail.
fn rank(number: u64) -> Recording {
    let epoch = Some(1_760_000_000_000_000_000 + number * 1_000_000);
    let mut run = Recording { rank: Some(number), epoch, ..Recording::default() };
    for step in 0..3 {
        // The second rank's session began a millisecond later.
        let at = |ns: u64| 50_000_000 + step * 10_000_000 + ns - number * 1_000_000;
        run.range(at(0), at(9_990_000), &format!("iteration {step}"));
        run.kernel(at(1_000), at(1_500_000 + 400_000 * number), 20, RECEIVE);
        run.kernel(at(1_500_000 + 400_000 * number), at(3_000_000), 7, "sm80_gemm_tn");
        run.kernel(at(2_900_000), at(3_400_000), 21, ALL_REDUCE);
        run.kernel(at(3_400_000), at(5_000_000), 7, "flash_fwd_kernel");
        let late = run.kernel(at(5_700_000), at(6_600_000), 7, "void layer_norm<float, 4>(float*, \"x\")");
        run.kernels[late].launch = Some(at(5_650_000));
        run.copies.push((at(6_610_000), at(6_990_000), 0));
        let next = run.kernel(at(7_000_000), at(9_000_000), 8, "gelu");
        run.kernels[next].launch = Some(at(6_500_000));
    }
    run
}

fn recorded(write: impl Fn(&Path)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    folder
}

/// Two ranks as nsys exports them.
fn nsys() -> TempDir {
    recorded(|folder| (0..2).for_each(|i| drop(rank(i).nsys(folder, &format!("rank{i}.sqlite")))))
}

/// One rank as PyTorch's profiler writes it.
fn kineto() -> TempDir {
    recorded(|folder| drop(rank(0).kineto(folder, "rank0.json.gz")))
}

pub fn bubbles() -> Vec<Golden> {
    let ranks = ["bubbles", "rank0.sqlite", "rank1.sqlite"];
    let one = ["bubbles", "rank0.json.gz", "--iteration", "1", "--min-gap", "400us", "--compute-streams", "7"];
    vec![
        Golden::new("bubbles-nsys-2-ranks", move || text(nsys().path(), &ranks)),
        Golden::new("bubbles-nsys-2-ranks.json", move || json(nsys().path(), &[&ranks[..], &["--json"]].concat())),
        Golden::new("bubbles-kineto", move || text(kineto().path(), &["bubbles", "rank0.json.gz"])),
        Golden::new("bubbles-kineto.json", move || json(kineto().path(), &["bubbles", "rank0.json.gz", "--json"])),
        Golden::new("bubbles-kineto-one-iteration", move || text(kineto().path(), &one)),
        Golden::new("plan-measured-bubbles", plan),
    ]
}

/// An example's job on two stages, with the bubbles of the two ranks in place of simulated ones.
fn plan() -> String {
    let (folder, root) = (nsys(), Path::new(ROOT));
    let listed = ["bubbles", "rank0.sqlite", "rank1.sqlite", "--json"];
    std::fs::write(folder.path().join("bubbles.json"), stdout(&run(folder.path(), &listed), &listed)).unwrap();
    let job = std::fs::read_to_string(root.join("examples/gpt-rtx3090-4.toml")).unwrap();
    let job = job.replace("pipeline = 4", "pipeline = 2").replace("../results/published/rtx3090/", "");
    // In bubbles of milliseconds a gate that nobody measured would cost more than the limit.
    let job = job.replace("\n[[side]]\n", "\n[[side]]\nafter_ns = 0\n").replace("\"1%\"", "\"5%\"");
    std::fs::write(folder.path().join("job.toml"), job).unwrap();
    std::fs::copy(root.join("results/published/rtx3090/cost_model.json"), folder.path().join("cost_model.json"))
        .unwrap();
    text(folder.path(), &["plan", "job.toml", "--bubbles", "bubbles.json"])
}
