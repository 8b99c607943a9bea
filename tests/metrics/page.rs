//! A strict reader of Prometheus' text format 0.0.4: what the format allows and this program does not need is refused.

use std::collections::BTreeMap;

pub type Labels = Vec<(String, String)>;

/// A page of metrics.
#[derive(Debug)]
pub struct Page {
    kinds: BTreeMap<String, String>,
    values: Vec<(String, Labels, f64)>,
}

impl Page {
    /// Name, labels and value of every line.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &Labels, f64)> {
        self.values.iter().map(|(name, labels, value)| (name.as_str(), labels, *value))
    }

    /// Labels and values of one name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.samples().filter(move |(own, ..)| *own == name).map(|(_, labels, value)| (labels, value))
    }

    /// The value of a name without labels.
    pub fn value(&self, name: &str) -> f64 {
        let values: Vec<f64> = self.all(name).map(|(_, value)| value).collect();
        assert_eq!(values.len(), 1, "{name}");
        values[0]
    }

    /// The family that a line's name is of: that of a summary has no ending.
    pub fn family<'a>(&self, name: &'a str) -> &'a str {
        let summary = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
        summary.filter(|family| self.kinds.contains_key(*family)).unwrap_or(name)
    }

    pub fn kind(&self, name: &str) -> &str {
        &self.kinds[self.family(name)]
    }
}

/// Reads a page, or panics with the line that is none.
pub fn parse(text: &str) -> Page {
    let mut page = Page { kinds: BTreeMap::new(), values: Vec::new() };
    assert!(text.ends_with('\n'));
    let mut helped = None;
    let mut last = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = Some(help.split_once(' ').expect(line).0.to_string());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(helped.take().as_deref(), Some(name), "the help stands before the type");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert!(page.kinds.insert(name.to_string(), kind.to_string()).is_none(), "{name} twice");
            last = name.to_string();
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(page.family(&name), last, "lines of a family stand together: {line}");
            let twice = page.samples().any(|(other, of, _)| other == name && *of == labels);
            assert!(!twice, "{line} twice");
            page.values.push((name, labels, value));
        }
    }
    page
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').expect(line);
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").expect(line);
            assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            let (value, behind) = quoted(behind);
            labels.push((label.to_string(), value));
            rest = behind;
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect(line);
    }
    let value: f64 = rest.strip_prefix(' ').expect(line).parse().expect(line);
    assert!(value.is_finite(), "{line}");
    (name.to_string(), labels, value)
}

/// A value up to its closing quotation mark, and what is behind that.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().expect(text).1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                c => panic!("\\{c} in {text}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no end of the value in {text}");
}
