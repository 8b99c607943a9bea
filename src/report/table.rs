//! One table, two renderings: `comfy-table` in the terminal, and Markdown a person can paste.
//!
//! In the terminal a table fits the screen. One that is too wide first breaks its headings, then leaves out the columns that
//! [`Table::spare`] names, in that order, and says so below; what is too wide even so is printed as a record a row. A cell
//! is never cut or broken.

use super::screen::{Screen, harmless};
use comfy_table::presets::{ASCII_FULL_CONDENSED, ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, TableStyle};

/// What keeps the cells of a record apart.
const BETWEEN: &str = "   ";

/// A table of text that was made of numbers already, with its title and a sentence on what they are.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// What stands above the table, and is its heading in Markdown.
    pub title: String,
    /// One sentence under the title: what the numbers are.
    pub note: String,
    /// A heading a column.
    pub header: Vec<String>,
    /// The cells, row by row; each row has as many as there are headings.
    pub rows: Vec<Vec<String>>,
    /// Headings of columns that a narrow screen can do without, the first to go first.
    spare: Vec<String>,
    /// How many columns from the left name a row.
    keys: usize,
}

impl Table {
    /// A table without rows.
    pub fn new(title: &str, note: &str, header: &[&str]) -> Self {
        Table {
            title: title.into(),
            note: note.into(),
            header: header.iter().map(|h| (*h).into()).collect(),
            rows: Vec::new(),
            spare: Vec::new(),
            keys: 1,
        }
    }

    /// Names the columns that a narrow screen can do without, the first to go first.
    pub fn spare(mut self, headings: &[&str]) -> Self {
        debug_assert!(headings.iter().all(|h| self.header.iter().any(|known| known == h)), "{}", self.title);
        self.spare = headings.iter().map(|h| (*h).into()).collect();
        self
    }

    /// Says that a row is named by so many columns from the left; else it is the first alone.
    pub fn keys(mut self, columns: usize) -> Self {
        self.keys = columns;
        self
    }

    /// Adds a row below the others.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len(), "{}", self.title);
        self.rows.push(cells);
    }

    /// Whether it has no rows, and is not worth printing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn build(&self, style: TableStyle) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(&self.header);
        for row in &self.rows {
            table.add_row(row);
        }
        // Names to the left, numbers to the right.
        for (index, column) in table.column_iter_mut().enumerate() {
            let numbers = self.rows.iter().all(|row| row.get(index).is_none_or(|cell| starts_like_a_number(cell)));
            column.set_cell_alignment(if numbers { CellAlignment::Right } else { CellAlignment::Left });
        }
        table
    }

    /// Title, note and the table as wide as the screen allows, a line's end behind it.
    pub fn terminal(&self, screen: Screen) -> String {
        let (title, note) = (screen.prose(&self.title, 2), screen.prose(&self.note, 0));
        let mut table = self.shown_on(screen);
        let style = if screen.ascii { ASCII_FULL_CONDENSED } else { UTF8_FULL_CONDENSED };
        if screen.is_narrower_than(table.width()) {
            table.break_headings(screen);
        }
        let left_out = table.leave_out_spares(screen);
        let Some(columns) = screen.columns.filter(|columns| *columns < table.width()) else {
            return format!("{title}\n{note}\n{}\n{}", table.build(style), below(&left_out, screen));
        };
        // Records have room for every column.
        format!("{title}\n{note}\n{}", self.shown_on(screen).records(columns))
    }

    /// Title, note and the whole table as Markdown, whatever the screen.
    pub fn markdown(&self) -> String {
        let cell = |text: &String| harmless(&text.replace('\n', " ")).replace('|', "\\|");
        let cells = |row: &Vec<String>| row.iter().map(cell).collect();
        let escaped =
            Table { header: cells(&self.header), rows: self.rows.iter().map(cells).collect(), ..self.clone() };
        format!("## {}\n\n{}\n\n{}\n", self.title, self.note, escaped.build(ASCII_MARKDOWN))
    }

    /// Its cells in characters that the screen shows.
    fn shown_on(&self, screen: Screen) -> Table {
        let text = |cells: &Vec<String>| cells.iter().map(|cell| screen.text(cell)).collect();
        Table {
            header: text(&self.header),
            rows: self.rows.iter().map(text).collect(),
            spare: text(&self.spare),
            ..self.clone()
        }
    }

    fn column_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| length(cell)).max().unwrap_or(0);
        cells.max(self.header[index].lines().map(length).max().unwrap_or(0))
    }

    /// With a blank on either side of every cell and a border around it.
    fn width(&self) -> usize {
        1 + (0..self.header.len()).map(|index| self.column_width(index) + 3).sum::<usize>()
    }

    /// Headings of several words that are wider than their cells go over several lines.
    fn break_headings(&mut self, screen: Screen) {
        for index in 0..self.header.len() {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| length(cell)).max().unwrap_or(0);
            let longest = self.header[index].split(' ').map(length).max().unwrap_or(0);
            let narrow = Screen { columns: Some(cells.max(longest)), ..screen };
            self.header[index] = narrow.prose(&self.header[index], 0);
        }
    }

    /// Leaves out spare columns until the rest fits, and gives their headings in that order.
    fn leave_out_spares(&mut self, screen: Screen) -> Vec<String> {
        let mut left_out = Vec::new();
        for heading in self.spare.clone() {
            if !screen.is_narrower_than(self.width()) {
                break;
            }
            let Some(index) = self.header.iter().position(|h| h.replace('\n', " ") == heading) else { continue };
            self.header.remove(index);
            self.rows.iter_mut().for_each(|row| drop(row.remove(index)));
            left_out.push(heading);
        }
        left_out
    }

    /// A cell with its heading, as wide as the widest of its column.
    fn recorded(&self, row: &[String], index: usize) -> String {
        let width = self.rows.iter().map(|row| length(&row[index])).max().unwrap_or(0);
        format!("{} {:<width$}", self.header[index], row[index])
    }

    /// A row as a line that names it, and below it its cells, as many a line as there is room for.
    fn records(&self, columns: usize) -> String {
        let screen = Screen::wide(columns);
        let mut text = String::new();
        for row in &self.rows {
            let names: Vec<&str> =
                row.iter().take(self.keys).map(String::as_str).filter(|cell| !cell.is_empty()).collect();
            text += &screen.prose(&format!("{}\n", names.join("  ")), 2);
            let cells = (self.keys..row.len()).filter(|index| !row[*index].is_empty());
            text += &flow(cells.map(|index| self.recorded(row, index)), columns);
        }
        text
    }
}

