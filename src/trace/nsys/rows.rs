//! Rows of one table as spans.

use super::super::order::{SpanStop, Spans};
use super::super::span::{Activity, NameId, Span};
use super::{Nsys, explain, launch_key, process, tables};
use crate::Error;
use rusqlite::Statement;
use std::collections::HashMap;

pub struct TableRows<'a> {
    nsys: &'a Nsys,
    table: &'static str,
    rows: rusqlite::Rows<'a>,
    strings: Option<Statement<'a>>,
    activity: Option<Activity>,
    /// What name ids of the export are here: those of small number by index, the others by key.
    known: Vec<Option<(NameId, Activity)>>,
    others: HashMap<i64, (NameId, Activity)>,
    row: u64,
}

const DENSE: usize = 1 << 20;

impl<'a> TableRows<'a> {
    pub fn new(nsys: &'a Nsys, table: &'static str, rows: rusqlite::Rows<'a>) -> rusqlite::Result<Self> {
        let sql = format!("SELECT value FROM {} WHERE id = ?1", tables::STRINGS);
        let strings = if table == tables::KERNELS { Some(nsys.connection.prepare(&sql)?) } else { None };
        let activity = Activity::of_table(table);
        Ok(TableRows { nsys, table, rows, strings, activity, known: Vec::new(), others: HashMap::new(), row: 0 })
    }

    fn name(&mut self, id: i64) -> Result<(NameId, Activity), SpanStop> {
        let dense = usize::try_from(id).ok().filter(|id| *id < DENSE);
        let found = match dense {
            Some(index) => self.known.get(index).copied().flatten(),
            None => self.others.get(&id).copied(),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let text = self.text(id).map_err(|e| SpanStop::Error(explain(&e, &self.nsys.place)))?;
        let mut catalogue = self.nsys.catalogue.borrow_mut();
        catalogue.has_kernels |= matches!(self.table, tables::KERNELS | tables::GRAPHS);
        let Some((name, by_name)) = catalogue.kernel(&text, None) else {
            return Err(self.refuse("holds more kernel names than a training run has").into());
        };
        let known = (name, self.activity.unwrap_or(by_name));
        match dense {
            Some(index) => {
                if self.known.len() <= index {
                    self.known.resize(index + 1, None);
                }
                self.known[index] = Some(known);
            }
            None => {
                self.others.insert(id, known);
            }
        }
        Ok(known)
    }

    fn text(&mut self, id: i64) -> rusqlite::Result<String> {
        let Some(strings) = &mut self.strings else {
            return Ok(match self.table {
                tables::GRAPHS => format!("CUDA graph {id}"),
                tables::COPIES => "memcpy".into(),
                _ => "memset".into(),
            });
        };
        let mut rows = strings.query([id])?;
        Ok(match rows.next()? {
            Some(row) => row.get_ref(0)?.as_str_or_null().ok().flatten().unwrap_or("").to_string(),
            None => format!("kernel {id}"),
        })
    }

    fn refuse(&self, what: &str) -> Error {
        Error::input(
            format!("{}: row {} of {} {what}", self.nsys.place, self.row, self.table),
            "record it again: its clock went backwards or the file was changed",
        )
    }
}

impl Spans for TableRows<'_> {
    fn next(&mut self) -> Result<Option<Span>, SpanStop> {
        loop {
            let fail = |e: rusqlite::Error| SpanStop::Error(explain(&e, &self.nsys.place));
            let Some(row) = self.rows.next().map_err(fail)? else { return Ok(None) };
            self.row += 1;
            let mut values = [None; 7];
            let mut wrong = false;
            for (index, value) in values.iter_mut().enumerate() {
                match row.get_ref(index).map_err(fail)?.as_i64_or_null() {
                    Ok(number) => *value = number,
                    Err(_) => wrong = true,
                }
            }
            if wrong {
                return Err(self.refuse("holds something that is no whole number").into());
            }
            let [start, end, device, stream, pid, correlation, name] = values;
            let (Some(start), Some(end)) = (start, end) else {
                self.nsys.timeless.set(self.nsys.timeless.get() + 1);
                continue;
            };
            if start == 0 && end == 0 {
                self.nsys.timeless.set(self.nsys.timeless.get() + 1);
                continue;
            }
            let (Ok(start_ns), Ok(end_ns)) = (u64::try_from(start), u64::try_from(end)) else {
                return Err(self.refuse("has a time before the start of the session").into());
            };
            if end_ns < start_ns {
                return Err(self.refuse("ends before it starts").into());
            }
            let (name, activity) = self.name(name.unwrap_or(-1))?;
            let natural = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok());
            if activity == Activity::Compute && !self.nsys.on_compute_stream(natural(stream)) {
                continue;
            }
            let process = process(natural(pid).unwrap_or(0));
            let number = natural(device).unwrap_or(0);
            let gpu = match self.nsys.gpus.is_empty() {
                true => number,
                false => self.nsys.gpus.get(&(process, number)).copied().unwrap_or(number),
            };
            let Some(device) = self.nsys.catalogue.borrow_mut().device(gpu, process) else {
                return Err(self.refuse("names one device too many").into());
            };
            let launch = natural(correlation).map_or(u64::MAX, |c| launch_key(process, c));
            return Ok(Some(Span { start_ns, end_ns, launch, name, device, activity }));
        }
    }
}
