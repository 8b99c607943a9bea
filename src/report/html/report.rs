//! The page of `bubblebench report`: what was measured where, every figure with its numbers, and the tables beside them. One
//! file, which asks nothing of any network.

use super::page::{self, escape};
use crate::Result;
use crate::figures::chart::Quantity;
use crate::figures::figure::Figure;
use crate::figures::{ReportSide, has_time};
use crate::records::Measurement;
use crate::records::flags::{NOISY, SOFTWARE};
use crate::records::measurement::Kind;
use crate::report::figure::{self, Background, FigureWidth, in_unit};
use crate::report::{Table, provenance, tables};
use crate::units::counted;
use std::fmt::Write;

/// A page that is longer is made with fewer rows.
const MOST_BYTES: usize = 2_900_000;

/// Rows of a figure's numbers that the page has at most; its CSV has all.
const ROWS: usize = 200;

/// The whole page; `notes` say what of the folders is not shown. Where it would be too long for a mail, it has fewer rows.
pub fn html(sides: &[ReportSide], figures: &[Figure], notes: &[String]) -> Result<String> {
    let drawn = figures.iter().map(|figure| Ok((figure, picture(figure)?))).collect::<Result<Vec<_>>>()?;
    let mut page = with_rows(sides, &drawn, notes, ROWS);
    for rows in [ROWS / 4, ROWS / 20] {
        if page.len() > MOST_BYTES {
            page = with_rows(sides, &drawn, notes, rows);
        }
    }
    Ok(page)
}

/// A figure in both of its widths.
fn picture(figure: &Figure) -> Result<String> {
    let drawn = |width| figure::svg(figure, width, Background::None);
    Ok(page::paper(&drawn(FigureWidth::Column)?, &drawn(FigureWidth::Page)?))
}

fn with_rows(sides: &[ReportSide], drawn: &[(&Figure, String)], notes: &[String], rows: usize) -> String {
    let mut body = head(sides);
    body += &page::section("What was measured, and where", "Facts that times depend on.", &page::table(&facts(sides)));
    body += &told(sides, notes);
    body += &cards(sides);
    body += &contents(drawn);
    for (figure, picture) in drawn {
        body += &section(figure, picture, rows);
    }
    body += &further_tables(sides, rows);
    let _ = write!(
        body,
        "<footer>Made by <code>bubblebench report</code>, version {}. Every method: docs/method.md; every word and flag: \
         docs/reading.md; figures as files: <code>--figures DIR</code>.</footer>",
        env!("CARGO_PKG_VERSION")
    );
    page::page_of_figures(&title(sides), &body)
}

fn title(sides: &[ReportSide]) -> String {
    let device = |side: &ReportSide| side.machine.as_ref().map_or(side.name.clone(), provenance::device);
    match sides {
        [side] => format!("Measurements of {}", device(side)),
        _ => format!("Measurements of {}", sides.iter().map(|side| side.name.as_str()).collect::<Vec<_>>().join(", ")),
    }
}

fn head(sides: &[ReportSide]) -> String {
    let mut html = format!("<h1>{}</h1>\n", escape(&title(sides)));
    for side in sides {
        let line = match &side.machine {
            Some(machine) => provenance::citation(machine),
            None => format!("{}: a file without its machine.json.", side.name),
        };
        let _ = writeln!(html, "<p class=\"sub\">{}</p>", escape(&line));
    }
    if sides.iter().any(|side| side.records.iter().any(|record| record.has_flag(SOFTWARE))) {
        html +=
            "<p class=\"verdict warn\">Measured on the software device: results are right, times mean nothing.</p>\n";
    }
    html
}

/// A row a fact that any side knows, a column a side.
fn facts(sides: &[ReportSide]) -> Table {
    let known: Vec<Vec<(&str, String)>> =
        sides.iter().map(|side| side.machine.as_ref().map(provenance::facts).unwrap_or_default()).collect();
    let header: Vec<&str> = std::iter::once("what").chain(sides.iter().map(|side| side.name.as_str())).collect();
    let mut table = Table::new("", "", &header);
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in known.iter().max_by_key(|facts| facts.len()).into_iter().chain(&known).flatten() {
        if !names.contains(name) {
            names.push(name);
        }
    }
    for name in names {
        let value = |facts: &Vec<(&str, String)>| {
            facts.iter().find(|(known, _)| *known == name).map_or("–".to_string(), |(_, value)| value.clone())
        };
        table.row(std::iter::once(name.to_string()).chain(known.iter().map(value)).collect());
    }
    let cases = |side: &ReportSide| side.records.len().to_string();
    table.row(std::iter::once("cases".to_string()).chain(sides.iter().map(cases)).collect());
    table
}

