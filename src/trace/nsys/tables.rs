//! Which of the tables and columns an export has, and the queries made of them.

use crate::{Error, Result};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};

pub const KERNELS: &str = "CUPTI_ACTIVITY_KIND_KERNEL";
pub const GRAPHS: &str = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE";
pub const COPIES: &str = "CUPTI_ACTIVITY_KIND_MEMCPY";
pub const FILLS: &str = "CUPTI_ACTIVITY_KIND_MEMSET";
pub const CALLS: &str = "CUPTI_ACTIVITY_KIND_RUNTIME";
pub const RANGES: &str = "NVTX_EVENTS";
pub const STRINGS: &str = "StringIds";

/// Columns of a kernel's name, the one with its types first: it is what other profilers write too.
const NAMES: [&str; 3] = ["demangledName", "shortName", "mangledName"];

pub struct Tables(HashMap<String, HashSet<String>>);

impl Tables {
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut all = HashMap::new();
        // Views and virtual tables are nothing nsys writes, and could be anything.
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE TABLE%' LIMIT 10000";
        let mut statement = connection.prepare(sql)?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for name in names {
            if [KERNELS, GRAPHS, COPIES, FILLS, CALLS, RANGES, STRINGS].contains(&name.as_str())
                || name.starts_with("TARGET_INFO_")
            {
                let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
                let columns = columns.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
                all.insert(name, columns);
            }
        }
        Ok(Tables(all))
    }

    pub fn has(&self, table: &str) -> bool {
        self.0.contains_key(table)
    }

    pub fn columns(&self, table: &str, columns: &[&str]) -> bool {
        self.0.get(table).is_some_and(|has| columns.iter().all(|c| has.contains(*c)))
    }

    /// Refuses an export without what everything else needs.
    pub fn check(&self, place: &str) -> Result<()> {
        if self.0.is_empty() {
            return Err(Error::input(
                format!("{place} is an SQLite file but no nsys export: it has none of its tables"),
                "export one: nsys export --type sqlite --output FILE.sqlite REPORT.nsys-rep",
            ));
        }
        if !self.has(KERNELS) && !self.has(GRAPHS) {
            return Err(Error::input(
                format!("{place} holds no GPU kernels: it has no table {KERNELS}"),
                "record again with nsys profile --trace=cuda,nvtx, on a machine with a GPU",
            ));
        }
        for table in [KERNELS, GRAPHS] {
            let lacking = |c: &&&str| self.has(table) && !self.columns(table, &[c]);
            if let Some(column) = ["start", "end", "deviceId"].iter().find(lacking) {
                return Err(Error::input(
                    format!("{place}: its table {table} has no column {column}"),
                    "export it again with a current nsys: nsys export --type sqlite REPORT.nsys-rep",
                ));
            }
        }
        let named = NAMES.iter().any(|c| self.columns(KERNELS, &[c]));
        if self.has(KERNELS) && !(named && self.columns(STRINGS, &["id", "value"])) {
            return Err(Error::input(
                format!("{place} holds kernels without names: it has no table {STRINGS} or no column of names"),
                "export it again, whole: nsys export --type sqlite REPORT.nsys-rep",
            ));
        }
        Ok(())
    }

    /// The tables that hold spans.
    pub fn spans(&self) -> Vec<&'static str> {
        [KERNELS, GRAPHS, COPIES, FILLS]
            .into_iter()
            .filter(|t| self.columns(t, &["start", "end", "deviceId"]))
            .collect()
    }

    /// start, end, deviceId, streamId, globalPid, correlationId, name id; 0 for a column that is not there.
    pub fn spans_sql(&self, table: &str) -> String {
        let or = |column: &str, otherwise: &str| {
            if self.columns(table, &[column]) { column.to_string() } else { otherwise.to_string() }
        };
        let names: Vec<&str> = NAMES.into_iter().filter(|c| self.columns(table, &[c])).collect();
        let name = match (names.as_slice(), table) {
            ([], GRAPHS) => or("graphId", "0"),
            ([], _) => "0".into(),
            ([one], _) => (*one).into(),
            (several, _) => format!("coalesce({})", several.join(", ")),
        };
        format!(
            "SELECT start, end, deviceId, {}, {}, {}, {name} FROM {table}",
            or("streamId", "0"),
            or("globalPid", "0"),
            or("correlationId", "NULL")
        )
    }

    /// Ranges that may name iterations: start, end, globalTid, text. The pattern holds every word of
    /// [`crate::trace::windows`]; a profile may have millions of other ranges.
    pub fn ranges_sql(&self) -> Option<String> {
        if !self.columns(RANGES, &["start", "end", "text"]) {
            return None;
        }
        let thread = if self.columns(RANGES, &["globalTid"]) { "globalTid" } else { "0" };
        let like = |column: &str| format!("({column} LIKE '%step%' OR {column} LIKE '%iter%')");
        let shared = self.columns(RANGES, &["textId"]) && self.columns(STRINGS, &["id", "value"]);
        let (text, wanted) = if shared {
            (
                format!("coalesce(text, (SELECT value FROM {STRINGS} WHERE id = textId))"),
                format!(
                    "({} OR (text IS NULL AND textId IN (SELECT id FROM {STRINGS} WHERE {})))",
                    like("text"),
                    like("value")
                ),
            )
        } else {
            ("text".into(), like("text"))
        };
        Some(format!(
            "SELECT start, end, {thread}, {text} FROM {RANGES} WHERE end IS NOT NULL AND {wanted} LIMIT 1000000"
        ))
    }
}
