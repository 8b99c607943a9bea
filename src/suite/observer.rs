//! What a run tells to whoever watches it while it lasts. The [`Recorder`](super::recorder::Recorder) calls, and
//! [`crate::monitor`] listens; without a listener nothing is called.

use super::case::RawSample;
use super::sampler::Watch;
use crate::records::Measurement;
use crate::records::measurement::Kind;

/// A listener to a run. It is called on the measuring thread, never inside a timed region, and has to return at once.
pub trait Observer: Send + Sync {
    /// The case of this name is built, checked and then measured.
    fn case_begins(&self, id: &str);
    /// Samples of a case of this kind were taken. Called between two batches of samples: no lock may be waited for.
    fn sampled(&self, kind: Kind, samples: &[RawSample]);
    /// The line of a case was written; it takes the place of an earlier one of the same name.
    fn written(&self, record: &Measurement);
}

/// A watch that hands the samples on.
pub(super) struct ObservedWatch<'a> {
    pub watch: &'a dyn Watch,
    pub observer: &'a dyn Observer,
    pub kind: Kind,
}

impl Watch for ObservedWatch<'_> {
    fn elapsed_ns(&self) -> u64 {
        self.watch.elapsed_ns()
    }

    fn interrupted(&self) -> bool {
        self.watch.interrupted()
    }

    fn sampled(&self, samples: &[RawSample]) {
        self.observer.sampled(self.kind, samples);
    }
}
