//! The words that the protocol reads and writes, and what they are read and written on: a page, or a model of one.
//!
//! [`protocol`](super::protocol) touches shared memory through [`Memory`] alone. A [`Page`](super::page::Page) never stops
//! it, so its `Stop` has no value and the calls are plain loads and stores; the model of the tests stops it at every one
//! of them, to let the other programs go first in every order there is.

/// A word of the page that changes while programs use it; the page's table says what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Word {
    Driver,
    State,
    Bubble,
    OpenedAt,
    ExpectedClose,
    ClosedAt,
    MainHeartbeat,
    Grace,
    Openings,
    Closings,
    Margin,
    OpenNs,
    Futex,
    Stopped,
    StoppedAt,
    Started,
    StartedAt,
    SideHeartbeat,
    Operations,
    SelfStops,
    Asleep,
    WorkNs,
    SidePid,
    LeaseUntil,
    SideGeneration,
    Holder,
    DeviceOpen,
    DeviceGeneration,
    DeviceExpectedUs,
}

/// What an access is ordered against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Nothing: nobody reads anything else by this word.
    Relaxed,
    /// A store publishes what was written before it; a load sees what was written before the store it reads.
    Publish,
    /// As `Publish`, and all programs agree on the order of all such accesses: a store is seen before the same program's
    /// next such load is made.
    Total,
}

/// Shared memory with a clock.
pub trait Memory {
    /// Why an access may not happen now; a type without values where it always may.
    type Stop;

    /// Reads a word.
    fn load(&self, word: Word, order: Order) -> Result<u64, Self::Stop>;

    /// Writes a word.
    fn store(&self, word: Word, value: u64, order: Order) -> Result<(), Self::Stop>;

    /// Writes `to` where the word is `from`, in one access of the total order; false where it is another.
    fn exchange(&self, word: Word, from: u64, to: u64) -> Result<bool, Self::Stop>;

    /// The time in nanoseconds, on a clock that all programs share.
    fn now(&self) -> Result<u64, Self::Stop>;
}
