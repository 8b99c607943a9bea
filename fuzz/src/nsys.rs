//! nsys exports of random bytes: a right file with bytes of it changed, or right tables with any rows in them.

use bubblebench::trace::profile;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::OnceLock;

/// Takes numbers from the fuzzer's bytes; zeros once they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Mostly small numbers that grow and repeat, sometimes any, sometimes what is no number.
    fn value(&mut self, clock: &mut i64) -> Value {
        match self.next() {
            0..=9 => Value::Null,
            10..=19 => Value::Integer(0),
            20..=24 => Value::Integer(-1),
            25..=27 => Value::Text("7".into()),
            28..=29 => Value::Real(1.5),
            30..=31 => Value::Integer(i64::MAX),
            32..=99 => {
                *clock += i64::from(self.next()) * 100;
                Value::Integer(*clock)
            }
            other => Value::Integer(i64::from(other) % 16),
        }
    }
}

const TABLES: &[(&str, &str)] = &[
    (
        "CUPTI_ACTIVITY_KIND_KERNEL",
        "start, end, deviceId, streamId, correlationId, globalPid, demangledName, shortName",
    ),
    ("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "start, end, deviceId, streamId, correlationId, globalPid, graphId"),
    ("CUPTI_ACTIVITY_KIND_MEMCPY", "start, end, deviceId, streamId, correlationId, globalPid"),
    ("CUPTI_ACTIVITY_KIND_MEMSET", "start, end, deviceId, globalPid"),
    ("CUPTI_ACTIVITY_KIND_RUNTIME", "start, end, globalTid, correlationId, nameId"),
    ("NVTX_EVENTS", "start, end, globalTid, text, textId"),
    ("TARGET_INFO_CUDA_DEVICE", "gpuId, cudaId, pid"),
    ("TARGET_INFO_SESSION_START_TIME", "utcEpochNs"),
];

const NAMES: &[&str] = &[
    "gemm",
    "ncclDevKernel_SendRecv(x)",
    "ncclDevKernel_AllReduce_Sum",
    "multi_tensor_apply_kernel<Adam>",
    "layer_norm_bwd",
    "cudaLaunchKernel_v7000",
    "iteration 1",
    "step 2",
];

/// Tables of right names, some missing, with any rows.
pub fn rows(data: &[u8]) {
    let mut bytes = Bytes(data);
    let build = || -> rusqlite::Result<Connection> {
        let db = Connection::open_in_memory()?;
        db.execute_batch("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")?;
        for (id, name) in NAMES.iter().enumerate() {
            db.execute("INSERT INTO StringIds VALUES (?1, ?2)", (id as i64, name))?;
        }
        for (table, columns) in TABLES {
            if bytes.next() < 230 {
                fill(&db, table, columns, &mut bytes)?;
            }
        }
        Ok(db)
    };
    if let Ok(db) = build() {
        super::check(profile::read_sqlite(db, "fuzz.sqlite", &super::options()));
    }
}

fn fill(db: &Connection, table: &str, columns: &str, bytes: &mut Bytes) -> rusqlite::Result<()> {
    // A column is missing now and then.
    let skip = bytes.next() as usize;
    let columns: Vec<&str> = columns.split(", ").enumerate().filter(|(i, _)| *i != skip).map(|c| c.1).collect();
    db.execute_batch(&format!("CREATE TABLE {table} ({})", columns.join(", ")))?;
    let marks = vec!["?"; columns.len()].join(", ");
    let mut insert = db.prepare(&format!("INSERT INTO {table} VALUES ({marks})"))?;
    let mut clock = 0;
    for _ in 0..bytes.next() % 24 {
        let values: Vec<Value> = columns
            .iter()
            .map(|column| match *column {
                "text" if bytes.next() % 2 == 0 => Value::Text(NAMES[6 + usize::from(bytes.next() % 2)].into()),
                // Right more often than not: a wrong time ends the reading.
                "end" => {
                    clock += i64::from(bytes.next()) * 50;
                    Value::Integer(clock)
                }
                "start" if bytes.next() < 250 => {
                    clock += i64::from(bytes.next()) * 10;
                    Value::Integer(clock)
                }
                _ => bytes.value(&mut clock.clone()),
            })
            .collect();
        insert.execute(rusqlite::params_from_iter(values))?;
    }
    Ok(())
}

/// A right export with bytes of it changed: two bytes of each four say where, one what, and one whether to cut it there.
pub fn file(data: &[u8]) {
    let mut image = right().to_vec();
    for edit in data.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % image.len();
        image[at] = edit[2];
        if edit[3] == 255 {
            image.truncate(at.max(512));
        }
    }
    let read = || -> rusqlite::Result<Connection> {
        let mut db = Connection::open_in_memory()?;
        db.deserialize_read_exact("main", image.as_slice(), image.len(), true)?;
        Ok(db)
    };
    if let Ok(db) = read() {
        super::check(profile::read_sqlite(db, "fuzz.sqlite", &super::options()));
    }
}

/// Small pages, so that few bytes hold trees of several levels.
fn right() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let build = || -> rusqlite::Result<Vec<u8>> {
            let mut db = Connection::open_in_memory()?;
            db.execute_batch("PRAGMA page_size = 512; CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")?;
            for (id, name) in NAMES.iter().enumerate() {
                db.execute("INSERT INTO StringIds VALUES (?1, ?2)", (id as i64, name))?;
            }
            for (table, columns) in TABLES {
                db.execute_batch(&format!("CREATE TABLE {table} ({columns})"))?;
            }
            let pid = 4000i64 << 24;
            for i in 0..150i64 {
                let (start, name) = (1_000_000 + i * 30_000, if i % 7 == 3 { 1 } else { i % 5 });
                db.execute(
                    "INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?6)",
                    (start, start + 18_000, 7 + i % 2, i, pid, name),
                )?;
                db.execute(
                    "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?1, ?2, ?3, ?4, 5)",
                    (start - 20_000 + i % 3 * 9_000, start, pid + 4000, i),
                )?;
            }
            for i in 0..3i64 {
                let start = 1_000_000 + i * 1_500_000;
                let sql = "INSERT INTO NVTX_EVENTS VALUES (?1, ?2, ?3, NULL, ?4)";
                db.execute(sql, (start, start + 1_400_000, pid + 4000, 6 + i % 2))?;
            }
            Ok(db.serialize("main")?.to_vec())
        };
        build().expect("the right export cannot be made")
    })
}
