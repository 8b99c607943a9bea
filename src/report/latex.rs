//! Tables as LaTeX, for papers: `booktabs` rules in a `longtable`, which goes over pages and needs no float.

use super::Table;
use super::table::starts_like_a_number;

/// The table with its title and note as caption. A document needs `\usepackage{booktabs,longtable}`.
pub fn table(table: &Table) -> String {
    let alignment: String = (0..table.header.len())
        .map(|index| if table.rows.iter().all(|row| starts_like_a_number(&row[index])) { 'r' } else { 'l' })
        .collect();
    let header = row(&table.header);
    let mut text = format!(
        "\\begin{{longtable}}{{{alignment}}}\n\\caption{{{}. {}}}\\\\\n\\toprule\n{header}\\midrule\n\\endfirsthead\n\
         \\toprule\n{header}\\midrule\n\\endhead\n\\bottomrule\n\\endfoot\n",
        escaped(&table.title),
        escaped(&table.note)
    );
    table.rows.iter().for_each(|cells| text += &row(cells));
    text + "\\end{longtable}\n"
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
            c if c.is_control() => escaped.push('?'),
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
            text.starts_with("\\begin{longtable}{lr}\n\\caption{Rows \\& more. b $\\div$ a.}\\\\\n\\toprule\n"),
            "{text}"
        );
        assert!(text.contains("\ngpt\\_h4096 100\\% & 1.5 $\\mu$s $\\pm$2\\% \\\\\n\\end{longtable}\n"), "{text}");
        assert_eq!(comment("a\nb"), "% a\n% b\n");
    }
}
