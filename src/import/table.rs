//! Tables that people write by hand or a script writes for them: CSV with a header, or JSON lines with the same names.
//!
//! A row is a line, so every error can say `file:line`. Cells may stand in double quotes; an empty cell (in JSON `null`, or
//! no such name) is not given; in CSV lines that begin with `#` are comments. What the cells mean is the reader's: [`Row`]
//! hands them out as counts, times, truths and names, each with its own refusal.

use crate::records::measurement::Interval;
use crate::{Error, Result, nearest};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A file as text, with the name that errors give it.
#[derive(Debug)]
pub(super) struct TextFile {
    /// The file's path as it was given.
    pub(super) place: String,
    /// What stands in it.
    pub(super) text: String,
}

/// The columns of one kind of table.
#[derive(Debug)]
pub(super) struct Columns {
    /// What a row is, for errors: `layer`.
    pub(super) row: &'static str,
    /// All columns, in the order in which errors list them.
    pub(super) known: &'static [&'static str],
    /// Those without which no row can be read.
    pub(super) needed: &'static [&'static str],
}

/// The cells that a row has, by column.
#[derive(Debug)]
pub(super) struct Row {
    /// `file:line`.
    pub(super) place: String,
    cells: BTreeMap<&'static str, String>,
}

/// The rows of all files, in their order. It is an error where a file has none.
pub(super) fn rows(files: &[TextFile], columns: &Columns) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    for file in files {
        let text = file.text.trim_start_matches('\u{feff}');
        let lines = || {
            let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
            numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        };
        let rows = match lines().next() {
            Some((_, first)) if first.starts_with(['{', '[']) => of_json(file, lines(), columns)?,
            Some(_) => of_csv(file, lines(), columns)?,
            None => Vec::new(),
        };
        if rows.is_empty() {
            let what = if text.trim().is_empty() { "is empty" } else { "has no row" };
            return Err(Error::input(
                format!("{} {what}", file.place),
                format!("give a header ({}) and a line for each {}", columns.needed.join(","), columns.row),
            ));
        }
        all.extend(rows);
    }
    Ok(all)
}

fn of_csv<'a>(
    file: &TextFile,
    mut lines: impl Iterator<Item = (usize, &'a str)>,
    columns: &Columns,
) -> Result<Vec<Row>> {
    let Some((number, line)) = lines.next() else { return Ok(Vec::new()) };
    let header = header(&format!("{}:{number}", file.place), line, columns)?;
    let mut rows = Vec::new();
    for (number, line) in lines {
        let place = format!("{}:{number}", file.place);
        let cells = cells(line).ok_or_else(|| {
            Error::input(format!("{place} opens a quote that is not closed"), "close it: a row is one line")
        })?;
        if cells.len() != header.len() {
            let cut = if cells.len() < header.len() { ": it is cut off" } else { "" };
            return Err(Error::input(
                format!("{place} has {} cells, the header {}{cut}", cells.len(), header.len()),
                "give every row as many cells as the header (an empty one is not given; a comma within a cell needs quotes)",
            ));
        }
        let given = header.iter().copied().zip(cells).filter(|(_, cell)| !cell.is_empty());
        rows.push(Row { place, cells: given.collect() });
    }
    Ok(rows)
}

/// The columns that the header names, in its order.
fn header(place: &str, line: &str, columns: &Columns) -> Result<Vec<&'static str>> {
    let names = cells(line).unwrap_or_default();
    if names.len() == 1 && line.contains([';', '\t']) {
        return Err(Error::input(
            format!("{place} has no comma"),
            "divide the cells by commas, not by semicolons or tabulators",
        ));
    }
    let found = |name: &str| columns.known.iter().copied().find(|known| *known == name);
    if !names.iter().any(|name| found(name).is_some()) {
        return Err(Error::input(
            format!("{place} is no header: none of its cells names a column"),
            format!("begin with a line like {}", columns.needed.join(",")),
        ));
    }
    let mut header = Vec::with_capacity(names.len());
    for name in &names {
        let column = found(name).ok_or_else(|| unknown(place, name, columns))?;
        if header.contains(&column) {
            return Err(Error::input(format!("{place} names the column {name} twice"), "give each column once"));
        }
        header.push(column);
    }
    match columns.needed.iter().find(|needed| !header.contains(needed)) {
        Some(missing) => Err(Error::input(
            format!("{place} has no column {missing}"),
            format!("every table has at least {}", columns.needed.join(",")),
        )),
        None => Ok(header),
    }
}

