//! Lines of CSV (RFC 4180): cells that hold a comma, a quote or a line's end stand in quotes.

/// A line of cells, with the end that the RFC asks for.
pub fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(cell).collect();
    format!("{}\r\n", cells.join(","))
}

fn cell(text: String) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_would_be_read_as_several_are_quoted() {
        let cells = ["a", "b,c", "d \"e\"", "", "f\ng"].map(String::from);
        assert_eq!(line(cells), "a,\"b,c\",\"d \"\"e\"\"\",,\"f\ng\"\r\n");
    }
}
