//! Lists of operations: written, read back, written by hand, and wrong in every way.

use crate::spec;
use bubblebench::pipeline::operations::{self, OperationRecord};
use bubblebench::pipeline::record::TimelineRecord;
use bubblebench::pipeline::{
    OrderName, Placement, Schedule, ScheduleName, StageTimes, Timeline, Times, given, simulate,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

fn timeline(name: ScheduleName, stages: usize, micro_batches: usize) -> Timeline {
    let stage = (0..stages as u64).map(|s| StageTimes::new(2000 + 7 * s, 1900 - 3 * s, 900 + s)).collect();
    let overlapped_ns = name.overlaps().then_some(4200);
    let times = Times { overlapped_ns, ..Times::new(stage, 50) };
    let chunks = (name == ScheduleName::Interleaved).then_some(2);
    simulate(Schedule::build(&spec(name, stages, micro_batches, chunks, &times)).unwrap(), times).unwrap()
}

fn read(json: &str) -> bubblebench::Result<Schedule> {
    given::parse(Path::new("order.json"), json.as_bytes())
}

fn records(timeline: &Timeline) -> Vec<OperationRecord> {
    operations::of_timeline(timeline)
}

/// What `simulate --json --operations` prints.
fn printed(timeline: &Timeline) -> String {
    let mut record = TimelineRecord::new(timeline, 0.43);
    record.operations = Some(records(timeline));
    serde_json::to_string(&record).unwrap()
}

#[test]
fn every_schedule_is_read_back_as_it_was_written() {
    for name in ScheduleName::ALL {
        for (stages, micro_batches) in [(4, 8), (2, 6)] {
            let written = timeline(name, stages, micro_batches);
            let schedule = read(&printed(&written)).unwrap();
            assert_eq!(schedule.operations(), written.schedule.operations(), "{}", name.text());
            assert_eq!(schedule.layout, written.schedule.layout, "{}", name.text());
            assert_eq!(schedule.name.text(), name.text());
            assert_eq!(schedule.name.fused_backward(), name.fused_backward(), "{}", name.text());
            assert_ne!(name, schedule.name, "a list is no known schedule, whatever it says");
            let again = simulate(schedule, written.times.clone()).unwrap();
            assert_eq!(again.start_ns, written.start_ns, "{}", name.text());
            assert_eq!(again.iteration_ns, written.iteration_ns, "{}", name.text());
            assert_eq!(again.bubble_ratio(), written.bubble_ratio(), "{}", name.text());
            assert_eq!(printed(&again), printed(&written), "{}", name.text());
        }
    }
}

/// Without a name the start times tell a V from a loop, and which micro-batches go which way tells two pipelines from one.
#[test]
fn placements_are_found_without_a_name() {
    for name in ScheduleName::ALL {
        let written = timeline(name, 4, 8);
        let mut list = records(&written);
        // The order is that of the start times, whatever the order of the list.
        if !name.overlaps() {
            list.reverse();
        }
        let schedule = read(&serde_json::to_string(&list).unwrap()).unwrap();
        assert_eq!(schedule.operations(), written.schedule.operations(), "{}", name.text());
        assert_eq!(schedule.layout.placement, name.placement(), "{}", name.text());
        assert_eq!(schedule.name.text(), "list");
        assert!(!schedule.name.windowed());
    }
}

fn operation(stage: u64, kind: &str, micro_batch: u64, chunk: u64) -> Value {
    json!({"stage": stage, "kind": kind, "micro_batch": micro_batch, "chunk": chunk})
}

/// `F0 B0 …` of each stage, or with chunks `F0.1`.
fn lists(stages: &[&str]) -> Vec<Value> {
    let of_stage = |(stage, list): (usize, &&str)| {
        let words: Vec<Value> = list
            .split_whitespace()
            .map(|word| {
                let (micro_batch, chunk) = word[1..].split_once('.').unwrap_or((&word[1..], "0"));
                operation(stage as u64, &word[..1], micro_batch.parse().unwrap(), chunk.parse().unwrap())
            })
            .collect();
        words
    };
    stages.iter().enumerate().flat_map(of_stage).collect()
}

fn of(list: &[Value]) -> String {
    serde_json::to_string(list).unwrap()
}

/// With no times and no name a loop is preferred, unless only a V can run.
#[test]
fn chunks_are_a_loop_unless_only_a_v_can_run() {
    let small = ["F0.0 F0.1 B0.1 B0.0", "F0.0 F0.1 B0.1 B0.0"];
    assert_eq!(read(&of(&lists(&small))).unwrap().layout.placement, Placement::Loop);
    // In a loop F0.1 of stage 1 would wait for that of stage 0, which stands behind F1.1, and that waits for stage 1.
    let vee = ["F0.0 F1.0 F1.1 F0.1 B0.1 B1.1 B0.0 B1.0", "F0.0 F0.1 F1.0 F1.1 B0.1 B0.0 B1.1 B1.0"];
    assert_eq!(read(&of(&lists(&vee))).unwrap().layout.placement, Placement::Vee);
    let neither = [vee[0], "F0.0 F0.1 B0.1 B0.0 F1.0 F1.1 B1.1 B1.0"];
    says(
        &refused(&of(&lists(&neither))),
        &["F of micro-batch 1 on stage 0, chunk 1 can never start", "say in `schedule` which one places its chunks"],
    );
}

/// Two pipelines need not share the micro-batches evenly, and the work of each stage is still counted right.
#[test]
fn directions_of_a_two_way_pipeline_may_differ_in_number() {
    let list = lists(&["F0.0 F1.0 F2.1 B0.0 B2.1 B1.0", "F2.1 F0.0 B0.0 F1.0 B1.0 B2.1"]);
    let schedule = read(&of(&list)).unwrap();
    assert_eq!((schedule.layout.placement, schedule.micro_batches), (Placement::Both, 3));
    let timeline = simulate(schedule, Times::even(2, StageTimes::new(10, 10, 10), 0)).unwrap();
    assert_eq!([timeline.busy_ns(0), timeline.busy_ns(1)], [90, 90]);
}

/// The right list that every wrong one is made of: 1F1B on two stages.
fn right() -> Vec<Value> {
    lists(&["F0 F1 B0 B1", "F0 B0 F1 B1"])
}

fn refused(json: &str) -> String {
    let error = read(json).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("order.json") && text.contains("; ") && !text.contains('\n'), "{text}");
    text
}

