//! A recorded run as the tests make it, written in either format.

use flate2::{Compression, write::GzEncoder};
use rusqlite::{Connection, params};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Kernel {
    pub start: u64,
    pub end: u64,
    pub device: u64,
    pub stream: u64,
    pub pid: u64,
    pub correlation: u64,
    pub name: String,
    /// When the host launched it, if that was recorded.
    pub launch: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct Recording {
    pub kernels: Vec<Kernel>,
    /// Start, end, device.
    pub copies: Vec<(u64, u64, u64)>,
    /// Start, end, device, graph.
    pub graphs: Vec<(u64, u64, u64, u64)>,
    /// Start, end, name, pid.
    pub ranges: Vec<(u64, u64, String, u64)>,
    pub epoch: Option<u64>,
    pub rank: Option<u64>,
}

pub const PID: u64 = 4000;
pub const RECEIVE: &str = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)";
pub const ALL_REDUCE: &str = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)";

impl Recording {
    /// Adds a kernel of device 0 and process [`PID`], launched 2 µs before it runs; returns its index.
    pub fn kernel(&mut self, start: u64, end: u64, stream: u64, name: &str) -> usize {
        let correlation = self.kernels.len() as u64 + 1;
        let launch = Some(start.saturating_sub(2_000));
        self.kernels.push(Kernel { start, end, device: 0, stream, pid: PID, correlation, name: name.into(), launch });
        self.kernels.len() - 1
    }

    pub fn range(&mut self, start: u64, end: u64, name: &str) {
        self.ranges.push((start, end, name.into(), PID));
    }

    pub fn nsys(&self, folder: &Path, name: &str) -> PathBuf {
        self.nsys_with(folder, name, |_| {})
    }

    /// As nsys exports it; `change` is made to it at the end.
    pub fn nsys_with(&self, folder: &Path, name: &str, change: impl Fn(&Connection)) -> PathBuf {
        let path = folder.join(name);
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN").unwrap();
        db.execute_batch(TABLES).unwrap();
        let mut strings: Vec<&str> = self.kernels.iter().map(|k| k.name.as_str()).collect();
        strings.push("cudaLaunchKernel_v7000");
        strings.sort_unstable();
        strings.dedup();
        let id = |text: &str| strings.binary_search(&text).unwrap() as i64 + 1;
        for text in &strings {
            db.execute("INSERT INTO StringIds VALUES (?1, ?2)", params![id(text), text]).unwrap();
        }
        if let Some(epoch) = self.epoch {
            let sql = "CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT)";
            db.execute_batch(sql).unwrap();
            db.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (?1, '', '')", [int(epoch)]).unwrap();
        }
        let mut kernel = db
            .prepare("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?1, ?2, ?3, 1, NULL, ?4, ?5, ?6, ?7, ?7, ?7, 256)")
            .unwrap();
        let mut call =
            db.prepare("INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?1, ?2, 0, ?3, ?4, ?5, 0, NULL)").unwrap();
        for k in &self.kernels {
            let global = k.pid << 24;
            kernel
                .execute(params![
                    int(k.start),
                    int(k.end),
                    int(k.device),
                    int(k.stream),
                    int(k.correlation),
                    int(global),
                    id(&k.name)
                ])
                .unwrap();
            if let Some(at) = k.launch {
                let launch = id("cudaLaunchKernel_v7000");
                call.execute(params![int(at), int(at + 4_000), int(global + k.pid), int(k.correlation), launch])
                    .unwrap();
            }
        }
        drop((kernel, call));
        self.small_tables(&db);
        change(&db);
        db.execute_batch("COMMIT").unwrap();
        path
    }

