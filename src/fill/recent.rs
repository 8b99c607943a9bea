//! The values that were worked out last: of a pipeline's bubbles many are as long as one of the last few, with the same in them.

/// Values that are kept.
const KEPT: usize = 16;

/// The last few values with what they were worked out for.
pub struct Recent<K, V> {
    known: Vec<(K, V)>,
    oldest: usize,
}

impl<K: PartialEq, V> Recent<K, V> {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Recent { known: Vec::new(), oldest: 0 }
    }

    /// The value for `key`; worked out where it is not among the last ones.
    pub fn get_or(&mut self, key: K, value: impl FnOnce() -> V) -> &V {
        let at = self.known.iter().rposition(|(known, _)| *known == key).unwrap_or_else(|| {
            let entry = (key, value());
            if self.known.len() < KEPT {
                self.known.push(entry);
                return self.known.len() - 1;
            }
            let at = self.oldest;
            self.known[at] = entry;
            self.oldest = (at + 1) % KEPT;
            at
        });
        &self.known[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_worked_out_last_is_not_worked_out_again() {
        let mut recent = Recent::new();
        let mut worked_out = Vec::new();
        let keys: Vec<usize> = (0..KEPT).chain([3, KEPT, 1, 0, 3]).collect();
        for &key in &keys {
            let value = *recent.get_or(key, || {
                worked_out.push(key);
                10 * key
            });
            assert_eq!(value, 10 * key);
        }
        // The 17th drove out 0, and 0 then 1: 3 is still there.
        assert_eq!(worked_out, (0..KEPT).chain([KEPT, 0]).collect::<Vec<_>>());
    }
}
