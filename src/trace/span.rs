//! What a GPU did in an interval, and the names of what it did; both readers make these, [`super::scan`] reads them.

use crate::records::bubbles::KernelName;
use std::collections::HashMap;

/// What a span is to the search for bubbles. In this order at equal starts: a gap ends before communication begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Activity {
    Compute,
    SendRecv,
    /// Any other collective.
    Collective,
    /// Copies and fills of memory.
    Copy,
    /// A kernel of a stream that was not asked for: it counts for nothing, but it is what a launch came to.
    Ignored,
}

impl Activity {
    pub const ALL: [Activity; 5] =
        [Activity::Compute, Activity::SendRecv, Activity::Collective, Activity::Copy, Activity::Ignored];
}

/// Index into [`Names`].
pub type NameId = u32;

pub type SpanKey = (u64, Activity, u64);

/// Kept in 40 bytes: sorting and spilling move millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start_ns: u64,
    pub end_ns: u64,
    /// What the reader needs to find the launch: a row of a table, or a correlation id.
    pub launch: u64,
    pub name: NameId,
    /// Index into the reader's list of devices.
    pub device: u32,
    pub activity: Activity,
}

impl Span {
    /// Spans are sorted by this; the launch makes the order of those that start together the same in every format.
    pub const fn key(&self) -> SpanKey {
        (self.start_ns, self.activity, self.launch)
    }
}

/// Every kernel name of one profile, once.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<KernelName>,
    index: HashMap<KernelName, NameId>,
    bytes: usize,
}

/// A profile with more text than this in its kernels' names is not one of a training run.
pub const MOST_NAME_BYTES: usize = 64 << 20;

impl Names {
    /// The id of a name; `None` once all names together are longer than [`MOST_NAME_BYTES`].
    pub fn intern(&mut self, text: &str) -> Option<NameId> {
        if let Some(&id) = self.index.get(text) {
            return Some(id);
        }
        // What the table itself takes counts too, or a million empty names would be free.
        self.bytes += text.len() + 64;
        if self.bytes > MOST_NAME_BYTES {
            return None;
        }
        let name = KernelName::from(text);
        let id = self.texts.len() as NameId;
        self.texts.push(name.clone());
        self.index.insert(name, id);
        Some(id)
    }

    pub fn get(&self, id: NameId) -> &KernelName {
        &self.texts[id as usize]
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

impl std::borrow::Borrow<str> for KernelName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_the_sum_is_bounded() {
        let mut names = Names::default();
        let a = names.intern("gemm").unwrap();
        assert_eq!(names.intern("flash"), Some(1));
        assert_eq!(names.intern("gemm"), Some(a));
        assert_eq!((names.len(), names.get(a).as_str()), (2, "gemm"));
        assert_eq!(names.intern(&"x".repeat(MOST_NAME_BYTES)), None);
    }

    #[test]
    fn a_span_stays_small() {
        assert!(size_of::<Span>() <= 40);
    }
}
