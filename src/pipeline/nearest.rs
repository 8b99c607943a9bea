//! The name a person most likely meant.

/// The known name closest to `given` by edit distance; `None` where none is close enough to be a slip of the finger.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: String = given.chars().take(64).collect::<String>().to_lowercase();
    known
        .into_iter()
        .map(|name| (distance(&given, name), name))
        .min()
        .filter(|(d, name)| *d <= 2.max(name.chars().count() / 3))
        .map(|(_, name)| name)
}

/// The advice for a name that is not known: "did you mean …?" where one is near, then the list of all names.
pub fn cure<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let all = known.clone().into_iter().collect::<Vec<_>>().join(", ");
    match nearest(given, known) {
        Some(name) => format!("did you mean `{name}`? known are {all}"),
        None => format!("known are {all}"),
    }
}

/// Levenshtein distance over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_nonsense_is_not() {
        let known = ["gpipe", "1f1b", "interleaved", "zb-h1"];
        assert_eq!(nearest("1f1c", known), Some("1f1b"));
        assert_eq!(nearest("interleafed", known), Some("interleaved"));
        assert_eq!(nearest("ZB-H1", known), Some("zb-h1"));
        assert_eq!(nearest("something-else", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