fn changed(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut list = right();
    change(&mut list);
    refused(&of(&list))
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "not `{word}`: {text}");
    }
}

#[test]
fn a_list_that_is_not_whole_is_answered_with_what_is_missing() {
    assert!(read(&of(&right())).is_ok());
    says(&changed(|l| drop(l.remove(0))), &["entry 2, B of micro-batch 0 on stage 0, has no F"]);
    says(&changed(|l| drop(l.remove(7))), &["entry 7, F of micro-batch 1 on stage 1, has no B"]);
    says(&changed(|l| l.retain(|o| o["micro_batch"] == 1)), &["no operation is of micro-batch 0"]);
    says(&changed(|l| l.push(l[2].clone())), &["entries 3 and 9 are both B of micro-batch 0 on stage 0", "keep one"]);
    says(&changed(|l| l.push(operation(3, "F", 0, 0))), &["no operation is of stage 2", "stage 3"]);
    says(&changed(|l| l.push(operation(0, "F", 2_000_000, 0))), &["no operation is of micro-batch 2,"]);
    says(&changed(|l| l.push(operation(0, "F", 0, 1))), &["entry 9, F of micro-batch 0 on stage 0, chunk 1, has no B"]);
    says(&changed(|l| l.push(operation(0, "W", 1, 0))), &["has no W", "entry 9", "or none at all"]);
    says(&changed(|l| l.push(operation(0, "F", 0, 5000))), &["entry 9: chunk is 5000", "at most 4095"]);
    says(&changed(|l| l.push(operation(1 << 40, "F", 0, 0))), &["entry 9: stage is"]);
    // A micro-batch that one stage never sees.
    let uneven = lists(&["F0 F1 B0 B1", "F0 B0"]);
    says(&refused(&of(&uneven)), &["no operation of micro-batch 1 on stage 1"]);
}

