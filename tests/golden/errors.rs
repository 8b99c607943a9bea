//! What wrong input is answered with: every line with the command that caused it and the exit code, in one file.

use crate::hold::{Golden, ROOT, run, typed};
use crate::job_errors;
use std::fs;
use std::path::Path;

pub fn errors() -> Vec<Golden> {
    vec![Golden::new("errors", commands), Golden::new("errors-job-file", job_errors::job_files)]
}

/// The command, its exit code and its line. Nothing may be on stdout, where a script would take it for a result.
pub fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let code = output.status.code().unwrap();
    assert!(code != 0 && output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    let stderr = String::from_utf8(output.stderr).unwrap();
    format!("{}exit code {code}\n{stderr}\n", typed(arguments))
}

/// Two kernels with a gap of 100 µs between them, in one iteration.
const TRACE: &str = r#"{"traceEvents":[
    {"ph":"X","cat":"kernel","name":"a","pid":0,"tid":7,"ts":10,"dur":40.5,"args":{"stream":7,"correlation":1}},
    {"ph":"X","cat":"kernel","name":"b","pid":0,"tid":7,"ts":150.5,"dur":50,"args":{"stream":7,"correlation":2}},
    {"ph":"X","cat":"user_annotation","name":"ProfilerStep#1","pid":1,"tid":1,"ts":0,"dur":200.5}]}"#;

/// One size of an all-reduce, as nccl-tests prints it.
const GOOD_LOG: &str = "# Collective test starting: all_reduce_perf
# Using devices
#  Rank  0 Group  0 Pid 42 on node01 device  0 [0000:00:00] NVIDIA H200
#  Rank  1 Group  0 Pid 42 on node01 device  1 [0000:01:00] NVIDIA H200
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
        4096          1024     float     sum      -1    20.00    0.20    0.20      0    20.00    0.20    0.20      0
# Out of bounds values : 0 OK
";

/// 1F1B on two stages, with two micro-batches.
const ORDER: [(u32, &str, u32); 8] =
    [(0, "F", 0), (0, "F", 1), (0, "B", 0), (0, "B", 1), (1, "F", 0), (1, "B", 0), (1, "F", 1), (1, "B", 1)];

