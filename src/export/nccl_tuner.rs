//! The table of measurements that NCCL's example tuner turns into its plugin's configuration (`ext-tuner/example`,
//! `scripts/optimize_config.py`): a line for each collective, size, algorithm and protocol, with its bandwidth and latency.
//!
//! The plugin gives one channel where a line says -1 or none matches, so channels must be known and sizes must reach
//! 4294967295. A word that it does not know it takes for all-reduce, ring or simple, so other words never leave here.

use super::{Content, Exported};
use crate::records::Measurement;
use crate::records::measurement::{Backend, Kind};
use crate::units::counted;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const HEADER: &str = "collective,size_bytes,algorithm,protocol,channels,nodes,ranks,pipeOps,regBuff,cost_metric,bandwidth_gbps,latency_us";
/// The largest size that a line can name.
const MOST_BYTES: u64 = u32::MAX as u64;

/// Our names of the collectives that a tuner is asked for, and NCCL's.
const COLLECTIVES: [(&str, &str); 5] = [
    ("all_reduce", "allreduce"),
    ("all_gather", "allgather"),
    ("reduce_scatter", "reducescatter"),
    ("broadcast", "broadcast"),
    ("reduce", "reduce"),
];
/// NCCL's algorithms as its log writes them, in small letters and without `_`, and the plugin's words.
const ALGORITHMS: [(&str, &str); 7] = [
    ("ring", "ring"),
    ("tree", "tree"),
    ("collnetdirect", "collnet_direct"),
    ("collnetchain", "collnet_chain"),
    ("nvls", "nvls"),
    ("nvlstree", "nvls_tree"),
    ("pat", "pat"),
];
const PROTOCOLS: [(&str, &str); 3] = [("ll", "ll"), ("ll128", "ll128"), ("simple", "simple")];

/// What a line is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    collective: &'static str,
    nodes: u64,
    ranks: u64,
    bytes: u64,
    algorithm: &'static str,
    protocol: &'static str,
    channels: u64,
    registered: bool,
}

/// The table of the records, of several runs together where NCCL_ALGO and NCCL_PROTO forced one choice each. Fails where no
/// record says which algorithm, protocol and channels ran.
pub fn file(records: &[Measurement]) -> Result<Exported> {
    let timed: Vec<&Measurement> =
        records.iter().filter(|r| r.kind == Kind::Collective && r.median_ns.is_some()).collect();
    if !timed.is_empty() && timed.iter().all(|r| r.backend == Backend::Host) {
        return Err(Error::input(
            "the times are the host's: which algorithm and protocol NCCL runs is a question about GPUs",
            "measure with `bubblebench measure collectives --device cuda --nccl-choices`",
        ));
    }
    let mut rows: BTreeMap<Key, f64> = BTreeMap::new();
    for (key, ns) in timed.iter().filter_map(|r| Some((key(r)?, r.median_ns?))) {
        // Of types and places the fastest: a tuner is not told which.
        let found = rows.entry(key).or_insert(ns);
        *found = found.min(ns);
    }
    if rows.is_empty() {
        return Err(unknown());
    }
    let left_out = timed.len() - timed.iter().filter(|r| key(r).is_some()).count();
    let notes = notes(&rows, left_out);
    beyond(&mut rows);
    Ok(Exported { content: Content::File(text(&rows)), notes })
}

/// The refusal of a cost model, and of records made without `--nccl-choices`.
pub fn unknown() -> Error {
    Error::input(
        "which algorithm, protocol and channels NCCL ran is not known",
        "measure with `bubblebench measure collectives --device cuda --nccl-choices` once for each NCCL_ALGO and NCCL_PROTO, and \
         give the folders with --results",
    )
}

/// `None` where NCCL's tuner is not asked for the operation, or the record does not say what ran.
fn key(record: &Measurement) -> Option<Key> {
    let other = ["redop", "root"].iter().any(|name| record.params.contains_key(*name));
    if record.backend == Backend::Host || other {
        return None;
    }
    let word = |table: &[(&'static str, &'static str)], text: &str| {
        let plain = text.to_lowercase().replace('_', "");
        table.iter().find(|(ours, _)| ours.replace('_', "") == plain).map(|(_, theirs)| *theirs)
    };
    Some(Key {
        collective: word(&COLLECTIVES, record.param_str("operation")?)?,
        nodes: record.param_u64("nodes").unwrap_or(1).max(1),
        ranks: record.param_u64("ranks")?,
        bytes: record.param_u64("bytes").filter(|bytes| *bytes <= MOST_BYTES)?,
        algorithm: word(&ALGORITHMS, record.param_str("algorithm")?)?,
        protocol: word(&PROTOCOLS, record.param_str("protocol")?)?,
        channels: record.param_u64("channels").filter(|channels| *channels > 0)?,
        registered: record.params.get("registered").is_some_and(|value| value == true),
    })
}

fn notes(rows: &BTreeMap<Key, f64>, left_out: usize) -> Vec<String> {
    let size = |key: &Key| (key.collective, key.nodes, key.ranks, key.bytes);
    let choice = |key: &Key| (key.algorithm, key.protocol);
    let sizes: BTreeSet<_> = rows.keys().map(size).collect();
    let choices: BTreeSet<_> = rows.keys().map(|key| (size(key), choice(key))).collect();
    let mut notes = vec![
        "lost: element types, in-place and isolated times, intervals; sizes up to 4294967295 take the largest \
                          size's bandwidth"
            .to_string(),
    ];
    if choices.len() == sizes.len() {
        notes.push(
            "every size was measured with one algorithm only: nothing is left to choose; measure again with NCCL_ALGO and \
             NCCL_PROTO set"
                .into(),
        );
    }
    if left_out > 0 {
        notes.push(format!(
            "left out: {} that do not say what ran, or that no tuner is asked for",
            counted(left_out, "case")
        ));
    }
    notes
}

