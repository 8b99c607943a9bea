//! The frame of a page: head, style sheet with a light and a dark palette, sections, tables out of [`Table`].

use crate::report::Table;
use crate::report::figure::palette;
use crate::report::screen::harmless;
use std::fmt::Write;

/// Text that stands in a page as it is, quotes too.
pub fn escape(text: &str) -> String {
    // XML knows no control characters, and none of the two last of each plane.
    harmless(text)
        .replace(['\u{fffe}', '\u{ffff}'], "?")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Text of a name that may go over lines behind each of its parts.
pub fn breakable(name: &str) -> String {
    escape(name).replace('/', "/<wbr>").replace('_', "_<wbr>")
}

/// A whole page around its body.
pub fn page(title: &str, body: &str) -> String {
    framed(title, "", STYLE, body)
}

/// A whole page of figures that are files of their own too.
pub fn page_of_figures(title: &str, body: &str) -> String {
    framed(title, " class=\"narrow\"", &format!("{STYLE}{}", dark_figures()), body)
}

fn framed(title: &str, class: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"generator\" content=\"bubblebench {}\">\n<title>{}</title>\n<style>{style}</style>\n</head>\n<body{class}>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(title)
    )
}

/// A section with a heading, a paragraph that says what is seen, and the thing itself.
pub fn section(heading: &str, lead: &str, content: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n<p class=\"lead\">{}</p>\n{content}\n</section>\n", escape(heading), escape(lead))
}

/// A picture that scrolls sideways on a narrow screen.
pub fn figure(svg: &str, legend: &[(&str, String)]) -> String {
    let mut keys = String::new();
    for (class, name) in legend {
        let _ = write!(
            keys,
            "<span class=\"key\"><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"14\" height=\"14\" rx=\"3\"/></svg>{}</span>",
            escape(name)
        );
    }
    format!("<figure><div class=\"scroll\">{svg}</div><figcaption>{keys}</figcaption></figure>")
}

