//! What nccl-tests prints, in the forms its versions and launchers give it.

use super::read;
use crate::import::Imported;
use crate::records::Measurement;
use crate::records::measurement::{Backend, Launch};
use proptest::prelude::*;
use std::fmt::Write as _;

const HEADER: &str = "#                                                              out-of-place                       in-place          \n\
    #       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n\
    #        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       \n";
const FOOTER: &str = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 12.5 \n#\n";

fn devices(hosts: &[&str], each: u64, gpu: &str) -> String {
    let mut out = "# nThread 1 nGpus 1 minBytes 8 maxBytes 1024 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0\n#\n# Using devices\n".to_string();
    for (h, host) in hosts.iter().enumerate() {
        for i in 0..each {
            let rank = h as u64 * each + i;
            let _ =
                writeln!(out, "#  Rank {rank:>2} Group  0 Pid   4242 on {host:>10} device {i:>2} [0000:0{i}:00] {gpu}");
        }
    }
    out + "#\n"
}

fn row(bytes: u64, us: f64, wrong: &str) -> String {
    let algbw = bytes as f64 / us / 1e3;
    let busbw = 1.75 * algbw;
    format!(
        "{bytes:>12}  {:>12}     float     sum      -1  {us:>7.2}  {algbw:>6.2}  {busbw:>6.2}  {wrong:>5}  {:>7.2}  {algbw:>6.2}  {busbw:>6.2}    N/A\n",
        bytes / 4,
        us + 1.0
    )
}

fn whole(rows: &str) -> String {
    let start = "# nccl-tests version 2.17.6 nccl-headers=22707 nccl-library=22707\n# Collective test starting: all_reduce_perf\n";
    format!("{start}{}{HEADER}{rows}{FOOTER}", devices(&["node01"], 8, "NVIDIA H200"))
}

fn found(text: &str) -> Imported {
    read(text, "log", None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn refused(text: &str) -> String {
    read(text, "log", None).expect_err(text).to_string()
}

fn line<'a>(imported: &'a Imported, id: &str) -> &'a Measurement {
    let known: Vec<&str> = imported.records.iter().map(|r| r.id.as_str()).collect();
    imported.records.iter().find(|r| r.id == id).unwrap_or_else(|| panic!("{id} is not in {known:?}"))
}

#[test]
fn todays_text_is_read_whole() {
    let text = whole(&(row(32_768, 43.8, "0") + &row(8_388_608, 133.5, "0")));
    let imported = found(&text);
    assert_eq!(imported.records.len(), 4);
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    let record = line(&imported, "nccl/all_reduce/r8/f32/8MiB");
    assert_eq!((record.median_ns, record.bytes, record.backend), (Some(133_500.0), Some(8_388_608.0), Backend::Cuda));
    assert_eq!((record.iterations_per_sample, record.launch), (20, Some(Launch::Stream)));
    assert_eq!(record.flags, ["imported"]);
    assert_eq!(record.verified.as_ref().map(|v| v.wrong), Some(0));
    assert!((record.busbw_gb_per_s.unwrap() / 109.96 - 1.0).abs() < 1e-3);
    assert_eq!(record.param_u64("ranks"), Some(8));
    let in_place = line(&imported, "nccl/all_reduce/r8/f32/8MiB/in_place");
    assert_eq!((in_place.median_ns, &in_place.verified), (Some(134_500.0), &None));
    assert_eq!(imported.origin.gpus.len(), 8);
    assert_eq!(imported.origin.gpus[7].name, "NVIDIA H200");
    assert_eq!(imported.origin.versions["nccl"].as_deref(), Some("2.27.7"));
    assert_eq!(imported.origin.hostname.as_deref(), Some("node01"));
}

#[test]
fn several_nodes_are_counted_by_their_hosts() {
    let text = whole(&row(1024, 20.0, "0"))
        .replace(&devices(&["node01"], 8, "NVIDIA H200"), &devices(&["node01", "node02"], 8, "NVIDIA H200"));
    let imported = found(&text);
    let record = line(&imported, "nccl/all_reduce/r16/n2/f32/1KiB");
    assert_eq!((record.param_u64("ranks"), record.param_u64("nodes")), (Some(16), Some(2)));
    assert_eq!(imported.origin.gpus.len(), 8, "of one node");
}

