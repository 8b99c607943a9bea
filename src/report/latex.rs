//! Tables as LaTeX, for papers: `booktabs` rules in a `longtable`, which goes over pages and needs no float.

use super::Table;
use super::table::starts_like_a_number;
use crate::records::machine::slug;

/// Widths of a page's text upright and turned, in points: of an article on Letter paper, which is narrower than others.
const UPRIGHT_PT: f64 = 345.0;
const TURNED_PT: f64 = 550.0;
/// Sizes of type in a document of 10 pt, with the mean width of a letter in points and the room beside a column.
const SIZES: [(&str, f64, f64); 5] = [
    ("normalsize", 5.2, 6.0),
    ("small", 4.7, 5.0),
    ("footnotesize", 4.2, 4.0),
    ("scriptsize", 3.7, 3.0),
    ("tiny", 2.9, 2.0),
];

/// The table with its title and note as caption, in the largest type that it fits a page in, turned where no readable one does. A
/// document needs `\usepackage{booktabs,longtable,pdflscape}`.
pub fn table(table: &Table) -> String {
    let alignment: String = (0..table.header.len())
        .map(|index| if table.rows.iter().all(|row| starts_like_a_number(&row[index])) { 'r' } else { 'l' })
        .collect();
    let header = row(&table.header);
    let fits = |room: f64, sizes: &[(&'static str, f64, f64)]| {
        sizes.iter().copied().find(|size| width_pt(table, *size) <= room)
    };
    // Upright down to 7 pt, turned down to 5 pt.
    let upright = fits(UPRIGHT_PT, &SIZES[..4]);
    let (size, _, room) = upright.or_else(|| fits(TURNED_PT, &SIZES)).unwrap_or(SIZES[4]);
    let (open, close) = if upright.is_some() { ("", "") } else { ("\\begin{landscape}\n", "\\end{landscape}\n") };
    let mut text = format!(
        "{open}{{\\{size}\\setlength{{\\tabcolsep}}{{{room}pt}}\n\\begin{{longtable}}{{{alignment}}}\n\\caption{{{}. {}}}\\label{{tab:{}}}\\\\\n\\toprule\n{header}\\midrule\n\\endfirsthead\n\
         \\toprule\n{header}\\midrule\n\\endhead\n\\bottomrule\n\\endfoot\n",
        escaped(&table.title),
        escaped(&table.note),
        slug(&table.title)
    );
    table.rows.iter().for_each(|cells| text += &row(cells));
    text + "\\end{longtable}}\n" + close
}

/// How wide the table is in this type, in points.
fn width_pt(table: &Table, (_, letter, room): (&str, f64, f64)) -> f64 {
    let length = |text: &String| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let column = |index: usize| {
        let cells = table.rows.iter().filter_map(|row| row.get(index)).map(length);
        cells.chain([length(&table.header[index])]).max().unwrap_or(0)
    };
    (0..table.header.len()).map(|index| letter * column(index) as f64 + 2.0 * room).sum()
}

/// Text that LaTeX does not print, a comment a line.
pub fn comment(text: &str) -> String {
    text.lines().map(|line| format!("% {line}\n")).collect()
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| escaped(&cell.replace('\n', " "))).collect();
    format!("{} \\\\\n", cells.join(" & "))
}

/// The text as LaTeX prints it: what it takes for commands is escaped, signs that its fonts lack are commands.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(c);
            }
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '<' => escaped += "\\textless{}",
            '>' => escaped += "\\textgreater{}",
            '±' => escaped += "$\\pm$",
            '×' => escaped += "$\\times$",
            '÷' => escaped += "$\\div$",
            '·' => escaped += "$\\cdot$",
            '−' => escaped += "$-$",
            '≤' => escaped += "$\\le$",
            '≥' => escaped += "$\\ge$",
            '→' => escaped += "$\\to$",
            'µ' | 'μ' => escaped += "$\\mu$",
            '°' => escaped += "$^\\circ$",
            '–' => escaped += "--",
            '—' => escaped += "---",
            '…' => escaped += "\\dots{}",
            '²' => escaped += "$^2$",
            '³' => escaped += "$^3$",
            // Fonts of most documents know letters of Europe's languages, and no more.
            c if c.is_control() || c > '\u{17f}' => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_latex_takes_for_commands_is_escaped() {
        let mut shown = Table::new("Rows & more", "b ÷ a.", &["case", "time"]);
        shown.row(["gpt_h4096 100%", "1.5 µs ±2%"].map(String::from).to_vec());
        let text = table(&shown);
        assert!(
            text.contains(
                "\\begin{longtable}{lr}\n\\caption{Rows \\& more. b $\\div$ a.}\\label{tab:rows-more}\\\\\n\\toprule\n"
            ),
            "{text}"
        );
        assert!(text.contains("\ngpt\\_h4096 100\\% & 1.5 $\\mu$s $\\pm$2\\% \\\\\n\\end{longtable}}\n"), "{text}");
        assert_eq!(comment("a\nb"), "% a\n% b\n");
    }
}
