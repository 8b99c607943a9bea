//! `predict --batch`: a line for a line, the answers of `predict --json`, whatever the lines are.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bubblebench"));
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published/amd-epyc-2c/cost_model.json");
    command.args(["predict", "--cost-model", model]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program with these bytes on stdin; they are written beside its answering, as more than a pipe holds must be.
fn batch(input: Vec<u8>) -> Output {
    let mut child = program(&["--batch"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn answers(input: impl Into<Vec<u8>>) -> Vec<Value> {
    let output = batch(input.into());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of one question by options.
fn alone(args: &[&str]) -> Value {
    let output = program(&[args, &["--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_option_means_in_a_line_what_it_means_on_the_command_line() {
    let layer = "layer --hidden 512 --heads 8 --sequence 200 --micro-batch 2 --tensor 2 --dtype f32 --recompute selective \
                 --kv-heads 4 --ffn-hidden 1376 --gated --norm rmsnorm --positions rotary --no-bias --non-causal \
                 --attention materialised --sequence-parallel";
    let collective = "collective --operation all_reduce --ranks 3 --nodes 1 --bytes 48KiB --isolated --dtype f32";
    let corun = "corun --main gpt-h512-a8-s256-b1-t1-f32-forward --side mlp-b32 --sharing free";
    let questions = [
        json!({ "kind": "layer", "hidden": 512, "heads": 8, "sequence": 200, "micro_batch": 2, "tensor": 2, "dtype": "f32",
            "recompute": "selective", "kv_heads": 4, "ffn_hidden": 1376, "gated": true, "norm": "rmsnorm",
            "positions": "rotary", "no_bias": true, "non_causal": true, "attention": "materialised",
            "sequence_parallel": true }),
        json!({ "kind": "layer", "hidden": 512, "heads": 8, "sequence": 200, "micro_batch": 2 }),
        json!({ "kind": "collective", "operation": "all_reduce", "ranks": 3, "nodes": 1, "bytes": 49152, "isolated": true,
            "dtype": "f32" }),
        json!({ "kind": "collective", "operation": "all_reduce", "ranks": 2, "bytes": "16MiB" }),
        json!({ "kind": "corun", "main": "gpt-h512-a8-s256-b1-t1-f32-forward", "side": "mlp-b32", "sharing": "free" }),
    ];
    let options = [
        layer,
        "layer --hidden 512 --heads 8 --sequence 200 --micro-batch 2",
        collective,
        "collective --operation all_reduce --ranks 2 --bytes 16777216",
        corun,
    ];
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let expected = options.map(|line| alone(&line.split_whitespace().collect::<Vec<_>>()));
    assert_eq!(answers(lines), expected);
}

/// What is wrong is said in its line, and the lines around it are answered.
#[test]
fn a_bad_line_is_answered_in_its_place() {
    let good = r#"{"kind":"collective","operation":"all_reduce","ranks":2,"bytes":65536}"#;
    let bad: [(&[u8], &str); 18] = [
        (b"", "the line is empty; write one question a line, e.g. {"),
        (b" \r", "the line is empty"),
        (b"layer", "the line is not JSON"),
        (b"[1]", "no object"),
        (b"{\"kind\":\"layer\xff\"}", "no UTF-8 from its byte 15 on"),
        (b"{}", "no \"kind\"; give one of layer, collective, corun"),
        (br#"{"kind":3}"#, "kind is no text"),
        (br#"{"kind":"layers"}"#, "kind layers is unknown; did you mean `layer`?"),
        (br#"{"kind":"layer","hiden":512}"#, "key hiden is unknown; did you mean `hidden`?"),
        (br#"{"kind":"layer","bytes":512}"#, "key bytes is unknown; known are hidden, heads"),
        (br#"{"kind":"layer","hidden":"512"}"#, "hidden cannot be read"),
        (br#"{"kind":"layer","hidden":-512}"#, "hidden cannot be read"),
        (br#"{"kind":"layer","heads":8}"#, "hidden is missing; give it, e.g. \"hidden\": 1024"),
        (br#"{"kind":"layer","hidden":512,"hidden":512}"#, "duplicate field"),
        (br#"{"kind":"collective","operation":"all_reduce","ranks":2,"bytes":"12XB"}"#, "`12XB` is not a size"),
        (
            br#"{"kind":"collective","operation":"all_reduce","ranks":2,"bytes":1.5}"#,
            "bytes cannot be read: expected a number",
        ),
        (br#"{"kind":"corun","main":"a","side":"b"}"#, "sharing is missing; give it, e.g. \"sharing\": \"free\""),
        (
            br#"{"kind":"layer","hidden":512,"heads":8,"sequence":9,"micro_batch":1,"norm":"rmsnrom"}"#,
            "norm rmsnrom is unknown; did you mean `rmsnorm`?",
        ),
    ];
    let mut input = Vec::new();
    for (line, _) in bad {
        input.extend([line, b"\n", good.as_bytes(), b"\n"].concat());
    }
    let found = answers(input);
    assert_eq!(found.len(), 2 * bad.len());
    for (pair, (line, said)) in found.chunks(2).zip(bad) {
        let error = pair[0]["error"].as_str().unwrap_or_default();
        assert!(error.contains(said), "{}: {error}", String::from_utf8_lossy(line));
        assert_eq!(pair[0].as_object().unwrap().len(), 1);
        assert_eq!(pair[1], found[1]);
    }
    assert!(found[1]["median_ns"].as_f64().unwrap() > 0.0);
}

#[test]
fn many_lines_are_answered_in_order_and_the_last_needs_no_end() {
    let line = |i: usize| match i % 7 {
        3 => format!("{{\"kind\":\"layer\",\"hidden\":512,\"heads\":{},\"sequence\":64,\"micro_batch\":1}}", i + 513),
        _ => format!("{{\"kind\":\"collective\",\"operation\":\"all_reduce\",\"ranks\":2,\"bytes\":{}}}", 1024 + i),
    };
    let input = (0..5000).map(line).collect::<Vec<_>>().join("\n");
    let found = answers(input);
    assert_eq!(found.len(), 5000);
    for (i, answer) in found.iter().enumerate() {
        match i % 7 {
            3 => assert!(answer["error"].as_str().unwrap().contains(&format!("{}", i + 513)), "{answer}"),
            _ => assert!(answer["median_ns"].is_f64(), "{answer}"),
        }
    }
}

#[test]
fn a_line_of_many_megabytes_is_refused_and_the_next_answered() {
    let mut input = vec![b'x'; 20 << 20];
    input.extend(b"\n{\"kind\":\"collective\",\"operation\":\"all_reduce\",\"ranks\":2,\"bytes\":65536}\n");
    let found = answers(input);
    assert_eq!(found.len(), 2);
    assert!(found[0]["error"].as_str().unwrap().contains("longer than 4 MiB"), "{}", found[0]);
    assert!(found[1]["median_ns"].is_f64(), "{}", found[1]);
}

/// Ends a child that a failing test leaves waiting.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that writes a line and waits for its answer before it writes the next.
#[test]
fn each_line_is_answered_before_the_next_is_waited_for() {
    let mut child = Ended(program(&["--batch"]).spawn().unwrap());
    let mut questions = child.0.stdin.take().unwrap();
    let mut answers = BufReader::new(child.0.stdout.take().unwrap()).lines();
    for half in ["{\"kind\":\"collective\",\"operation\":\"all_reduce\",", "nonsense"] {
        // The first line arrives in two pieces.
        questions.write_all(half.as_bytes()).unwrap();
        questions.flush().unwrap();
        questions.write_all(b"\"ranks\":2,\"bytes\":65536}\n").unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer.get("error").is_some(), half == "nonsense", "{answer}");
    }
    drop(questions);
    assert!(answers.next().is_none());
    assert!(child.0.wait().unwrap().success());
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let mut child = Ended(program(&["--batch"]).spawn().unwrap());
    let mut questions = child.0.stdin.take().unwrap();
    drop(child.0.stdout.take());
    let line = "{\"kind\":\"collective\",\"operation\":\"all_reduce\",\"ranks\":2,\"bytes\":65536}\n";
    // Until the pipe is full or gone.
    while questions.write_all(line.repeat(1000).as_bytes()).is_ok() {}
    drop(questions);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(child.0.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn questions_come_from_one_place() {
    let corun = ["corun", "--main", "a", "--side", "b", "--sharing", "free"];
    for args in [[&["--batch"][..], &corun].concat(), vec![]] {
        let output = program(&args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("--batch"), "{args:?}");
    }
}
