//! One table, two renderings: `comfy-table` in the terminal, and Markdown a person can paste.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ContentArrangement, TableStyle};

#[derive(Debug, Clone, Default)]
pub struct Table {
    pub title: String,
    /// One sentence under the title: what the numbers are.
    pub note: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, note: &str, header: &[&str]) -> Self {
        Table {
            title: title.into(),
            note: note.into(),
            header: header.iter().map(|h| (*h).into()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len(), "{}", self.title);
        self.rows.push(cells);
    }

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

    pub fn terminal(&self) -> String {
        format!("{}\n{}\n{}\n", self.title, self.note, self.build(UTF8_FULL_CONDENSED))
    }

    pub fn markdown(&self) -> String {
        format!("## {}\n\n{}\n\n{}\n", self.title, self.note, self.build(ASCII_MARKDOWN))
    }
}

pub fn starts_like_a_number(cell: &str) -> bool {
    cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "+-–±".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_can_be_pasted() {
        let mut table = Table::new("Layers", "Median times.", &["shape", "ms"]);
        table.row(vec!["h512".into(), "1.25".into()]);
        let text = table.markdown();
        assert!(text.starts_with("## Layers\n\nMedian times.\n\n| shape |"), "{text}");
        assert!(text.contains("| h512  | 1.25 |"), "{text}");
    }
}