#[test]
fn an_order_that_cannot_run_is_answered_with_where_it_stops() {
    says(&changed(|l| l.swap(0, 2)), &["entry 1, B of micro-batch 0 on stage 0, comes before its F (entry 3)"]);
    let weights = lists(&["F0 W0 B0"]);
    says(&refused(&of(&weights)), &["entry 2, W of micro-batch 0 on stage 0, comes before its B (entry 3)"]);
    let circle = lists(&["F0 B0 F1 B1", "F0 F1 B0 B1"]);
    says(
        &refused(&of(&circle)),
        &["B of micro-batch 0 on stage 0 can never start", "B of micro-batch 0 on stage 1, which never", "in a circle"],
    );
    // By their start times the operations of stage 0 are the other way round.
    let timed = changed(|l| {
        for (at, o) in l.iter_mut().enumerate() {
            o["start_ns"] = (100 - at).into();
        }
    });
    says(&timed, &["comes before its F", "by its start_ns"]);
    // A start time that one operation lacks leaves the list's order.
    let mut list = right();
    for (at, o) in list.iter_mut().enumerate().skip(1) {
        o["start_ns"] = (100 - at).into();
    }
    assert!(read(&of(&list)).is_ok());
}

#[test]
fn pairs_are_an_f_and_the_b_behind_it() {
    let paired = |list: &mut Vec<Value>, entries: &[usize]| {
        for &entry in entries {
            list[entry]["paired"] = true.into();
        }
    };
    let list = || lists(&["F0 F1 B0 F2 B1 B2", "F0 B0 F1 B1 F2 B2"]);
    let mut right = list();
    paired(&mut right, &[3, 4]);
    let schedule = read(&of(&right)).unwrap();
    assert!(schedule.name.overlaps() && schedule.name.fused_backward());
    for wrong in [&[3][..], &[4], &[1, 2, 3], &[2, 3], &[0, 1], &[3, 5], &[6, 7]] {
        let mut list = list();
        paired(&mut list, wrong);
        says(&refused(&of(&list)), &["is `paired` with nothing", "a pair is an F and, directly behind it"]);
    }
    // A B that is half of a pair is the whole backward; others may have a W then.
    let mut split = lists(&["F0 F1 B0 F2 B1 B2 W2", "F0 B0 F1 B1 F2 B2"]);
    paired(&mut split, &[3, 4]);
    assert!(!read(&of(&split)).unwrap().name.fused_backward());
    let mut weighted = lists(&["F0 F1 B0 F2 B1 W1 B2", "F0 B0 F1 B1 F2 B2"]);
    paired(&mut weighted, &[3, 4]);
    says(&refused(&of(&weighted)), &["entry 4, F of micro-batch 2 on stage 0, is `paired`", "without a W of its own"]);
}