/// The files that the commands name: some right, most wrong.
fn files(folder: &Path) {
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).unwrap();
    let model = fs::read_to_string(Path::new(ROOT).join("results/published/amd-epyc-2c/cost_model.json")).unwrap();
    write("model.json", &model);
    write("cut.json", &model[..300]);
    write("extra.json", &model.replacen("\"machine\"", "\"machines\"", 1));
    write("later.json", r#"{"schema":"bubblebench.cost_model/99"}"#);
    write("other.json", r#"{"schema":"bubblebench.plan/1"}"#);
    write("foreign.json", r#"{"a":1}"#);
    write("file", "x");
    write("right.json", TRACE);
    write("half.json", &TRACE[..200]);
    write("nogpu.json", r#"{"traceEvents":[]}"#);
    write("empty.json", "");
    write("short.sqlite", "SQLite format 3\0garbage");
    write("report.nsys-rep", "\u{1}\u{2}");
    fs::create_dir(folder.join("theirs")).unwrap();
    write("theirs/cost_model.json", &model);
    let stage = r#"{"forward_ns":10,"backward_input_ns":10,"backward_weight_ns":5}"#;
    write("three.json", &format!("[{stage},{stage},{stage}]"));
    let list = |of: &[(u32, &str, u32)]| {
        let entry = |(stage, kind, micro_batch): &(u32, &str, u32)| {
            format!(r#"{{"stage":{stage},"kind":"{kind}","micro_batch":{micro_batch}}}"#)
        };
        format!("[{}]", of.iter().map(entry).collect::<Vec<_>>().join(","))
    };
    let order = list(&ORDER);
    write("order.json", &order);
    write("order-short.json", &list(&ORDER[1..]));
    write("order-twice.json", &list(&[&ORDER[..], &ORDER[..1]].concat()));
    write("order-stage.json", &order.replace("\"stage\":1", "\"stage\":2"));
    write("order-kind.json", &order.replacen("\"F\"", "\"f\"", 1));
    write("order-field.json", &order.replacen("micro_batch", "microbatch", 1));
    write("order-weight.json", &list(&[&ORDER[..], &[(0, "W", 0)]].concat()));
    write(
        "order-back.json",
        &order.replacen("\"F\"", "\"W\"", 1).replacen("\"B\"", "\"F\"", 1).replacen("\"W\"", "\"B\"", 1),
    );
    let circle =
        [(0, "F", 0), (0, "B", 0), (0, "F", 1), (0, "B", 1), (1, "F", 0), (1, "F", 1), (1, "B", 0), (1, "B", 1)];
    write("order-circle.json", &list(&circle));
    write("order-says.json", &format!(r#"{{"schedule":"dualpipe","operations":{order}}}"#));
    write("order-paired.json", &order.replacen("\"micro_batch\":0", "\"micro_batch\":0,\"paired\":true", 1));
    write("order-nul.json", "\0\0\0\0");
    write("log.txt", "# nccl-tests version 2.17.6\nnothing measured\n");
    write("bench.json", "{\"devices\":");
    write("good.log", GOOD_LOG);
    let columns = "hidden,heads,sequence,micro_batch,dtype,causal,forward_ms,backward_ms";
    write("layers.csv", &format!("{columns}\n768,12,128,1,f32,false,0.87,0.98\n768,12,128,2,f32,false,0.00084,0.9\n"));
    write("operations.csv", "kind,operation,dtype,time_us,bytes\nstreaming,residul,bf16,100,1048576\n");
    for (name, lines) in [("torn", r#"{"schema":"bubblebench.mea"#), ("damaged", "{\"schema\":\n{}\n"), ("none", "")] {
        fs::create_dir(folder.join(name)).unwrap();
        write(&format!("{name}/measurements.jsonl"), lines);
    }
    let job = fs::read_to_string(Path::new(ROOT).join("examples/gpt-rtx3090-4.toml")).unwrap();
    write("nomodel.toml", &job.replace("cost_model =", "# cost_model ="));
    write("job.toml", &job.replace("../results/published/rtx3090/cost_model.json", "model.json"));
    let bubbles = run(folder, &["bubbles", "right.json", "--json"]);
    fs::write(folder.join("bubbles.json"), bubbles.stdout).unwrap();
}

/// A command a line, its words divided by blanks.
const WRONG: &str = "
measure nonsense
measure all no-such-case --device host --results x
measure --preset hasty --results x
measure --device tpu --results x
measure --device hots --results x
measure all no-such-case --device host --list
measure --device host --machine My-Machine/1 --results x
measure gpt-layer --device host --results file/x
measure gpt-layer --device host --format nccl-tests --results x
measure --device host --case-limit soon --results x
fit --results nowhere
fit --results file
fit --results none
fit --results torn
fit --results damaged
fit --colour
schema of-nothing
schema cost-model
schema
completions tcsh
man plam
man predict lauer
man plan job
export --to csv --results none
export --to nccl-test --results none
export --to nccl-tests --results nowhere
import --from iperf log.txt --results x
import --from nvbnech log.txt --results x
import --from nccl-tests nowhere.log --results x
import --from nccl-tests log.txt --results x
import --from nvbench bench.json --results x
import --from nvbench model.json --results x
import --from layers layers.csv --results x
import --from layers layers.csv --gpu v100 --results x
import --from layers log.txt --gpu v100 --results x
import --from operations operations.csv --gpu v100 --results x
import --from nccl-tests log.txt --gpu v100 --results x
import --from nccl-tests good.log --results theirs
predict --cost-model nowhere.json layer
predict --cost-model later.json layer
predict --cost-model other.json layer
predict --cost-model foreign.json layer
predict --cost-model cut.json layer
predict --cost-model extra.json layer
predict --cost-model model.json layer
predict --cost-model model.json layer --hidden 640 --heads 7 --sequence 256 --micro-batch 2
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 0 --micro-batch 2
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --tensor 3
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --dtype f8
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --dtype f23
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --dtype bf16
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --recompute some
predict --cost-model model.json layer --hidden wide
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --kv-heads 4
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --ffn-hidden 0
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --norm rms
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --positions rotory
predict --cost-model model.json layer --hidden 640 --heads 10 --sequence 256 --micro-batch 2 --attention flsah
predict --cost-model model.json collective --ranks 2 --bytes 1MiB
predict --cost-model model.json collective --operation all_reduce --ranks 2 --bytes 1MB
predict --cost-model model.json collective --operation all_reduced --ranks 2 --bytes 1MiB
predict --cost-model model.json collective --operation everything --ranks 2 --bytes 1MiB
predict --cost-model model.json collective --operation all_reduce --ranks 1 --bytes 1MiB
predict --cost-model model.json corun --main gpt-h512-a8-s128-b1-t1-f32-forward --side mlp-b32
predict --cost-model model.json corun --main gpt-9 --side mlp-b32 --sharing free
predict --cost-model model.json corun --main gpt-h512-a8-s128-b1-t1-f32-forward --side mlp-b33 --sharing free
predict --cost-model model.json corun --main gpt-h512-a8-s128-b1-t1-f32-forward --side mlp-b32 --sharing polite
plan
plan nowhere.toml
plan nomodel.toml
plan model.json
plan job.toml --cost-model nowhere.json
plan job.toml --bubbles nowhere.json
plan job.toml --bubbles foreign.json
plan job.toml --bubbles bubbles.json
plan job.toml --iteration 1
plan job.toml --bubbles bubbles.json --iteration last
plan job.toml --sweep --html plan.html
plan job.toml --schedule 1f1c
plan job.toml --schedule dualpipe --sweep --operations --json
plan job.toml --schedule nowhere.json
plan job.toml --schedule order.json
plan job.toml --schedule order.json --sweep
plan job.toml --schedule order-circle.json
plan job.toml --operations
plan job.toml --operations --json --bubbles bubbles.json
plan job.toml --html nowhere/plan.html
bubbles
bubbles nowhere.sqlite
bubbles .
bubbles empty.json
bubbles nogpu.json
bubbles half.json
bubbles short.sqlite
bubbles report.nsys-rep
bubbles file
bubbles right.json half.json
bubbles right.json --iteration 1
bubbles right.json --iteration -1
bubbles right.json --min-gap 12
bubbles right.json --compute-streams x
bubbles right.json --compute-streams 9
simulate --schedule 1f1b
simulate --schedule 1f1b --stages 4 --micro-batches 8 --operations
simulate --schedule 1f1b --stages 4 --micro-batches 8
simulate --schedule zb-h1 --stages 4 --micro-batches 8 --per-stage three.json
simulate --schedule zb-h1 --stages 4 --micro-batches 8 --per-stage foreign.json
simulate --schedule zb-h1 --stages 4 --micro-batches 8 --per-stage three.json --forward 1ms
simulate --schedule 1f1b --stages 4 --micro-batches 8 --forward -1ms --backward-input 1ms --backward-weight 1ms
simulate --schedule 1f1b --stages 4 --micro-batches 8 --forward 12 --backward-input 1ms --backward-weight 1ms
simulate --schedule 1f1b --stages 4 --micro-batches 8 --forward 1ms --backward-input 1min --backward-weight 1parsec
";

/// Numbers that a schedule does not exist for; the times are right.
const MISFITS: &str = "
1f1c --stages 4 --micro-batches 8
1f1b --stages 0 --micro-batches 8
1f1b --stages 4 --micro-batches 0
1f1b --stages 4 --micro-batches 8 --chunks 2
interleaved --stages 4 --micro-batches 7 --chunks 2
interleaved --stages 4 --micro-batches 8 --chunks 0
zb-v --stages 4 --micro-batches 8 --chunks 3
dualpipe --stages 3 --micro-batches 8
dualpipe --stages 4 --micro-batches 6
dualpipev --stages 4 --micro-batches 7
chimera --stages 4 --micro-batches 6
chimera --stages 3 --micro-batches 6
1f1b --stages 4 --micro-batches 8 --overlapped 2ms
dualpipe --stages 4 --micro-batches 8 --overlapped 1ms
1f1b --stages 4 --micro-batches 8 --memory-limit 3
zb-1p --stages 4 --micro-batches 8 --memory-limit 0.5
zb-v --stages 4 --micro-batches 8 --memory-limit -3
zb-h1 --stages 4 --micro-batches 8 --weight-share 2
gpipe --stages 1000000 --micro-batches 1000000
1f1b --micro-batches 8
1f1b --stages 4
nowhere.json
./theirs
empty.json
foreign.json
half.json
model.json
order.json --stages 3
order.json --micro-batches 3
order.json --chunks 2
order.json --overlapped 2ms
order.json --memory-limit 1
order-short.json
order-twice.json
order-stage.json
order-kind.json
order-field.json
order-weight.json
order-back.json
order-circle.json
order-says.json
order-paired.json
order-nul.json
";

fn commands() -> String {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path());
    let refused = |words: &[&str]| refused(folder.path(), words);
    let split = |text: &'static str| text.trim().lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let times = ["--forward", "1ms", "--backward-input", "1ms", "--backward-weight", "1ms"];
    let mut text: String = split(WRONG).map(|words| refused(&words)).collect();
    for misfit in split(MISFITS) {
        text += &refused(&[&["simulate", "--schedule"], &misfit[..], &times].concat());
    }
    assert!(!folder.path().join("x").exists(), "a refused run leaves no folder");
    text.replace(folder.path().to_str().unwrap(), "FOLDER")
}
