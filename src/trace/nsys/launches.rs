//! Launches of the few kernels that end a listed gap, by process and correlation id.
//!
//! The table of calls has no index, but its rows are nearly in order of time, and correlation ids are given in that
//! order: a search by halves finds a row in a few reads. A row counts only if process and correlation id are those
//! asked for, so a table in another order costs time (one pass over it) and nothing else.

use super::{Nsys, launch_key, process, tables, whole};
use rusqlite::{Connection, Statement};
use std::collections::HashMap;

/// Rows looked at around the place where the search ends.
const NEAR: i64 = 64;
/// Rows of other calls between a range's start and its first launch.
const FAR: usize = 20_000;

/// Fills in when the wanted spans were launched; false if the export has no calls at all.
pub fn of(nsys: &Nsys, wanted: &mut HashMap<u64, Option<u64>>) -> rusqlite::Result<bool> {
    if !nsys.tables.columns(tables::CALLS, &["start", "correlationId", "globalTid"]) {
        return Ok(false);
    }
    let mut calls = Ordered::new(&nsys.connection, tables::CALLS, "globalTid", "correlationId")?;
    // A search costs about as much as passing over 250 rows.
    if (wanted.len() as i64) < calls.rows() / 250 {
        for (key, launch) in wanted.iter_mut() {
            *launch = calls.find(*key)?;
        }
        if wanted.values().all(Option::is_some) {
            return Ok(true);
        }
    }
    pass_over_all(nsys, wanted)?;
    Ok(true)
}

fn pass_over_all(nsys: &Nsys, wanted: &mut HashMap<u64, Option<u64>>) -> rusqlite::Result<()> {
    let sieve = Sieve::new(wanted.keys().copied());
    let sql = format!("SELECT start, globalTid, correlationId FROM {}", tables::CALLS);
    let mut statement = nsys.connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let Some(correlation) = whole(row, 2)?.filter(|c| sieve.may_hold(*c)) else { continue };
        let Some(start) = whole(row, 0)? else { continue };
        let key = launch_key(process(whole(row, 1)?.unwrap_or(0)), correlation);
        if let Some(launch) = wanted.get_mut(&key) {
            *launch = Some(launch.map_or(start, |l| l.min(start)));
        }
    }
    Ok(())
}

/// A bit for each wanted correlation id, by its low bits: most rows are put aside without a look into the map.
struct Sieve(Vec<u64>);

impl Sieve {
    const BITS: u64 = 1 << 22;

    fn new(wanted: impl Iterator<Item = u64>) -> Self {
        let mut bits = vec![0; (Self::BITS / 64) as usize];
        for key in wanted {
            let bit = key % Self::BITS;
            bits[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        Sieve(bits)
    }

    fn may_hold(&self, correlation: u64) -> bool {
        let bit = correlation % Self::BITS;
        self.0[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }
}

/// When the first kernel launched at or after each time runs.
pub fn runs_after(nsys: &Nsys, of: u64, times: &[u64]) -> rusqlite::Result<Vec<Option<u64>>> {
    let known = nsys.tables.columns(tables::CALLS, &["start", "correlationId", "globalTid", "nameId"])
        && nsys.tables.columns(tables::KERNELS, &["start", "correlationId", "globalPid"]);
    if !known {
        return Ok(vec![None; times.len()]);
    }
    let names = launch_names(&nsys.connection)?;
    let mut calls = Ordered::new(&nsys.connection, tables::CALLS, "globalTid", "start")?;
    let mut kernels = Ordered::new(&nsys.connection, tables::KERNELS, "globalPid", "correlationId")?;
    let sql = format!("SELECT start, globalTid, correlationId, nameId FROM {} WHERE rowid >= ?1", tables::CALLS);
    let mut following = nsys.connection.prepare(&sql)?;
    times
        .iter()
        .map(|&time| {
            let from = calls.first_at_least(time)?;
            let mut rows = following.query([from])?;
            for _ in 0..FAR {
                let Some(row) = rows.next()? else { break };
                let launches = names.contains(&whole(row, 3)?.unwrap_or(u64::MAX));
                let own = process(whole(row, 1)?.unwrap_or(0)) == of;
                if let (true, true, Some(c), Some(at)) = (launches, own, whole(row, 2)?, whole(row, 0)?) {
                    if at >= time {
                        return kernels.find(launch_key(of, c));
                    }
                }
            }
            Ok(None)
        })
        .collect()
}

/// Ids of the calls that launch kernels: cudaLaunchKernel_v7000, cuLaunchKernelEx, cudaGraphLaunch, ….
fn launch_names(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let sql = format!("SELECT id FROM {} WHERE value LIKE 'cu%Launch%' LIMIT 10000", tables::STRINGS);
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

    /// The start in the row of this process and correlation id, if the order leads there.
    fn find(&mut self, key: u64) -> rusqlite::Result<Option<u64>> {
        let at = self.first_at_least(key & 0xff_ffff_ffff)?;
        let mut rows = self.near.query([at.saturating_sub(NEAR), at.saturating_add(NEAR)])?;
        while let Some(row) = rows.next()? {
            if let (Some(start), Some(correlation)) = (whole(row, 0)?, whole(row, 2)?) {
                if launch_key(process(whole(row, 1)?.unwrap_or(0)), correlation) == key {
                    return Ok(Some(start));
                }
            }
        }
        Ok(None)
    }
}