/// The largest size's lines once more for the largest size that can be named, at the same bandwidth.
fn beyond(rows: &mut BTreeMap<Key, f64>) {
    let mut largest: BTreeMap<(&str, u64, u64), u64> = BTreeMap::new();
    for key in rows.keys() {
        let most = largest.entry((key.collective, key.nodes, key.ranks)).or_default();
        *most = key.bytes.max(*most);
    }
    let last: Vec<(Key, f64)> = rows
        .iter()
        .filter(|(key, _)| largest[&(key.collective, key.nodes, key.ranks)] == key.bytes && key.bytes < MOST_BYTES)
        .map(|(key, ns)| (Key { bytes: MOST_BYTES, ..key.clone() }, ns * MOST_BYTES as f64 / key.bytes.max(1) as f64))
        .collect();
    rows.extend(last);
}

fn text(rows: &BTreeMap<Key, f64>) -> String {
    let registered = rows.keys().any(|key| key.registered);
    let mut out = format!("{HEADER}\n");
    for (key, ns) in rows {
        // -1 is for buffers of either kind.
        let buffers = if registered { i64::from(key.registered) } else { -1 };
        let (us, gb_per_s) = (ns / 1e3, key.bytes as f64 / ns);
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},-1,{buffers},{us:.4},{gb_per_s:.4},{us:.4}",
            key.collective, key.bytes, key.algorithm, key.protocol, key.channels, key.nodes, key.ranks
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(bytes: u64, algorithm: &str, protocol: &str, ns: f64) -> Measurement {
        let params = json!({
            "operation": "all_reduce", "ranks": 8, "nodes": 1, "dtype": "bf16", "bytes": bytes, "in_place": false,
            "algorithm": algorithm, "protocol": protocol, "channels": 16, "registered": false,
        });
        let mut record =
            Measurement::blank(format!("nccl/{bytes}/{algorithm}/{protocol}"), Kind::Collective, Backend::Cuda);
        record.params = params.as_object().unwrap().clone();
        record.median_ns = Some(ns);
        record
    }

    fn lines(records: &[Measurement]) -> (Vec<String>, Vec<String>) {
        let made = file(records).unwrap();
        let Content::File(text) = made.content else { panic!("a folder") };
        (text.lines().map(String::from).collect(), made.notes)
    }

    /// The columns of the example's own `sample_performance_data.csv`; µs and GB/s by hand, and the largest size repeated.
    #[test]
    fn lines_have_the_examples_columns_and_reach_the_largest_size() {
        let records = [record(1 << 20, "RING", "LL128", 20_000.0), record(1 << 20, "NVLS_TREE", "Simple", 10_000.0)];
        let (lines, notes) = lines(&records);
        assert_eq!(lines[0], HEADER);
        assert_eq!(lines[1], "allreduce,1048576,nvls_tree,simple,16,1,8,-1,-1,10.0000,104.8576,10.0000");
        assert_eq!(lines[2], "allreduce,1048576,ring,ll128,16,1,8,-1,-1,20.0000,52.4288,20.0000");
        assert!(
            lines[3].starts_with("allreduce,4294967295,nvls_tree,simple,16,1,8,-1,-1,")
                && lines[3].contains(",104.8576,")
        );
        assert_eq!(lines.len(), 5);
        assert!(!notes.iter().any(|n| n.contains("one algorithm only")), "{notes:?}");
    }

    #[test]
    fn registered_buffers_have_a_line_of_their_own() {
        let mut registered = record(8, "RING", "LL", 5_000.0);
        registered.params.insert("registered".into(), true.into());
        let (lines, notes) = lines(&[record(8, "RING", "LL", 6_000.0), registered]);
        assert!(lines[1].contains(",-1,0,6.0000") && lines[2].contains(",-1,1,5.0000"), "{lines:?}");
        assert!(notes.iter().any(|n| n.contains("one algorithm only")), "{notes:?}");
    }

    #[test]
    fn what_does_not_say_what_ran_is_refused_and_other_operations_left_out() {
        let mut silent = record(8, "RING", "LL", 1.0);
        silent.params.insert("algorithm".into(), serde_json::Value::Null);
        let error = file(&[silent.clone()]).unwrap_err().to_string();
        assert!(error.contains("which algorithm") && error.contains("--nccl-choices"), "{error}");
        let mut unknown_word = record(8, "SOMETHING", "LL", 1.0);
        assert!(file(&[unknown_word.clone()]).is_err());
        unknown_word.params.insert("operation".into(), "all_to_all".into());
        let (lines, notes) = lines(&[record(8, "TREE", "LL", 1.0), silent.clone(), unknown_word]);
        assert_eq!(lines.len(), 3);
        assert!(notes.iter().any(|n| n.contains("2 cases that do not say")), "{notes:?}");
        silent.backend = Backend::Host;
        assert!(file(&[silent]).unwrap_err().to_string().contains("the times are the host's"));
    }
}