fn unknown(place: &str, name: &str, columns: &Columns) -> Error {
    Error::input(
        format!("{place} has a column `{name}` that is unknown"),
        nearest::cure(name, columns.known.iter().copied()),
    )
}

/// The cells of a line, without the blanks and quotes around them; `None` where a quote is not closed.
fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let Some(quoted) = rest.strip_prefix('"') else {
            let (cell, behind) = rest.split_once(',').map_or((rest, None), |(cell, behind)| (cell, Some(behind)));
            cells.push(cell.trim().to_string());
            match behind {
                Some(behind) => rest = behind,
                None => return Some(cells),
            }
            continue;
        };
        let (cell, behind) = unquoted(quoted)?;
        cells.push(cell);
        match behind.trim_start().strip_prefix(',') {
            Some(behind) => rest = behind,
            None if behind.trim().is_empty() => return Some(cells),
            None => return None,
        }
    }
}

/// What stands before the closing quote, of which two are one quote of the text, and what stands behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        cell.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                cell.push('"');
                rest = more;
            }
            None => return Some((cell.trim().to_string(), behind)),
        }
    }
}

fn of_json<'a>(file: &TextFile, lines: impl Iterator<Item = (usize, &'a str)>, columns: &Columns) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, line) in lines {
        let place = format!("{}:{number}", file.place);
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| match e.is_eof() {
            true => Error::input(format!("{place} is cut off"), "give every object whole, on one line"),
            false => Error::input(
                format!("{place} is no JSON object: {e}"),
                format!("give one object a line, like {{\"{}\": …}}", columns.needed.join("\": …, \"")),
            ),
        })?;
        let mut cells = BTreeMap::new();
        for (name, value) in object {
            let known = columns.known.iter().copied().find(|known| *known == name);
            let column = known.ok_or_else(|| unknown(&place, &name, columns))?;
            let cell = match value {
                Value::Null => continue,
                Value::String(text) => text.trim().to_string(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(Error::input(
                        format!("{place}: {name} is a list or an object"),
                        "give a number, a text, true or false",
                    ));
                }
            };
            cells.insert(column, cell);
        }
        cells.retain(|_, cell| !cell.is_empty());
        rows.push(Row { place, cells });
    }
    Ok(rows)
}

impl Row {
    /// The cell's text; `None` where it is not given.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.cells.get(name).map(String::as_str)
    }

    /// A refusal that begins with the row's place.
    pub(super) fn refused(&self, what: impl std::fmt::Display, cure: impl Into<String>) -> Error {
        Error::input(format!("{}: {what}", self.place), cure)
    }

    /// The refusal of a row whose cell is empty though it is needed.
    pub(super) fn missing(&self, name: &str) -> Error {
        self.refused(format_args!("{name} is not given"), "fill the cell, or leave the row out")
    }

    /// A whole number above 0; `None` where it is not given.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>> {
        /// Up to here every whole number is one of `f64`.
        const MOST: f64 = 9_007_199_254_740_992.0;
        let Some(text) = self.text(name) else { return Ok(None) };
        // Scripts write whole numbers as 1024.0 where another cell of the column is empty.
        let float = || text.parse::<f64>().ok().filter(|v| v.fract() == 0.0 && (0.0..MOST).contains(v));
        match text.parse::<u64>().ok().or_else(|| float().map(|v| v as u64)) {
            Some(count) if count > 0 => Ok(Some(count)),
            _ => Err(self.refused(format_args!("{name} is `{text}`, no whole number above 0"), "give one, like 1024")),
        }
    }

    /// A whole number above 0 that must be given.
    pub(super) fn needed_count(&self, name: &str) -> Result<u64> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    /// A number above 0; `None` where it is not given.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            Ok(number) if number.is_finite() => {
                Err(self.refused(format_args!("{name} is {text}"), "give what was measured, which is above 0"))
            }
            _ => Err(self.refused(format_args!("{name} is `{text}`, not a number"), "give one, like 12.5")),
        }
    }

    /// The time in `NAME_UNIT`, with what `NAME_low_UNIT` and `NAME_high_UNIT` say of its 95 % interval, in nanoseconds;
    /// where they say nothing, the interval is the time itself. `None` where the time is not given.
    pub(super) fn time_ns(&self, name: &str, unit: &str, ns_per_unit: f64) -> Result<Option<Interval>> {
        let column = |part: &str| format!("{name}{part}_{unit}");
        let (low, high) = (self.number(&column("_low"))?, self.number(&column("_high"))?);
        let Some(median) = self.number(&column(""))? else {
            return match low.or(high) {
                Some(_) => Err(self.missing(&column(""))),
                None => Ok(None),
            };
        };
        let (low, high) = (low.unwrap_or(median), high.unwrap_or(median));
        if !(low <= median && median <= high) {
            return Err(self.refused(
                format_args!("{} {median} is not within its interval from {low} to {high}", column("")),
                "give the ends of the interval around it, or leave them empty",
            ));
        }
        let ns = |time: f64| ns_per_unit * time;
        Ok(Some(Interval { median: ns(median), low: ns(low), high: ns(high) }))
    }

    /// `true` or `false`, as 1 or 0 too; `None` where it is not given.
    pub(super) fn truth(&self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(self.refused(format_args!("{name} is `{text}`"), "give true or false")),
        }
    }

    /// One of the values, by its name; `None` where it is not given.
    pub(super) fn one_of<T: Copy>(&self, name: &str, all: &[T], spelled: fn(T) -> &'static str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match all.iter().find(|value| spelled(**value) == text) {
            Some(value) => Ok(Some(*value)),
            None => {
                let cure = nearest::cure(text, all.iter().map(|value| spelled(*value)).collect::<Vec<_>>());
                Err(self.refused(format_args!("{name} is `{text}`, which is unknown"), cure))
            }
        }
    }
}