#[test]
fn json_that_is_no_list_is_answered_with_the_form_of_one() {
    for (json, words) in [
        ("", &["EOF"][..]),
        ("\0\0\0\0", &["expected value"]),
        ("[]", &["holds no operation"]),
        ("{}", &["holds no `operations`", "--operations"]),
        ("7", &["expected a list of operations"]),
        ("[7]", &["entry 1: ", "write [{"]),
        ("[{}", &["entry 1: missing field `stage`"]),
        (r#"{"operations":{}}"#, &["expected a list"]),
        (r#"{"operations":[],"operations":[]}"#, &["duplicate field `operations`"]),
        (r#"[{"stage":0,"kind":"F","micro_batch":0}] x"#, &["trailing characters"]),
        (r#"[{"stage":0,"kind":"F","micro_batch":0},"#, &["entry 2: EOF"]),
        (r#"[{"stage":0,"kind":"F","micro_batch":0,"chunks":0}]"#, &["entry 1: unknown field `chunks`", "`chunk`"]),
        (r#"[{"stage":0,"kind":"f","micro_batch":0}]"#, &["entry 1: `f` is not a kind", "did you mean `F`?"]),
        (r#"[{"stage":0,"kind":"forward","micro_batch":0}]"#, &["known are F, B, W"]),
        (r#"[{"stage":-1,"kind":"F","micro_batch":0}]"#, &["entry 1: ", "-1"]),
        (r#"[{"stage":0.5,"kind":"F","micro_batch":0}]"#, &["entry 1: ", "0.5"]),
        (r#"{"operation":[]}"#, &["`operation` is not a field", "did you mean `operations`?"]),
        (r#"{"schema":"bubblebench.sweep/1"}"#, &["bubblebench.sweep/1"]),
        (r#"{"schema":"bubblebench.plan/9"}"#, &["bubblebench.plan/9", "update bubblebench"]),
        (r#"{"schema":"bubblebench.plan/2","gpus":8}"#, &["holds no `operations`"]),
    ] {
        says(&refused(json), words);
    }
    let object = |more: &str| refused(&format!("{{{more},\"operations\":{}}}", of(&right())));
    says(&object(r#""schedule":"1f1c""#), &["did you mean `1f1b`", "or leave `schedule` out"]);
    says(&object(r#""schedule":"dualpipe""#), &["dualpipe, which has 2 chunks", "1 chunk"]);
    says(&object(r#""stages":3"#), &["it says 3 stages, its list has 2 stages"]);
    says(&object(r#""micro_batches":3"#), &["it says 3 micro-batches"]);
    let whole = lists(&["F0.0 F0.1 B0.1 B0.0"]);
    let chimera = format!(r#"{{"schedule":"chimera","operations":{}}}"#, of(&whole));
    says(&refused(&chimera), &["micro-batch 0 runs in both chunks (entries 1 and 2)", "chimera"]);
    let deep = "[".repeat(100_000);
    says(&refused(&deep), &["entry 1: "]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// A right list with a few entries changed, taken out or put elsewhere: a schedule that runs to its end, or a sentence.
    #[test]
    fn a_changed_list_runs_or_is_refused(
        name in proptest::sample::select(vec![
            ScheduleName::OneFOneB, ScheduleName::Interleaved, ScheduleName::ZbH2, ScheduleName::VHalf,
            ScheduleName::Dualpipe, ScheduleName::Dualpipev, ScheduleName::Chimera,
        ]),
        timed in any::<bool>(),
        named in any::<bool>(),
        changes in proptest::collection::vec((0usize..6, any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 0..4),
    ) {
        let written = timeline(name, 2, 4);
        let mut list: Vec<Value> = records(&written).iter().map(|o| serde_json::to_value(o).unwrap()).collect();
        for o in list.iter_mut().filter(|_| !timed) {
            o.as_object_mut().unwrap().remove("start_ns");
        }
        for (what, at, other) in &changes {
            let (at, other) = (at.index(list.len()), other.index(list.len()));
            match what {
                0 => drop(list.remove(at)),
                1 => list.swap(at, other),
                2 => { let twice = list[at].clone(); list.insert(other, twice); }
                3 => list[at]["kind"] = list[other]["kind"].clone(),
                4 => list[at]["micro_batch"] = (other % 6).into(),
                _ => list[at]["chunk"] = (other % 3).into(),
            }
        }
        let says = if named { json!({"schedule": name.text(), "operations": list}) } else { Value::from(list) };
        match read(&says.to_string()) {
            Ok(schedule) => {
                prop_assert!(matches!(schedule.name, OrderName::Given { .. }), "a list has no known name");
                let times = Times::even(schedule.stages, StageTimes::new(5, 4, 3), 1);
                let timeline = simulate(schedule, times).unwrap();
                for stage in 0..timeline.schedule.stages {
                    let busy: u64 = timeline.operations(stage).map(|(_, start, end)| end - start).sum();
                    prop_assert_eq!(busy, timeline.busy_ns(stage));
                }
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(!changes.is_empty(), "{}", text);
                prop_assert!(error.exit_code() == 2 && !text.contains('\n') && text.starts_with("order.json"), "{}", text);
            }
        }
    }
}
