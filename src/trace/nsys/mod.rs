//! Exports of Nsight Systems: SQLite, read table by table in the tables' own order, without joins or sorting by SQLite.
//!
//! Tables exist only if something was recorded in them, and their columns have changed over the years: `tables` says
//! what is there.

mod launches;
mod rows;
mod tables;

use self::rows::TableRows;
use self::tables::Tables;
use super::order::{External, Merged, Nearly, SpanStop, Spans};
use super::pending::PendingLaunches;
use super::source::{Catalogue, ProfileSource};
use super::span::{Activity, Span};
use super::windows::{self, IterationRange, Launched};
use crate::units::counted;
use crate::{Error, Result};
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;

/// The longest text or row that is read: names are shorter, and memory is bounded by it.
const LONGEST_VALUE: i32 = 16 << 20;

/// An SQLite export of Nsight Systems, open and checked for the tables that everything else needs.
pub struct Nsys {
    place: String,
    connection: Connection,
    tables: Tables,
    catalogue: RefCell<Catalogue>,
    /// Physical GPU of a process's device number, where the two differ.
    gpus: HashMap<(u64, u64), u64>,
    compute_streams: Option<Vec<u64>>,
    epoch_ns: Option<u64>,
    /// Rows without a timestamp.
    timeless: Cell<u64>,
}

impl Nsys {
    /// Opens an export, read only. `compute_streams` are the streams whose kernels count as compute; `None` is all.
    /// Fails if the file is no SQLite database or lacks a needed table.
    pub fn open(path: &Path, compute_streams: Option<&[u64]>) -> Result<Self> {
        let place = path.display().to_string();
        let connection = connect(path).map_err(|e| explain(&e, &place))?;
        Self::of(connection, place, compute_streams)
    }

    /// Takes an export that is open already, as [`Nsys::open`] does; `place` names it in errors.
    pub fn of(connection: Connection, place: String, compute_streams: Option<&[u64]>) -> Result<Self> {
        prepare(&connection).map_err(|e| explain(&e, &place))?;
        let tables = Tables::read(&connection).map_err(|e| explain(&e, &place))?;
        tables.check(&place)?;
        let mut nsys = Nsys {
            place,
            connection,
            tables,
            catalogue: RefCell::default(),
            gpus: HashMap::new(),
            compute_streams: compute_streams.map(<[u64]>::to_vec),
            epoch_ns: None,
            timeless: Cell::new(0),
        };
        nsys.gpus = nsys.read_gpus().map_err(|e| explain(&e, &nsys.place))?;
        nsys.epoch_ns = nsys.read_epoch().map_err(|e| explain(&e, &nsys.place))?;
        Ok(nsys)
    }

    fn read_gpus(&self) -> rusqlite::Result<HashMap<(u64, u64), u64>> {
        let mut gpus = HashMap::new();
        if self.tables.columns("TARGET_INFO_CUDA_DEVICE", &["gpuId", "cudaId", "pid"]) {
            let sql = "SELECT pid, cudaId, gpuId FROM TARGET_INFO_CUDA_DEVICE WHERE gpuId <> cudaId LIMIT 100000";
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let (Some(pid), Some(cuda), Some(gpu)) = (whole(row, 0)?, whole(row, 1)?, whole(row, 2)?) {
                    gpus.insert((pid, cuda), gpu);
                }
            }
        }
        Ok(gpus)
    }

    fn read_epoch(&self) -> rusqlite::Result<Option<u64>> {
        if !self.tables.columns("TARGET_INFO_SESSION_START_TIME", &["utcEpochNs"]) {
            return Ok(None);
        }
        let mut statement = self.connection.prepare("SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME LIMIT 1")?;
        let mut rows = statement.query([])?;
        match rows.next()? {
            Some(row) => whole(row, 0),
            None => Ok(None),
        }
    }

    fn read_ranges(&self) -> rusqlite::Result<Vec<IterationRange>> {
        let Some(sql) = self.tables.ranges_sql() else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut ranges = Vec::new();
        while let Some(row) = rows.next()? {
            let (Some(start_ns), Some(end_ns)) = (whole(row, 0)?, whole(row, 1)?) else { continue };
            let text = row.get_ref(3)?.as_str_or_null().ok().flatten().unwrap_or("");
            if let Some(base) = windows::base(text) {
                ranges.push(IterationRange { start_ns, end_ns, process: process(whole(row, 2)?.unwrap_or(0)), base });
            }
        }
        Ok(ranges)
    }

    /// The tables of spans, each in order on its own, and then together.
    fn merged(&self, any_order: bool, take: &mut dyn FnMut(&Span, &Catalogue)) -> Result<(), SpanStop> {
        let fail = |e: rusqlite::Error| SpanStop::Error(explain(&e, &self.place));
        let mut statements = Vec::new();
        for table in self.tables.spans() {
            let statement = self.connection.prepare(&self.tables.spans_sql(table)).map_err(fail)?;
            statements.push((table, statement));
        }
        let mut sorters: Vec<External> = Vec::new();
        let mut sources: Vec<Box<dyn Spans + '_>> = Vec::new();
        for (table, statement) in &mut statements {
            let mut rows = TableRows::new(self, table, statement.query([]).map_err(fail)?).map_err(fail)?;
            if any_order {
                let mut sorter = External::default();
                while let Some(span) = rows.next()? {
                    sorter.push(span)?;
                }
                sorters.push(sorter);
            } else {
                sources.push(Box::new(Nearly::new(rows)));
            }
        }
        for sorter in &mut sorters {
            sources.push(Box::new(sorter.sorted()?));
        }
        let mut merged = Merged::new(sources)?;
        while let Some(span) = merged.next()? {
            take(&span, &self.catalogue.borrow());
        }
        Ok(())
    }

    fn on_compute_stream(&self, stream: Option<u64>) -> bool {
        self.compute_streams.as_ref().is_none_or(|list| stream.is_some_and(|s| list.contains(&s)))
    }
}