/// The rows of one GPU, and its name: the one asked for, or the only one that the column `gpu` names. The last value says
/// which rows were left out, if any.
pub(super) fn of_one_gpu(rows: Vec<Row>, asked: Option<&str>) -> Result<(String, Vec<Row>, Option<String>)> {
    let named: BTreeSet<String> = rows.iter().filter_map(|row| row.text("gpu")).map(str::to_string).collect();
    let names: Vec<&str> = named.iter().map(String::as_str).collect();
    let place = rows.first().map_or("", |row| row.place.rsplit_once(':').map_or("", |(file, _)| file)).to_string();
    let gpu = match (asked, names.as_slice()) {
        (None, []) => {
            return Err(Error::input(
                format!("{place} does not say which GPU its times are of"),
                "give --gpu NAME, or a column gpu",
            ));
        }
        (None, [only]) => *only,
        (Some(asked), []) => asked,
        (None, several) => {
            return Err(Error::input(
                format!("{place} holds times of different GPUs ({})", nearest::some_of(several.iter().copied(), 6)),
                "import one at a time with --gpu NAME, each into its own folder",
            ));
        }
        (Some(asked), names) if names.contains(&asked) => asked,
        (Some(asked), names) => {
            return Err(Error::input(
                format!("{place} has no row of --gpu {asked}"),
                nearest::cure(asked, names.iter().copied()),
            ));
        }
    };
    let all = rows.len();
    let kept: Vec<Row> = rows.into_iter().filter(|row| row.text("gpu").is_none_or(|name| name == gpu)).collect();
    let left_out = (kept.len() < all).then(|| format!("left out: rows of other GPUs than {gpu}: {}", all - kept.len()));
    Ok((gpu.to_string(), kept, left_out))
}

/// Cases under way, by name: the same one twice is one if its times are the same, and refused otherwise.
#[derive(Debug, Default)]
pub(super) struct Seen {
    cases: BTreeMap<String, (String, Vec<Interval>)>,
    repeated: usize,
}

impl Seen {
    /// Whether this is the first row of the case.
    pub(super) fn first(&mut self, row: &Row, case: &str, times: &[Interval]) -> Result<bool> {
        match self.cases.get(case) {
            None => {
                self.cases.insert(case.to_string(), (row.place.clone(), times.to_vec()));
                Ok(true)
            }
            Some((_, before)) if before == times => {
                self.repeated += 1;
                Ok(false)
            }
            Some((before, _)) => Err(row.refused(
                format_args!("{case} stands in {before} too, with another time"),
                "keep one of the two rows, or their median",
            )),
        }
    }

