//! The name a person most likely meant: every wrong name is answered from here.

/// The known name closest to `given`, if it is close enough to be a slip of the finger: letters left out, doubled, mistaken
/// or in each other's place.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: String = given.chars().take(64).collect::<String>().to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&given, &name.to_lowercase()), !same_letters(&given, name), name))
        .min()
        .filter(|(distance, _, name)| *distance <= slips(name))
        .map(|(.., name)| name)
}

/// How many slips a name may be away and still be meant: with half of its letters changed it is another name.
fn slips(name: &str) -> usize {
    1.max(name.chars().count() / 3)
}

/// Whether one is the other with its letters in another order: of names equally far the one that is meant.
fn same_letters(given: &str, name: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(given) == sorted(name)
}

/// The names in their order, each once.
pub fn once<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// At most so many of the names, and how many more there are.
pub fn some_of<S: AsRef<str>>(names: impl IntoIterator<Item = S>, most: usize) -> String {
    let names: Vec<S> = names.into_iter().collect();
    let shown: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

/// "did you mean …?" in front of the list of all names.
pub fn cure<'a>(given: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let all = once(known.clone());
    let listed = format!("known {} {}", if all.len() == 1 { "is" } else { "are" }, all.join(", "));
    match nearest(given, known) {
        Some(name) => format!("did you mean `{name}`? {listed}"),
        None => listed,
    }
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
        assert_eq!(nearest("some", ["none", "selective", "full"]), None);
        assert_eq!(nearest("", ["f32", "free"]), None);
    }

    #[test]
    fn a_long_list_says_how_much_is_left_out() {
        assert_eq!(some_of(["a", "b"], 2), "a, b");
        assert_eq!(some_of(["a", "b", "c", "d"], 2), "a, b, and 2 more");
        assert_eq!(once(["a", "b", "a"]), ["a", "b"]);
    }

    #[test]
    fn the_cure_lists_what_there_is() {
        assert_eq!(cure("f23", ["f16", "f32"]), "did you mean `f32`? known are f16, f32");
        assert_eq!(cure("csv", ["nccl-tests"]), "known is nccl-tests");
    }

    #[test]
    fn letters_in_each_others_place_are_one_slip() {
        let formats = ["bf16", "f16", "f32", "f64"];
        assert_eq!(nearest("f23", formats), Some("f32"));
        assert_eq!(nearest("f61", formats), Some("f16"));
        assert_eq!(nearest("int8", formats), None);
        assert_eq!(nearest("all_recude", ["all_gather", "all_reduce", "reduce"]), Some("all_reduce"));
        // Both are one slip away; one has the same letters.
        assert_eq!(nearest("ab12", ["ab1", "ab21", "cb12"]), Some("ab21"));
    }
}