/// Indented lines of as many cells as there is room for; what is below each other begins in one column where it can.
fn flow(cells: impl Iterator<Item = String>, columns: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cell in cells {
        match lines.last_mut() {
            Some(line) if length(line) + length(BETWEEN) + length(cell.trim_end()) <= columns => {
                *line += BETWEEN;
                *line += &cell;
            }
            _ => lines.push(format!("  {cell}")),
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What a table on a narrow screen says of the columns it does not show.
fn below(left_out: &[String], screen: Screen) -> String {
    match (left_out, screen.columns) {
        ([], _) | (_, None) => String::new(),
        (headings, Some(columns)) => {
            let line = format!("left out at {columns} columns: {}; a wider screen shows them\n", headings.join(", "));
            screen.prose(&line, 0)
        }
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Whether a cell is shown to the right, as numbers are, with their signs and the dash for none.
pub fn starts_like_a_number(cell: &str) -> bool {
    cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "+-–±".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Table {
        let header = ["shape", "time", "backward to inputs", "p99", "GB/s"];
        let mut table = Table::new("Layers", "Median times.", &header).spare(&["p99", "GB/s"]);
        table.row(["h512", "1.25 ms ±1%", "3.5", "1.875 ms", "12.5"].map(String::from).to_vec());
        table
    }

    fn widest(text: &str) -> usize {
        text.lines().map(length).max().unwrap_or(0)
    }

    #[test]
    fn markdown_can_be_pasted() {
        let text = layers().markdown();
        assert!(text.starts_with("## Layers\n\nMedian times.\n\n| shape |"), "{text}");
        assert!(text.contains("| h512  | 1.25 ms ±1% |"), "{text}");
    }

    #[test]
    fn bars_and_line_ends_in_names_do_not_break_a_markdown_table() {
        let mut table = Table::new("T", "", &["a"]);
        table.row(vec!["x|y\nz".into()]);
        assert!(table.markdown().contains("| x\\|y z |"), "{}", table.markdown());
    }

    #[test]
    fn a_screen_of_unknown_width_has_the_whole_table() {
        let table = layers();
        let text = table.terminal(Screen::default());
        assert!(
            text.contains("backward to inputs") && text.contains("1.875 ms") && !text.contains("left out"),
            "{text}"
        );
        assert_eq!(widest(&text), table.width());
        assert_eq!(table.terminal(Screen::wide(table.width())), text);
    }

    #[test]
    fn a_narrow_screen_breaks_headings_then_leaves_out_columns_in_order_and_says_so() {
        let table = layers();
        let broken = table.terminal(Screen::wide(table.width() - 1));
        assert!(widest(&broken) < table.width() && !broken.contains("left out"), "{broken}");
        assert!(broken.contains("1.875 ms") && !broken.contains("backward to inputs"), "{broken}");
        let fewer = table.terminal(Screen::wide(45));
        assert!(widest(&fewer) <= 45 && fewer.contains("left out at 45 columns: p99; "), "{fewer}");
        assert!(fewer.contains("12.5") && fewer.contains("1.25 ms ±1%") && !fewer.contains("1.875"), "{fewer}");
    }

    #[test]
    fn what_is_too_wide_without_its_spare_columns_is_a_record_a_row() {
        let mut table = layers();
        table.row(["h1024", "12.5 ms ±10%", "13", "–", ""].map(String::from).to_vec());
        let text = table.terminal(Screen::wide(24));
        let records = "\nh512\n  time 1.25 ms ±1%\n  backward to inputs 3.5\n  p99 1.875 ms\n  GB/s 12.5\nh1024\n";
        assert!(text.contains(records) && text.ends_with("  p99 –\n"), "{text}");
        let mut pairs = Table::new("Pairs", "", &["mode", "main", "mlp", "gpt"]).keys(2);
        pairs.row(["free", "gpt-h512", "×1.4 / 62%", "×1"].map(String::from).to_vec());
        pairs.row(["nice", "gpt-h512", "×1", "×2"].map(String::from).to_vec());
        let pairs = pairs.terminal(Screen::wide(30));
        let aligned = "free  gpt-h512\n  mlp ×1.4 / 62%   gpt ×1\nnice  gpt-h512\n  mlp ×1           gpt ×2\n";
        assert_eq!(pairs, format!("Pairs\n\n{aligned}"));
    }

    #[test]
    fn borders_and_signs_are_ascii_where_nothing_else_can_be_shown() {
        let text = layers().terminal(Screen { columns: None, ascii: true });
        assert!(text.is_ascii() && text.contains("1.25 ms +-1%"), "{text}");
        let widths: Vec<usize> = text.lines().skip(2).map(length).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
