//! The file that `-J` writes (nccl-tests 2.16 and later; its versions 1 to 3 differ in fields that are not read here).
//!
//! It holds the whole environment of the process: of that, only `NCCL_*` and `CUDA_*` leave this file. One device is
//! listed for each process, so the ranks are processes × threads × GPUs a thread.

use super::{Figures, ListedDevice, ProgramRun, Row, text, version};
use crate::{Error, Result, import};
use serde_json::Value;

pub(super) fn sections(text: &str, place: &str) -> Result<Vec<ProgramRun>> {
    let value = import::json(text, place, "nccl-tests")?;
    if value.get("benchmarks").is_some() {
        return Err(Error::input(format!("{place} is nvbench's output"), "give --from nvbench"));
    }
    let (Some(config), Some(results)) = (value.get("config"), value.get("results").and_then(Value::as_array)) else {
        return Err(Error::input(
            format!("{place} has no config and results, so it is not what `-J` of nccl-tests wrote"),
            "give the file that nccl-tests wrote with -J, or its text output",
        ));
    };
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    let flag =
        |name: &str| matches!(config.get(name), Some(Value::Bool(true))) || text_of(config, name) == Some("true");
    let arguments = value.get("args").and_then(Value::as_array).into_iter().flatten();
    let environment = value.get("env").and_then(Value::as_array).into_iter().flatten();
    let mut section = ProgramRun {
        program: arguments.filter_map(Value::as_str).find_map(text::program_in),
        threads: number("nthreads").unwrap_or(1),
        gpus_per_thread: number("ngpus").unwrap_or(1),
        iterations: number("iterations"),
        warmup_iterations: number("warmup_iters"),
        aggregated_iterations: number("aggregated_iterations"),
        validated: number("validation").map(|n| n > 0),
        graph: number("graph").is_some_and(|n| n > 0),
        blocking: flag("blocking_collectives"),
        nccl: value.get("nccl_version").and_then(Value::as_u64).map(version),
        environment: environment.filter_map(Value::as_str).map(str::to_string).collect(),
        out_of_bounds: value.get("out_of_bounds").and_then(|o| o.get("count")).and_then(Value::as_u64),
        // The first version spells the bandwidth after it in another way.
        closed: value.get("out_of_bounds").is_some(),
        place: place.to_string(),
        ..ProgramRun::default()
    };
    let listed: Vec<ListedDevice> =
        config.get("devices").and_then(Value::as_array).into_iter().flatten().filter_map(device).collect();
    section.devices = every_rank(&listed, section.threads * section.gpus_per_thread);
    for (index, result) in results.iter().enumerate() {
        let row = row(result, format!("{place}: result {}", index + 1))?;
        section.cpu_time |= ["out_of_place", "in_place"].iter().any(|half| result[half].get("cpu_time").is_some());
        section.rows.push(row);
    }
    Ok(vec![section])
}

fn text_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str).map(str::trim)
}

fn device(value: &Value) -> Option<ListedDevice> {
    Some(ListedDevice {
        rank: value.get("rank")?.as_u64()?,
        group: value.get("group").and_then(Value::as_u64).unwrap_or(0),
        host: text_of(value, "hostname")?.to_string(),
        device: value.get("device")?.as_u64()?,
        name: text_of(value, "device_info")?.to_string(),
    })
}

/// Each process lists its first rank only; the others are on the devices that follow.
fn every_rank(listed: &[ListedDevice], of_a_process: u64) -> Vec<ListedDevice> {
    // More ranks than any machine has: a damaged file must not fill the memory.
    let ranks = of_a_process.clamp(1, 1 << 12);
    let follow = |first: &ListedDevice| {
        let first = first.clone();
        (0..ranks).map(move |i| ListedDevice {
            rank: first.rank.saturating_add(i),
            device: first.device.saturating_add(i),
            ..first.clone()
        })
    };
    listed.iter().flat_map(follow).collect()
}

fn row(result: &Value, place: String) -> Result<Row> {
    let missing =
        |what: &str| Error::input(format!("{place} has no {what}"), "give the file as nccl-tests wrote it with -J");
    let bytes = result.get("size").and_then(Value::as_u64).ok_or_else(|| missing("size"))?;
    let half = |name: &str| -> Result<Option<Figures>> {
        let Some(half) = result.get(name).filter(|v| !v.is_null()) else { return Ok(None) };
        let number = |field: &str| half.get(field).and_then(Value::as_f64);
        let us = number("time").or(number("cpu_time")).ok_or_else(|| missing(&format!("time {name}")))?;
        let fastest = result.get(format!("{name}_per_iter")).and_then(|p| p.get("min_us")).and_then(Value::as_f64);
        Ok(Some(Figures {
            us,
            algbw: number("alg_bw").unwrap_or(0.0),
            busbw: number("bus_bw").unwrap_or(0.0),
            wrong: number("nwrong").map(|n| n.max(0.0) as u64),
            max_error: None,
            min_us: fastest,
        }))
    };
    Ok(Row {
        bytes,
        dtype: text_of(result, "type").map(str::to_string),
        redop: text_of(result, "redop").map(str::to_string),
        root: text_of(result, "root").and_then(|r| r.parse().ok()),
        out_of_place: half("out_of_place")?,
        in_place: half("in_place")?,
        place,
    })
}