    fn small_tables(&self, db: &Connection) {
        let global = int(PID << 24);
        if !self.copies.is_empty() {
            let columns = "start INTEGER, end INTEGER, deviceId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER";
            db.execute_batch(&format!("CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY ({columns})")).unwrap();
            for (start, end, device) in &self.copies {
                let sql = "INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (?1, ?2, ?3, 7, 999999, ?4, 64, 1)";
                db.execute(sql, params![int(*start), int(*end), int(*device), global]).unwrap();
            }
        }
        if !self.graphs.is_empty() {
            let columns = "start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, graphId INTEGER, graphExecId INTEGER";
            db.execute_batch(&format!("CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE ({columns})")).unwrap();
            for (start, end, device, graph) in &self.graphs {
                let sql = "INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE VALUES (?1, ?2, ?3, 1, 7, 888888, ?4, ?5, 1)";
                db.execute(sql, params![int(*start), int(*end), int(*device), global, int(*graph)]).unwrap();
            }
        }
        for (start, end, name, pid) in &self.ranges {
            let sql = "INSERT INTO NVTX_EVENTS (start, end, eventType, text, globalTid) VALUES (?1, ?2, 59, ?3, ?4)";
            db.execute(sql, params![int(*start), int(*end), name, int((pid << 24) + pid)]).unwrap();
        }
    }

    /// As PyTorch's profiler writes it. Graphs are not in it: PyTorch records their kernels.
    pub fn json(&self) -> String {
        let mut events = Vec::new();
        for k in &self.kernels {
            let (ts, dur) = (micros(k.start), micros(k.end - k.start));
            events.push(format!(
                r#"{{"ph": "X", "cat": "kernel", "name": {}, "pid": {}, "tid": {}, "ts": {ts}, "dur": {dur}, "args": {{"External id": 7, "device": {1}, "context": 1, "stream": {2}, "correlation": {}, "grid": [108, 1, 1]}}}}"#,
                serde_json::to_string(&k.name).unwrap(), k.device, k.stream, k.correlation
            ));
            if let Some(at) = k.launch {
                events.push(format!(
                    r#"{{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": {}, "tid": 9, "ts": {}, "dur": 4.000, "args": {{"cbid": 211, "correlation": {}}}}}"#,
                    k.pid, micros(at), k.correlation
                ));
            }
            events.push(r#"{"ph": "X", "cat": "cpu_op", "name": "aten::mm {\"}", "pid": 1, "tid": 1, "ts": 0, "dur": -1, "args": {"Input Dims": [[4, 4], []]}}"#.into());
        }
        for (start, end, device) in &self.copies {
            events.push(format!(
                r#"{{"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD", "pid": {device}, "tid": 7, "ts": {}, "dur": {}, "args": {{"device": {device}, "stream": 7}}}}"#,
                micros(*start), micros(end - start)
            ));
        }
        for (start, end, name, pid) in &self.ranges {
            events.push(format!(
                r#"{{"ph": "X", "cat": "user_annotation", "name": "{name}", "pid": {pid}, "tid": {pid}, "ts": {}, "dur": {}}}"#,
                micros(*start), micros(end - start)
            ));
        }
        events.push(r#"{"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}}"#.into());
        let mut text =
            String::from("{\n\"schemaVersion\": 1,\n\"deviceProperties\": [{\"id\": 0, \"name\": \"A100\"}],\n");
        if let Some(rank) = self.rank {
            let _ =
                writeln!(text, "\"distributedInfo\": {{\"backend\": \"nccl\", \"rank\": {rank}, \"world_size\": 9}},");
        }
        if let Some(epoch) = self.epoch {
            let _ = writeln!(text, "\"baseTimeNanoseconds\": {epoch},");
        }
        let _ = write!(text, "\"traceEvents\": [\n{}\n],\n\"traceName\": \"t.json\"\n}}\n", events.join(",\n"));
        text
    }

    pub fn kineto(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        if name.ends_with(".gz") {
            let mut packed = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
            packed.write_all(self.json().as_bytes()).unwrap();
            packed.finish().unwrap();
        } else {
            std::fs::write(&path, self.json()).unwrap();
        }
        path
    }
}

/// SQLite's integers have a sign.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap()
}

fn micros(ns: u64) -> String {
    format!("{}.{:03}", ns / 1000, ns % 1000)
}

const TABLES: &str = "
CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE TARGET_INFO_GPU (id INTEGER, name TEXT, uuid TEXT, smCount INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
    greenContextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER,
    shortName INTEGER, mangledName INTEGER, registersPerThread INTEGER);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, eventClass INTEGER, globalTid INTEGER,
    correlationId INTEGER, nameId INTEGER, returnValue INTEGER, callchainId INTEGER);
CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, rangeId INTEGER, category INTEGER,
    text TEXT, globalTid INTEGER, textId INTEGER, domainId INTEGER);
";
