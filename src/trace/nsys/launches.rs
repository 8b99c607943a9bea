//! Launches of the few kernels that end a listed gap, by process and correlation id.
//!
//! The table of calls has no index, but its rows are nearly in order of time, and correlation ids are given in that
//! order: a search by halves finds a row in a few reads. A row counts only if process and correlation id are those
//! asked for, so a table in another order costs time (one pass over it) and nothing else.

use super::super::pending::PendingLaunches;
use super::super::windows::Launched;
use super::{Nsys, launch_key, process, tables, whole};
use rusqlite::{Connection, Statement};
use std::collections::HashMap;

/// Rows looked at around the place where the search ends; more of them if it is not among the first.
const NEAR: [i64; 2] = [64, 4096];
/// Ranges for which that is looked up, and how often in vain: a process may write ranges and launch nothing.
const MOST_TIMES: usize = 20_000;
const MOST_MISSES: usize = 8;
/// A table of this many rows is passed over rather than searched.
const FEW: i64 = 4096;
/// Places at which a longer one is looked at, to see whether it is in order.
const SAMPLES: i64 = 256;
/// Rows of other calls between a range's start and its first launch.
const FAR: usize = 20_000;

/// Tells the gaps when their kernels were launched; false if the export has no calls at all.
pub fn of(nsys: &Nsys, pending: &mut PendingLaunches) -> rusqlite::Result<bool> {
    if !nsys.tables.columns(tables::CALLS, &["start", "correlationId", "globalTid"]) {
        return Ok(false);
    }
    let mut calls = Ordered::new(&nsys.connection, tables::CALLS, "globalTid", "correlationId")?;
    // A search costs about as much as passing over 250 rows.
    let few = (calls.rows() / 250).max(0) as usize;
    if pending.unknown().take(few).count() < few {
        let keys: Vec<u64> = pending.unknown().collect();
        let mut found = true;
        for key in keys {
            match calls.find(key)? {
                Some(start) => pending.note(key, start),
                None => found = false,
            }
            if !found {
                break;
            }
        }
        if found {
            return Ok(true);
        }
    }
    let sql = format!("SELECT start, globalTid, correlationId FROM {}", tables::CALLS);
    let mut statement = nsys.connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(correlation) = whole(row, 2)?.filter(|c| pending.may_ask(*c)) else { continue };
        let Some(start) = whole(row, 0)? else { continue };
        pending.note(launch_key(process(whole(row, 1)?.unwrap_or(0)), correlation), start);
    }
    Ok(true)
}

/// The first kernel launched at or after each time.
pub fn first_after(nsys: &Nsys, of: u64, times: &[u64]) -> rusqlite::Result<Vec<Option<Launched>>> {
    let runs_in = |table: &&str| nsys.tables.columns(table, &["start", "correlationId", "globalPid"]);
    // A graph is launched by one call and may be recorded as a whole.
    let run_tables: Vec<&str> = [tables::KERNELS, tables::GRAPHS].into_iter().filter(runs_in).collect();
    let known = nsys.tables.columns(tables::CALLS, &["start", "correlationId", "globalTid", "nameId"])
        && !run_tables.is_empty()
        && nsys.tables.columns(tables::STRINGS, &["id", "value"]);
    if !known || times.is_empty() || times.len() > MOST_TIMES {
        return Ok(vec![None; times.len()]);
    }
    let names = launch_names(&nsys.connection)?;
    let mut calls = Ordered::new(&nsys.connection, tables::CALLS, "globalTid", "start")?;
    let launches = if calls.rows() > FEW && calls.looks_ordered()? {
        let sql = format!("SELECT start, globalTid, correlationId, nameId FROM {} WHERE rowid >= ?1", tables::CALLS);
        let mut following = nsys.connection.prepare(&sql)?;
        let mut list = vec![None; times.len()];
        let mut missed = 0;
        for (launch, &time) in list.iter_mut().zip(times) {
            *launch = first_launch(&mut following, calls.first_at_least(time)?, time, of, &names)?;
            missed += usize::from(launch.is_none());
            if missed > MOST_MISSES {
                break;
            }
        }
        list
    } else {
        first_launches(nsys, of, times, &names)?
    };
    let mut runs: HashMap<u64, Option<u64>> = HashMap::new();
    runs.extend(launches.iter().flatten().map(|&(_, key)| (key, None)));
    for table in run_tables {
        let mut rows = Ordered::new(&nsys.connection, table, "globalPid", "correlationId")?;
        for (&key, run) in &mut runs {
            *run = earlier(*run, rows.find(key)?);
        }
        if runs.values().any(Option::is_none) && rows.rows() <= FEW {
            pass_over_runs(nsys, table, &mut runs)?;
        }
    }
    let launched = |(launch_ns, key)| Some(Launched { launch_ns, run_ns: runs[&key]? });
    Ok(launches.into_iter().map(|l| l.and_then(launched)).collect())
}

/// Start and key of the first launch at or after `time` among the rows from `rowid` on.
fn first_launch(
    following: &mut Statement,
    rowid: i64,
    time: u64,
    of: u64,
    names: &[u64],
) -> rusqlite::Result<Option<(u64, u64)>> {
    let mut rows = following.query([rowid])?;
    for _ in 0..FAR {
        let Some(row) = rows.next()? else { break };
        if let Some(launch) = launch(row, of, names)?.filter(|l| l.0 >= time) {
            return Ok(Some(launch));
        }
    }
    Ok(None)
}