/// Numbers to the right, names to the left, as in the terminal.
pub fn table(table: &Table) -> String {
    let numeric: Vec<bool> = (0..table.header.len())
        .map(|c| {
            table.rows.iter().all(|row| row.get(c).is_none_or(|cell| crate::report::table::starts_like_a_number(cell)))
        })
        .collect();
    let class = |c: usize| if numeric.get(c).copied().unwrap_or(false) { " class=\"n\"" } else { "" };
    let mut html = String::from("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for (c, name) in table.header.iter().enumerate() {
        let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(c), escape(name));
    }
    html.push_str("</tr></thead><tbody>");
    let mut before: Option<&str> = None;
    for row in &table.rows {
        // Rows of the same stage stand together.
        let first = row.first().map(String::as_str);
        html.push_str(if before.is_some() && before != first { "<tr class=\"new\">" } else { "<tr>" });
        before = first;
        for (c, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(c), breakable(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

const STYLE: &str = r#"
:root{color-scheme:light dark;--bg:#fbfaf8;--card:#fff;--ink:#1d2129;--soft:#5d6570;--line:#e3e1dc;--grid:#ecebe6;
--f:#3f6fb5;--b:#2b9a8b;--w:#93c6d6;--idle:#f1efe9;--hatch:#d9d5ca;--s0:#e58a2b;--s1:#c4508f;--s2:#8a63c8;--s3:#b0a02c;
--static:#9aa4b2;--act:#3f6fb5;--limit:#c43d3d;--good:#2b8a5a;--on:#fff}
@media screen and (prefers-color-scheme:dark){:root{--bg:#14171c;--card:#1b1f26;--ink:#e7e9ed;--soft:#9aa3af;--line:#2d333d;--grid:#262c35;
--f:#6495db;--b:#3fb8a6;--w:#4b7f93;--idle:#20252d;--hatch:#363d49;--s0:#f0a04b;--s1:#e079b3;--s2:#a98be0;--s3:#cdbf4e;
--static:#646e7c;--act:#6495db;--limit:#ef6b6b;--good:#5cc48e;--on:#10131a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:20px;margin:0 0 4px}
.sub{color:var(--soft);margin:0 0 26px}
.lead{color:var(--soft);margin:0 0 14px;max-width:108ch}
.verdict{font-size:1.15em;font-weight:600;margin:0 0 14px;max-width:90ch}
section{margin-top:40px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(205px,1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 18px}
.card .k{color:var(--soft);font-size:13.5px}
.card .v{font-size:28px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.card .d{color:var(--soft);font-size:13.5px;line-height:1.4}
.good .v{color:var(--good)}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 16px 12px}
.scroll{overflow-x:auto}
figure .scroll>svg{display:block;width:100%;min-width:720px;height:auto}
figcaption{display:flex;flex-wrap:wrap;gap:6px 18px;margin-top:10px;font-size:13.5px;color:var(--soft)}
.key{display:inline-flex;align-items:center;gap:7px}
.key svg{width:13px;height:13px} .key rect{stroke:var(--line)}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums;background:var(--card)}
.scroll:has(>table){border:1px solid var(--line);border-radius:12px}
th{font-weight:600;text-align:left;color:var(--soft);font-size:13px;border-bottom:1px solid var(--line)}
th,td{padding:7px 12px;white-space:nowrap}
tr.new td{border-top:1px solid var(--grid)}
.n{text-align:right}
ul{margin:0;padding-left:20px;max-width:108ch}
li{margin:5px 0}
code{font:13.5px/1.4 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;background:var(--idle);padding:1px 5px;border-radius:5px}
footer{margin-top:48px;color:var(--soft);font-size:13.5px;border-top:1px solid var(--line);padding-top:14px}
.scroll svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
.scroll svg text.soft{fill:var(--soft)} .scroll svg text.on{fill:var(--on);font-size:10px} .scroll svg text.strong{font-weight:650}
.f,.c{fill:var(--f)} .b{fill:var(--b)} .w{fill:var(--w)} .idle{fill:var(--idle)}
.s0{fill:var(--s0)} .s1{fill:var(--s1)} .s2{fill:var(--s2)} .s3{fill:var(--s3)}
.static{fill:var(--static)} .act{fill:var(--act);fill-opacity:.75} .lane{fill:var(--idle)} .shut{fill:var(--hatch)}
.held{fill:var(--s0);fill-opacity:.45} .run{fill:var(--s0)}
.ends{stroke:var(--ink);stroke-width:1.5} .gain{fill:var(--f)} .gainf{fill:var(--s0)} .none{fill:var(--hatch)}
.grid{stroke:var(--grid);stroke-width:1} .axis{stroke:var(--line);stroke-width:1}
.limit{stroke:var(--limit);stroke-width:1.3;stroke-dasharray:5 4;fill:none} .scroll svg text.limit{stroke:none;fill:var(--limit)}
nav ul{columns:2;gap:24px;list-style:none;padding:0} nav a{color:inherit}
nav a,h2 a{text-decoration-color:var(--soft);text-underline-offset:3px}
details{margin-top:10px} summary{cursor:pointer;color:var(--soft);font-size:14px;padding:4px 0}
.warn{border-left:4px solid var(--limit);padding:2px 0 2px 12px}
.paper>svg{display:block;width:100%;height:auto} .paper>svg.column{display:none;max-width:520px;margin:0 auto}
.narrow main{max-width:980px} .narrow .card .v{font-size:22px;white-space:nowrap} nav ul{margin-top:8px} nav li{margin:0 0 5px}
@media screen and (max-width:760px){main{padding:24px 14px 48px} nav ul{columns:1} .paper{padding:12px 8px}
.paper>svg.column{display:block} .paper>svg.page{display:none}}
@page{margin:12mm}
@media print{body{background:#fff;font-size:10.5pt} main{max-width:none;padding:0} section{margin-top:20px}
h1,h2,.lead,summary{break-after:avoid} figure,.card,tr,nav,.lead,.whole{break-inside:avoid} thead{display:table-header-group}
.scroll{overflow:visible} figure .scroll>svg{min-width:0} .scroll>svg text,.scroll>svg text.soft{font-size:15px} .scroll>svg text.on{font-size:11px}
.cards{grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:8px} .card{padding:10px 12px} .card .v,.narrow .card .v{font-size:13pt}
table{font-size:7.5pt} th,td{padding:2px 5px;white-space:normal;overflow-wrap:anywhere} th{font-size:7pt}
td{min-width:3.6em} td.n,th{overflow-wrap:normal;min-width:0} td.n{white-space:nowrap} details::details-content{content-visibility:visible;display:block;height:auto}}
"#;

/// What figures drawn in the colours of [`palette`] wear where the reader's system is dark.
fn dark_figures() -> String {
    let series = ["#6BB5EC", "#F08A4B", "#46C79E", "#E3A3C6", "#F0BC4E", "#9AD2F5"];
    let others = [
        (palette::INK, "var(--ink)"),
        (palette::SOFT, "var(--soft)"),
        (palette::GRID, "var(--grid)"),
        (palette::BUBBLE, "var(--idle)"),
    ];
    let mut css = String::from("@media screen and (prefers-color-scheme:dark){");
    for (from, to) in palette::SERIES.into_iter().zip(series).chain(others) {
        let _ = write!(css, ".paper [fill=\"{from}\"]{{fill:{to}}}.paper [stroke=\"{from}\"]{{stroke:{to}}}");
    }
    css + "}\n"
}

/// A figure of a report in both of its widths, of which a screen shows the one it has room for.
pub fn paper(column: &str, page: &str) -> String {
    let classed = |svg: &str, class: &str| svg.replacen("<svg ", &format!("<svg class=\"{class}\" "), 1);
    format!("<figure class=\"paper\">{}{}</figure>", classed(page, "page"), classed(column, "column"))
}