fn told(sides: &[ReportSide], notes: &[String]) -> String {
    let mut list: Vec<String> = notes.to_vec();
    for side in sides {
        let noisy = side.records.iter().filter(|record| record.has_flag(NOISY)).count();
        if noisy > 0 {
            list.push(format!(
                "{}: {noisy} of {} are noisy, their 95 % interval is wider than 2 % of the median",
                side.name,
                counted(side.records.len(), "case")
            ));
        }
    }
    if list.is_empty() {
        return String::new();
    }
    let items: String = list.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    format!("<ul style=\"margin-top:14px\">{items}</ul>\n")
}

/// The largest numbers of the first side, which the figures show where they come from.
fn cards(sides: &[ReportSide]) -> String {
    let mut html = String::new();
    for side in sides {
        let best = |of: &dyn Fn(&Measurement) -> Option<f64>| {
            let values =
                side.records.iter().filter(|r| has_time(r)).filter_map(|r| Some((of(r).filter(|v| v.is_finite())?, r)));
            values.max_by(|a, b| a.0.total_cmp(&b.0))
        };
        let rate = best(&|r| (r.kind == Kind::Operation).then_some(r.flop? / r.median_ns.filter(|ns| *ns > 0.0)?));
        let layer = best(&|r| (r.kind == Kind::Layer).then_some(r.flop? / r.median_ns.filter(|ns| *ns > 0.0)?));
        let bandwidth = best(&|r| r.busbw_gb_per_s.filter(|_| r.param_str("operation") == Some("all_reduce")));
        let error = side.model.as_ref().and_then(|m| m.accuracy.iter().find(|a| a.what == "layer"));
        let told = |found: Option<(f64, &Measurement)>, quantity| {
            found.map(|(value, record)| (in_unit(value, quantity), record.id.clone()))
        };
        let all = [
            ("fastest operation", told(rate, Quantity::GigaflopPerSecond)),
            ("fastest layer phase", told(layer, Quantity::GigaflopPerSecond)),
            ("all-reduce, bus bandwidth", told(bandwidth, Quantity::GigabytePerSecond)),
            (
                "error on layers held out",
                error.map(|a| (format!("{:.1} %", a.mape_percent), format!("mean of {}", counted(a.held_out, "case")))),
            ),
        ];
        let cards: String = all.into_iter().filter_map(|(key, found)| Some(card(key, &found?))).collect();
        if cards.is_empty() {
            continue;
        }
        let name =
            if sides.len() > 1 { format!("<p class=\"lead\">{}</p>\n", escape(&side.name)) } else { String::new() };
        let _ = writeln!(html, "<section>{name}<div class=\"cards\">{cards}</div></section>");
    }
    html
}

fn card(key: &str, (value, detail): &(String, String)) -> String {
    format!(
        "<div class=\"card\"><div class=\"k\">{}</div><div class=\"v\">{}</div><div class=\"d\">{}</div></div>",
        escape(key),
        escape(value),
        page::breakable(detail)
    )
}

fn contents(drawn: &[(&Figure, String)]) -> String {
    let item = |(figure, _): &(&Figure, String)| {
        format!("<li><a href=\"#{}\">{}</a></li>", escape(&figure.name), escape(&figure.title))
    };
    let items: String = drawn.iter().map(item).collect();
    format!("<section><nav aria-label=\"Figures\"><h2>Figures</h2><ul>{items}</ul></nav></section>\n")
}

/// A figure with its caption, and its numbers below it.
fn section(figure: &Figure, picture: &str, rows: usize) -> String {
    let count = figure.data.rows.len();
    let rest = if count > rows {
        format!(", the first {rows}; all are in {}.csv of --figures", figure.name)
    } else {
        String::new()
    };
    format!(
        "<section id=\"{}\">\n<div class=\"whole\"><h2>{}</h2>\n<p class=\"lead\">{}</p>\n{}</div>\n<details><summary>Numbers of “{}”: {}{}</summary>{}</details>\n</section>\n",
        escape(&figure.name),
        escape(&figure.title),
        escape(&figure.caption),
        picture,
        escape(&figure.title),
        counted(count, "row"),
        escape(&rest),
        page::table(&figure::table(figure, rows))
    )
}

/// Tables whose rows no figure shows.
fn further_tables(sides: &[ReportSide], rows: usize) -> String {
    let mut html = String::new();
    for side in sides {
        for mut table in tables::without_figures(&side.records, side.model.as_ref()) {
            let more = table.rows.len().saturating_sub(rows);
            table.rows.truncate(rows);
            if more > 0 {
                table.note += &format!(" {more} more rows are in tables.md.");
            }
            let heading = if sides.len() > 1 { format!("{}, {}", table.title, side.name) } else { table.title.clone() };
            html += &page::section(&heading, &table.note, &page::table(&table));
        }
    }
    html
}