/// 2.0 to 2.12: no program, no group, no root or redop where it has no meaning, an error instead of a count.
#[test]
fn old_columns_are_read_by_their_names() {
    let start = "$ ./build/all_gather_perf -b 8 -e 1K -g 2\n# nThread 1 nGpus 2 minBytes 8 maxBytes 1024 step: 2(factor) warmup iters: 5 iters: 20 validation: 1 \n#\n# Using devices\n\
        #   Rank  0 Pid  100 on  box device  0 [0x01] GeForce RTX 2080 Ti\n#   Rank  1 Pid  100 on  box device  1 [0x02] GeForce RTX 2080 Ti\n#\n\
        #                                             out-of-place                    in-place\n#       size         count    type     time   algbw   busbw  error     time   algbw   busbw  error\n#        (B)    (elements)            (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n";
    let rows = "        1024           128   float    13.39    1.22    1.22  0e+00    11.85    1.38    1.38  2e-07\n";
    let imported = found(&format!("{start}{rows}{FOOTER}"));
    let record = line(&imported, "nccl/all_gather/r2/f32/1KiB/in_place");
    assert_eq!(record.median_ns, Some(11_850.0));
    assert_eq!(record.verified.as_ref().map(|v| (v.max_error, v.wrong)), Some((2e-7, 0)));
    // Which rows were wrong, this version does not say.
    let bad = format!("{start}{rows}{}", FOOTER.replace("0 OK", "7 FAILED"));
    assert!(refused(&bad).contains("7 values out of bounds"), "{}", refused(&bad));
    // Without the command line only the user knows; an all-reduce shows itself by its bandwidths.
    let nameless = format!("{}{rows}{FOOTER}", start.split_once('\n').unwrap().1);
    assert!(refused(&nameless).contains("--operation"));
    let given = read(&nameless, "log", Some("all_gather")).unwrap();
    assert!(given.records[0].id.starts_with("nccl/all_gather/"));
    assert!(read(&nameless, "log", Some("all_to_none")).is_err());
    let unnamed = whole(&row(8_388_608, 133.5, "0")).replace("# Collective test starting: all_reduce_perf\n", "");
    line(&found(&unnamed), "nccl/all_reduce/r8/f32/8MiB");
}

#[test]
fn several_outputs_may_follow_each_other() {
    let second = whole(&row(2048, 30.0, "0")).replace("all_reduce_perf", "sendrecv_perf");
    let imported = found(&(whole(&row(1024, 20.0, "0")) + "# Collective test concluded: all_reduce_perf\n" + &second));
    line(&imported, "nccl/all_reduce/r8/f32/1KiB");
    let ring = line(&imported, "nccl/send_recv/ring/r8/f32/2KiB");
    assert_eq!((ring.param_str("operation"), ring.param_str("pattern")), (Some("send_recv"), Some("ring")));
    // The same rows again are samples of the same lines.
    let twice = found(&(whole(&row(1024, 20.0, "0")) + &whole(&row(1024, 24.0, "0"))));
    let record = line(&twice, "nccl/all_reduce/r8/f32/1KiB");
    assert_eq!((record.median_ns, record.samples_total), (Some(22_000.0), 2));
}

#[test]
fn labels_of_launchers_and_nccls_own_log_are_no_obstacle() {
    let text = whole(&(row(1024, 20.0, "0") + &row(2048, 30.0, "0")));
    let logged = text.replace(
        "#        (B)",
        "node01:17:99 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1]\n12 more processes have sent help\n#        (B)",
    );
    for label in ["0: ", " 0: ", "[1,0]<stdout>:", "2026-02-16T10:00:02.000000000Z "] {
        let labelled: String = logged.lines().map(|l| format!("{label}{l}\n")).collect();
        assert_eq!(found(&labelled).records, found(&text).records, "{label}");
    }
}

#[test]
fn timestamps_and_figures_of_each_iteration_are_understood() {
    let stamped = whole("")
        .replace("busbw #wrong\n", "busbw #wrong            timestamp\n")
        .replace(FOOTER, &(row(1024, 20.0, "0").replace("N/A\n", "N/A  2026-11-26 10:00:00\n") + FOOTER));
    line(&found(&stamped), "nccl/all_reduce/r8/f32/1KiB/in_place");
    let each = "time   algbw   busbw #wrong  i_min  i_max  i_p99  i_cv%";
    let header = HEADER.replace("time   algbw   busbw #wrong", each);
    let rows = "        1024           256     float     sum      -1    20.00    0.05    0.09      0    18.5    25.0    25.0   5.0    21.00    0.05    0.09      0    19.0    25.0    25.0   5.0\n";
    let imported = found(&whole(rows).replace(HEADER, &header));
    assert_eq!(line(&imported, "nccl/all_reduce/r8/f32/1KiB").min_ns, Some(18_500.0));
}