/// The same from a table in no order: in each stretch from one time to the next, its earliest launch.
fn first_launches(nsys: &Nsys, of: u64, times: &[u64], names: &[u64]) -> rusqlite::Result<Vec<Option<(u64, u64)>>> {
    let sql = format!("SELECT start, globalTid, correlationId, nameId FROM {}", tables::CALLS);
    let mut statement = nsys.connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut first: Vec<Option<(u64, u64)>> = vec![None; times.len()];
    while let Some(row) = rows.next()? {
        let Some(launch) = launch(row, of, names)? else { continue };
        if let Some(slot) = times.partition_point(|t| *t <= launch.0).checked_sub(1) {
            first[slot] = Some(first[slot].map_or(launch, |f| f.min(launch)));
        }
    }
    Ok(first)
}

/// Start and key of the launch in a row, if it is one of this process.
fn launch(row: &rusqlite::Row, of: u64, names: &[u64]) -> rusqlite::Result<Option<(u64, u64)>> {
    let own = process(whole(row, 1)?.unwrap_or(0)) == of;
    let launches = own && names.contains(&whole(row, 3)?.unwrap_or(u64::MAX));
    match (launches, whole(row, 0)?, whole(row, 2)?) {
        (true, Some(start), Some(correlation)) => Ok(Some((start, launch_key(of, correlation)))),
        _ => Ok(None),
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn pass_over_runs(nsys: &Nsys, table: &str, runs: &mut HashMap<u64, Option<u64>>) -> rusqlite::Result<()> {
    let sql = format!("SELECT start, globalPid, correlationId FROM {table}");
    let mut statement = nsys.connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (Some(start), Some(correlation)) = (whole(row, 0)?, whole(row, 2)?) else { continue };
        let key = launch_key(process(whole(row, 1)?.unwrap_or(0)), correlation);
        if let Some(run) = runs.get_mut(&key) {
            *run = earlier(*run, Some(start));
        }
    }
    Ok(())
}

/// Ids of the calls that launch kernels: cudaLaunchKernel_v7000, cuLaunchKernelEx, cudaGraphLaunch, …; not
/// cudaLaunchHostFunc, which runs nothing on the device.
fn launch_names(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let launches = "value LIKE 'cu%Launch%' AND value NOT LIKE '%HostFunc%'";
    let sql = format!("SELECT id FROM {} WHERE {launches} LIMIT 10000", tables::STRINGS);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        ids.extend(whole(row, 0)?);
    }
    Ok(ids)
}

/// A table whose rows are taken to be nearly in the order of one column.
struct Ordered<'a> {
    /// rowid and the column of the first row at or behind a rowid.
    probe: Statement<'a>,
    /// start, process, correlation id of the rows in between.
    near: Statement<'a>,
    first: i64,
    last: i64,
}

impl<'a> Ordered<'a> {
    fn new(connection: &'a Connection, table: &str, global: &str, column: &str) -> rusqlite::Result<Self> {
        let probe = connection.prepare(&format!("SELECT rowid, {column} FROM {table} WHERE rowid >= ?1 LIMIT 1"))?;
        let near = connection
            .prepare(&format!("SELECT start, {global}, correlationId FROM {table} WHERE rowid BETWEEN ?1 AND ?2"))?;
        let edge = |order: &str| -> rusqlite::Result<Option<i64>> {
            let mut statement = connection.prepare(&format!("SELECT {order}(rowid) FROM {table}"))?;
            statement.query_row([], |row| row.get(0))
        };
        let (first, last) = (edge("min")?.unwrap_or(1), edge("max")?.unwrap_or(0));
        Ok(Ordered { probe, near, first, last })
    }

    const fn rows(&self) -> i64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// The rowid of the first row whose column is at least `value`, if the rows are in order.
    fn first_at_least(&mut self, value: u64) -> rusqlite::Result<i64> {
        let (mut low, mut high) = (self.first, self.last.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let mut rows = self.probe.query([middle])?;
            match rows.next()? {
                Some(row) => {
                    let at: i64 = row.get(0)?;
                    if whole(row, 1)?.unwrap_or(0) < value {
                        low = at.saturating_add(1);
                    } else {
                        high = middle;
                    }
                }
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// Whether the column grows from one sample to the next.
    fn looks_ordered(&mut self) -> rusqlite::Result<bool> {
        let mut before = 0;
        for sample in 0..SAMPLES {
            let rowid = self.first.saturating_add((self.rows() / SAMPLES).saturating_mul(sample));
            let mut rows = self.probe.query([rowid])?;
            if let Some(row) = rows.next()? {
                let value = whole(row, 1)?.unwrap_or(0);
                if value < before {
                    return Ok(false);
                }
                before = value;
            }
        }
        Ok(true)
    }

    /// The start in the row of this process and correlation id, if the order leads there.
    fn find(&mut self, key: u64) -> rusqlite::Result<Option<u64>> {
        let at = self.first_at_least(key & 0xff_ffff_ffff)?;
        for near in NEAR {
            let mut rows = self.near.query([at.saturating_sub(near), at.saturating_add(near)])?;
            while let Some(row) = rows.next()? {
                let (Some(start), Some(correlation)) = (whole(row, 0)?, whole(row, 2)?) else { continue };
                if launch_key(process(whole(row, 1)?.unwrap_or(0)), correlation) == key {
                    return Ok(Some(start));
                }
            }
        }
        Ok(None)
    }
}