    /// What is to be said of rows that came again.
    pub(super) fn note(&self) -> Option<String> {
        (self.repeated > 0).then(|| format!("left out as repeated: {}", crate::units::counted(self.repeated, "row")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = Columns { row: "thing", known: &["name", "size", "time_ms", "gpu"], needed: &["size"] };

    fn read(text: &str) -> Result<Vec<Row>> {
        rows(&[TextFile { place: "t.csv".into(), text: text.into() }], &COLUMNS)
    }

    #[test]
    fn cells_are_divided_quoted_and_counted() {
        assert_eq!(cells("a, b ,,c").unwrap(), ["a", "b", "", "c"]);
        assert_eq!(cells(r#""a, ""b""" , c,"#).unwrap(), [r#"a, "b""#, "c", ""]);
        assert_eq!(cells(r#""a"#), None);
        assert_eq!(cells(r#""a" b"#), None);
    }

    #[test]
    fn csv_and_json_lines_are_the_same_rows() {
        let csv = "\u{feff}# made by hand\nname,size,time_ms\n\n\"a, b\",8,1.5\nc,16.0,\n";
        let json = "{\"name\":\"a, b\",\"size\":8,\"time_ms\":1.5}\n{\"name\":\"c\",\"size\":16.0,\"time_ms\":null}\n";
        for text in [csv, json] {
            let rows = read(text).unwrap();
            let sizes: Vec<u64> = rows.iter().map(|row| row.needed_count("size").unwrap()).collect();
            assert_eq!((rows[0].text("name"), sizes), (Some("a, b"), vec![8, 16]));
            assert_eq!((rows[0].number("time_ms").unwrap(), rows[1].number("time_ms").unwrap()), (Some(1.5), None));
        }
        assert_eq!(read(csv).unwrap()[1].place, "t.csv:5");
    }

    #[test]
    fn a_table_that_is_none_is_refused_with_its_place() {
        for (text, says) in [
            ("", "t.csv is empty"),
            ("# nothing\n", "t.csv has no row"),
            ("size\n", "t.csv has no row"),
            ("8,9\n", "t.csv:1 is no header"),
            ("size;name\n8;a\n", "t.csv:1 has no comma"),
            ("size,tine_ms\n8,1\n", "t.csv:1 has a column `tine_ms` that is unknown; did you mean `time_ms`?"),
            ("size,size\n8,1\n", "t.csv:1 names the column size twice"),
            ("name\na\n", "t.csv:1 has no column size"),
            ("size,name\n8\n", "t.csv:2 has 1 cells, the header 2: it is cut off"),
            ("size,name\n8,a,b\n", "t.csv:2 has 3 cells, the header 2;"),
            ("size,name\n8,\"a\n", "t.csv:2 opens a quote"),
            ("{\"size\":8}\n{\"size\":", "t.csv:2 is cut off"),
            ("[{\"size\":8}]", "t.csv:1 is no JSON object"),
            ("{\"siz\":8}", "did you mean `size`?"),
            ("{\"size\":[8]}", "t.csv:1: size is a list"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says) && error.lines().count() == 1, "{text:?}: {error}");
        }
    }

    #[test]
    fn cells_that_are_not_what_they_must_be_are_named() {
        let row = &read("size,time_ms,name\n1.5,-1,x\n").unwrap()[0];
        let says = |error: Error, says: &str| assert!(error.to_string().starts_with(says), "{error}");
        says(row.count("size").unwrap_err(), "t.csv:2: size is `1.5`, no whole number");
        says(row.number("time_ms").unwrap_err(), "t.csv:2: time_ms is -1;");
        says(row.number("name").unwrap_err(), "t.csv:2: name is `x`, not a number");
        says(row.truth("name").unwrap_err(), "t.csv:2: name is `x`; give true or false");
        says(row.needed_count("gpu").unwrap_err(), "t.csv:2: gpu is not given");
        says(row.one_of("name", &["y", "z"], |n| n).unwrap_err(), "t.csv:2: name is `x`, which is unknown");
        let infinite = &read("size,time_ms\n0,inf\n").unwrap()[0];
        assert!(infinite.count("size").is_err() && infinite.number("time_ms").is_err());
    }

    #[test]
    fn one_gpu_is_told_from_several() {
        let two = || read("size,gpu\n1,a100\n2,h100\n3,\n").unwrap();
        let error = of_one_gpu(two(), None).unwrap_err().to_string();
        assert!(error.contains("different GPUs (a100, h100)") && error.contains("--gpu"), "{error}");
        let (gpu, rows, note) = of_one_gpu(two(), Some("h100")).unwrap();
        assert_eq!((gpu.as_str(), rows.len(), note.is_some()), ("h100", 2, true));
        assert!(of_one_gpu(two(), Some("h10")).unwrap_err().to_string().contains("did you mean `h100`?"));
        let none = || read("size\n1\n").unwrap();
        assert!(of_one_gpu(none(), None).unwrap_err().to_string().contains("does not say which GPU"));
        assert_eq!(of_one_gpu(none(), Some("v100")).unwrap().0, "v100");
    }
}
