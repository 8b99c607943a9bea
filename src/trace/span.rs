//! What a GPU did in an interval, and the names of what it did; both readers make these, [`super::scan`] reads them.

use crate::records::bubbles::KernelName;
use std::collections::HashMap;

/// What a span is to the search for bubbles. Spans that start together are sorted in this order: a gap ends before
/// communication begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Activity {
    /// A kernel that computes, or a whole CUDA graph.
    Compute,
    /// A kernel that sends to or receives from a single peer.
    SendRecv,
    /// A kernel of any other collective.
    Collective,
    /// A copy or fill of memory.
    Copy,
    /// A compute kernel on a stream that was not asked for: it counts for nothing, but launches are still matched with
    /// it.
    Ignored,
}

impl Activity {
    /// Every activity, in the order of the enum.
    pub const ALL: [Activity; 5] =
        [Activity::Compute, Activity::SendRecv, Activity::Collective, Activity::Copy, Activity::Ignored];
}

/// The index of a kernel's name among the [`Names`] of its profile.
pub type NameId = u32;

/// The order of spans: start in ns, activity, launch.
pub type SpanKey = (u64, Activity, u64);

/// One interval in which a GPU did something, kept in 40 bytes: sorting and spilling move millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it started, in ns on the profile's clock.
    pub start_ns: u64,
    /// When it ended, in ns on the profile's clock.
    pub end_ns: u64,
    /// The key by which its launch is found, made of the correlation id (and the process in nsys exports); `u64::MAX`
    /// where it has none.
    pub launch: u64,
    /// The name of the kernel, graph, copy or fill.
    pub name: NameId,
    /// The index of its device in the profile's catalogue.
    pub device: u32,
    /// What it is to the search for bubbles.
    pub activity: Activity,
}

impl Span {
    /// The key by which spans are sorted; the launch makes the order of those that start together the same in every
    /// format.
    pub const fn key(&self) -> SpanKey {
        (self.start_ns, self.activity, self.launch)
    }
}

/// The distinct kernel names of one profile.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<KernelName>,
    index: HashMap<KernelName, NameId>,
    bytes: usize,
}

/// The most bytes that the names of a profile may take, with 64 more counted for each; a training run's take less.
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

    /// The name of this id, which [`Names::intern`] gave out.
    pub fn get(&self, id: NameId) -> &KernelName {
        &self.texts[id as usize]
    }

    /// The number of distinct names.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no name yet.
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