#[test]
fn a_wrong_result_has_no_time() {
    let imported = found(&whole(&(row(1024, 20.0, "3") + &row(2048, 30.0, "0"))));
    let record = line(&imported, "nccl/all_reduce/r8/f32/1KiB");
    assert_eq!((record.median_ns, record.busbw_gb_per_s, record.samples_ns.len()), (None, None, 0));
    assert_eq!(record.verified.as_ref().map(|v| v.wrong), Some(3));
    assert_eq!(record.flags, ["imported", "wrong"]);
    assert!(imported.notes.iter().any(|n| n.contains("1 result wrong")), "{:?}", imported.notes);
    let all = whole(&row(1024, 20.0, "3").replace("N/A", "  4"));
    assert!(refused(&all).contains("all were wrong"), "{}", refused(&all));
}

#[test]
fn a_cut_log_gives_what_is_whole() {
    let text = whole(&(row(1024, 20.0, "0") + &row(2048, 30.0, "0")));
    let end = text.find("        2048").unwrap();
    for cut in [end + 30, end + 60, end + row(2048, 30.0, "0").len() - 1] {
        let imported = found(&text[..cut]);
        assert_eq!(imported.records.len(), 2, "{cut}");
        let notes = imported.notes.join("\n");
        assert!(notes.contains("is cut off") && notes.contains("no closing lines"), "{notes}");
    }
    let mixed = text.replace("    30.00", "    30.00    1.00");
    assert!(refused(&mixed).starts_with("log:") && refused(&mixed).contains("has 14 columns where its header has 13"));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place_and_a_cure() {
    let good = whole(&row(1024, 20.0, "0"));
    let one = devices(&["node01"], 1, "NVIDIA H200");
    let eight = devices(&["node01"], 8, "NVIDIA H200");
    let text = "time,bytes\n1,2\n".to_string();
    for (bad, says) in [
        (String::new(), "holds no row"),
        (text, "holds no row"),
        (whole(""), "holds no row"),
        (whole(&row(0, 20.0, "0")), "no row with a time"),
        (good.replace(&eight, ""), "does not list its ranks"),
        (good.replace(&eight, &one), "no row with a time"),
        (good.replace(&eight, &(one.clone() + &one)), "rank 0 more than once"),
        (good.replace("   time", "cputime"), "-C 1"),
        (
            good.replace(
                "#\n# Using",
                "# Blocking Enabled: wait for completion and barrier after each collective \n#\n# Using",
            ),
            "-z",
        ),
        (good.clone() + &good.replace("NVIDIA H200", "NVIDIA A100-SXM4-80GB"), "different machines"),
        (good.replace("    20.00", "    2x.00"), "`2x.00` as its time"),
        ("{\"config\":{}, \"results\":[".into(), "is cut off"),
        ("{\"config\" 3}".into(), "is not JSON"),
        ("{\"schema\":\"bubblebench.plan/1\"}".into(), "bubblebench.plan/1"),
        ("{\"devices\":[],\"benchmarks\":[]}".into(), "--from nvbench"),
        ("{\"a\":1}".into(), "no config and results"),
    ] {
        let error = refused(&bad);
        assert!(error.contains("log") && error.contains(says), "{error} does not say {says}");
        assert_eq!(error.lines().count(), 1);
    }
}

/// NCCL_TESTS_SPLIT: two groups run the operation at the same time, each over four ranks.
#[test]
fn groups_count_their_own_ranks() {
    let text: String = whole(&row(1024, 20.0, "0"))
        .lines()
        .map(|l| {
            if l.contains("Rank  1") || l.contains("Rank  3") || l.contains("Rank  5") || l.contains("Rank  7") {
                l.replace("Group  0", "Group  1")
            } else {
                l.into()
            }
        })
        .map(|l| l + "\n")
        .collect();
    line(&found(&text), "nccl/all_reduce/r4/f32/1KiB");
}

fn json(change: impl Fn(&mut serde_json::Value)) -> String {
    let device = |rank: u64, host: &str| {
        serde_json::json!({"rank": rank, "group": 0, "pid": 7, "hostname": host, "device": 0,
            "device_hex": "0000:1b:00", "device_info": "NVIDIA H100 80GB HBM3"})
    };
    let half = |us: f64| serde_json::json!({"time": us, "alg_bw": 1.0, "bus_bw": 1.75, "nwrong": 0.0});
    let mut value = serde_json::json!({
        "version": 3, "start_time": "2026-11-26 10:00:00",
        "args": ["/opt/nccl-tests/build/reduce_scatter_perf_mpi", "-J", "out.json"],
        "env": ["AWS_SECRET_ACCESS_KEY=hunter2", "NCCL_IB_HCA=mlx5_0", "CUDA_VISIBLE_DEVICES=0,1,2,3", "PATH=/bin"],
        "nccl_version": 22809,
        "config": {"nthreads": 1, "ngpus": 4, "minimum_bytes": 1024, "maximum_bytes": 2048, "step_factor": 2,
            "warmup_iters": 5, "iterations": 20, "aggregated_iterations": 1, "validation": 1, "graph": 0,
            "blocking_collectives": "false", "parallel_init": "false", "devices": [device(0, "a"), device(4, "b")]},
        "results": [
            {"size": 1024, "count": 32, "type": "bfloat16", "redop": "sum", "root": "    -1",
             "out_of_place": half(41.25), "in_place": half(40.5), "actual_iterations": 20, "experiment_name": ""},
            {"size": 2048, "count": 64, "type": "bfloat16", "redop": "sum", "root": "    -1",
             "out_of_place": null, "in_place": {"time": 43.0, "alg_bw": 1.0, "bus_bw": 1.75, "nwrong": null}}],
        "out_of_bounds": {"count": 0, "okay": "true"}, "average_bus_bandwidth": {"bandwidth": 1.75, "okay": "unchecked"},
        "errors": [], "end_time": "2026-11-26 10:00:05"
    });
    change(&mut value);
    value.to_string()
}

#[test]
fn the_json_form_says_the_same_and_keeps_no_secret() {
    let imported = found(&json(|_| ()));
    let record = line(&imported, "nccl/reduce_scatter/r8/n2/bf16/1KiB");
    assert_eq!((record.median_ns, record.param_u64("ranks")), (Some(41_250.0), Some(8)));
    assert_eq!(imported.records.len(), 3, "no out-of-place half of the second row");
    assert_eq!(line(&imported, "nccl/reduce_scatter/r8/n2/bf16/2KiB/in_place").verified, None);
    assert_eq!(imported.origin.gpus.len(), 4);
    assert_eq!(imported.origin.versions["nccl"].as_deref(), Some("2.28.9"));
    let kept: Vec<&String> = imported.origin.environment.keys().collect();
    assert_eq!(kept, ["CUDA_VISIBLE_DEVICES", "NCCL_IB_HCA"]);
    let everything = format!("{imported:?}");
    assert!(!everything.contains("hunter2") && !everything.contains("/bin"), "{everything}");
    let blocking = json(|v| v["config"]["blocking_collectives"] = "true".into());
    assert!(refused(&blocking).contains("-z"));
    let no_size = json(|v| v["results"][0]["size"] = serde_json::Value::Null);
    assert!(refused(&no_size).contains("result 1 has no size"), "{}", refused(&no_size));
}

#[test]
fn graphs_and_our_own_variants_are_cases_of_their_own() {
    let graph = whole(&row(1024, 20.0, "0")).replace("graph: 0", "graph: 4");
    assert_eq!(line(&found(&graph), "nccl/all_reduce/r8/f32/1KiB/in_place/graph").launch, Some(Launch::Graph));
    let ours = "# bubblebench 0.1.0 backend cuda transport nccl variant registered,ctas4 in nccl-tests' columns\n";
    let imported =
        found(&whole(&row(1024, 20.0, "0")).replace("# nccl-tests version", &format!("{ours}# nccl-tests version")));
    let record = line(&imported, "nccl/all_reduce/r8/f32/1KiB/registered/ctas4");
    assert_eq!((record.params["registered"].as_bool(), record.param_u64("max_ctas")), (Some(true), Some(4)));
}

#[test]
fn versions_are_read_from_their_codes() {
    assert_eq!([2708, 20_901, 22_707].map(super::version), ["2.7.8", "2.9.1", "2.27.7"]);
}

proptest! {
    #[test]
    fn no_bytes_bring_the_reader_down(text in "\\PC{0,400}") {
        let _ = read(&text, "log", None);
    }

    /// A whole log with stretches replaced: read, or refused in one line; what is read has sound numbers.
    #[test]
    fn damaged_logs_are_read_or_refused(at in 0usize..2000, length in 0usize..120, with in "[ -~\\n]{0,40}", form in 0..2) {
        let text = if form == 0 { whole(&(row(1024, 20.0, "0") + &row(2048, 30.0, "1"))) } else { json(|_| ()) };
        let start = at.min(text.len());
        let end = (start + length).min(text.len());
        let damaged = format!("{}{with}{}", &text[..start], &text[end..]);
        match read(&damaged, "log", None) {
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
            Ok(imported) => for record in &imported.records {
                prop_assert!(record.median_ns.is_none_or(|ns| ns.is_finite() && ns > 0.0), "{:?}", record);
                prop_assert!(record.param_u64("ranks").is_some_and(|n| n >= 2));
            },
        }
    }
}