impl ProfileSource for Nsys {
    fn take_catalogue(&mut self) -> Catalogue {
        self.catalogue.take()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.timeless.get() > 0 {
            notes.push(format!("{} without a time (start = end = 0): left out", counted(self.timeless.get(), "event")));
        }
        if self.tables.has(tables::GRAPHS) {
            notes.push(
                "whole CUDA graphs count as compute: record with --cuda-graph-trace=node to see what is in them".into(),
            );
        }
        notes
    }

    fn ranges(&mut self) -> Result<Vec<IterationRange>> {
        self.read_ranges().map_err(|e| explain(&e, &self.place))
    }

    fn launches_after(&mut self, process: u64, times: &[u64]) -> Result<Vec<Option<Launched>>> {
        launches::first_after(self, process, times).map_err(|e| explain(&e, &self.place))
    }

    fn spans(&mut self, any_order: bool, take: &mut dyn FnMut(&Span, &Catalogue)) -> Result<(), SpanStop> {
        self.timeless.set(0);
        self.merged(any_order, take)
    }

    fn launches(&mut self, pending: &mut PendingLaunches) -> Result<bool> {
        launches::of(self, pending).map_err(|e| explain(&e, &self.place))
    }

    fn epoch_ns(&self) -> Option<u64> {
        self.epoch_ns
    }

    fn rank(&self) -> Option<u64> {
        None
    }
}

/// The process in a `globalPid` or `globalTid`.
const fn process(global: u64) -> u64 {
    global / 0x100_0000 % 0x100_0000
}

/// A process's launch as a span holds it.
const fn launch_key(process: u64, correlation: u64) -> u64 {
    process << 40 | correlation & 0xff_ffff_ffff
}

/// Read only and as it is: no lock, no journal, nothing written beside it; nothing in it is run.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut name = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => name.push(char::from(*byte)),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    name.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(name, flags)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_VALUE)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cache_size = -8192; PRAGMA query_only = ON;")
}

/// A number that cannot be negative; none for NULL and for what is no number.
fn whole(row: &rusqlite::Row, column: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get_ref(column)?.as_i64_or_null().ok().flatten().and_then(|v| u64::try_from(v).ok()))
}

fn explain(error: &rusqlite::Error, place: &str) -> Error {
    use rusqlite::ErrorCode::{NotADatabase, TooBig};
    let again = "export it again: nsys export --type sqlite --output FILE.sqlite REPORT.nsys-rep";
    match error.sqlite_error_code() {
        Some(TooBig) => Error::input(
            format!("{place} holds a text of over {LONGEST_VALUE} bytes where a name belongs"),
            "record it without that annotation, and export it again",
        ),
        Some(NotADatabase) => Error::input(format!("{place} is no SQLite database"), again),
        _ => Error::input(format!("{place} cannot be read as an nsys export: {error}"), again),
    }
}

impl Activity {
    /// What the rows of a table are, where their names do not tell.
    fn of_table(table: &str) -> Option<Activity> {
        match table {
            tables::KERNELS => None,
            tables::GRAPHS => Some(Activity::Compute),
            _ => Some(Activity::Copy),
        }
    }
}
