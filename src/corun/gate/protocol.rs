//! The gate's protocol: what main and side read and write, in which order. Straight-line steps without waiting, so that a
//! model can stop them at every access ([`Memory`]); the ends wait between them.
//!
//! A side is *idle* (nobody is there), *armed* (attached, the gate shut), *running* (open, and the time check passed),
//! *draining* (closed, or its time is up, with an operation in flight) or *stopped* (it has acknowledged). The main moves
//! the gate, the clock ends an opening for the side, and the side alone says that it stands still.

use super::memory::{Memory, Order, Word};

/// The phase of a closed gate, in the low two bits of the state.
pub const CLOSED: u64 = 0;
/// The phase of an open gate.
pub const OPEN: u64 = 1;
/// The phase of a gate that its main has shut down for good.
pub const SHUT_DOWN: u64 = 2;

/// The generation in which a side stands still once a device's gate is shut down; the device's own have 32 bits.
const DEVICE_SHUT_DOWN: u64 = 1 << 40;

/// Acknowledges nothing: no generation is as high, and no side's word.
const NOTHING: u64 = u64::MAX;

/// The low two bits: closed, open or shut down.
pub const fn phase(state: u64) -> u64 {
    state & 3
}

/// How often the gate was opened, closed and shut down.
pub const fn generation(state: u64) -> u64 {
    state >> 2
}

/// A side's word that it stands still in a generation of the gate. Whose word it is stands beside: one that a suspended
/// side had begun to give before another took its place is nobody's.
pub const fn standing(side_generation: u64, generation: u64) -> u64 {
    (side_generation & 0xffff) << 48 | generation & ((1 << 48) - 1)
}

/// Opens the gate for about `expected_ns`; an open one gets a new expected close, and one that is shut down stays so. True:
/// somebody sleeps and has to be woken.
pub fn open<M: Memory>(m: &M, expected_ns: u64) -> Result<bool, M::Stop> {
    let now = m.now()?;
    match phase(m.load(Word::State, Order::Relaxed)?) {
        OPEN => account(m, now)?,
        SHUT_DOWN => return Ok(false),
        _ => {}
    }
    // Published one by one: a side that reads one of them sees, when it reads the state again, that the opening it began
    // to read is over.
    m.store(Word::OpenedAt, now, Order::Publish)?;
    m.store(Word::ExpectedClose, now.saturating_add(expected_ns), Order::Publish)?;
    count(m, Word::Bubble)?;
    count(m, Word::Openings)?;
    advance(m, OPEN, now)
}

/// Closes the gate; a closed one stays as it is. True: somebody sleeps and has to be woken.
pub fn close<M: Memory>(m: &M) -> Result<bool, M::Stop> {
    if phase(m.load(Word::State, Order::Relaxed)?) != OPEN {
        return Ok(false);
    }
    let now = m.now()?;
    account(m, now)?;
    m.store(Word::ClosedAt, now, Order::Relaxed)?;
    count(m, Word::Closings)?;
    advance(m, CLOSED, now)
}

/// Shuts the gate down for good. True: somebody sleeps and has to be woken.
pub fn shut_down<M: Memory>(m: &M) -> Result<bool, M::Stop> {
    let now = m.now()?;
    match phase(m.load(Word::State, Order::Relaxed)?) {
        OPEN => {
            account(m, now)?;
            m.store(Word::ClosedAt, now, Order::Relaxed)?;
        }
        SHUT_DOWN => return Ok(false),
        _ => {}
    }
    advance(m, SHUT_DOWN, now)
}

/// Only the main writes these words: it may add to them in two steps.
fn count<M: Memory>(m: &M, word: Word) -> Result<(), M::Stop> {
    let before = m.load(word, Order::Relaxed)?;
    m.store(word, before.wrapping_add(1), Order::Relaxed)
}

fn account<M: Memory>(m: &M, now: u64) -> Result<(), M::Stop> {
    let open = now.saturating_sub(m.load(Word::OpenedAt, Order::Relaxed)?);
    let before = m.load(Word::OpenNs, Order::Relaxed)?;
    m.store(Word::OpenNs, before.saturating_add(open), Order::Relaxed)
}

fn advance<M: Memory>(m: &M, to: u64, now: u64) -> Result<bool, M::Stop> {
    let state = generation(m.load(Word::State, Order::Relaxed)?).wrapping_add(1) << 2 | to;
    m.store(Word::MainHeartbeat, now, Order::Relaxed)?;
    // In the total order: a side that takes its place, or becomes ready, either sees this state or is seen by `stopped`.
    m.store(Word::State, state, Order::Total)?;
    // A side says that it sleeps before the kernel compares this word: either the word differs, or we see it sleep.
    m.store(Word::Futex, state & 0xffff_ffff, Order::Total)?;
    Ok(m.load(Word::Asleep, Order::Total)? != 0)
}

/// Nanoseconds from the last closing until the side stood still, 0 where it had stopped by the clock before; `None` while
/// the gate is open, or as long as the side has not acknowledged.
///
/// Where a device opens and closes nobody knows when it did: the latency is 0.
pub fn stopped<M: Memory>(m: &M) -> Result<Option<u64>, M::Stop> {
    let state = m.load(Word::State, Order::Relaxed)?;
    if m.load(Word::Driver, Order::Relaxed)? != 0 {
        let shut = phase(state) == SHUT_DOWN;
        let open = m.load(Word::DeviceOpen, Order::Publish)? != 0;
        let now = if shut { DEVICE_SHUT_DOWN } else { m.load(Word::DeviceGeneration, Order::Publish)? };
        return Ok(((shut || !open) && stands_still(m, &[now])?).then_some(0));
    }
    if phase(state) == OPEN {
        return Ok(None);
    }
    // Standing still in the opening that was closed holds behind the closing too: a side works in no opening twice.
    let now = generation(state);
    if !stands_still(m, &[now, now.wrapping_sub(1)])? {
        return Ok(None);
    }
    let stopped_at = m.load(Word::StoppedAt, Order::Relaxed)?;
    Ok(Some(stopped_at.saturating_sub(m.load(Word::ClosedAt, Order::Relaxed)?)))
}

/// Whether the side that has the place says that it stands still in one of these generations.
fn stands_still<M: Memory>(m: &M, generations: &[u64]) -> Result<bool, M::Stop> {
    let word = m.load(Word::Stopped, Order::Publish)?;
    let side = m.load(Word::SideGeneration, Order::Total)?;
    // What stands there before any side has come would be the word of generation 0.
    Ok(side != 0 && generations.iter().any(|&generation| word == standing(side, generation)))
}

/// What a side found when it looked at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Look {
    /// An operation may start now.
    Go,
    /// Nothing may start: the gate is closed, or the side has stopped in this opening before. The state that was seen.
    Wait(u64),
    /// What is left of the opening is too short; all of it would have been enough. The state that was seen, and what was
    /// left in nanoseconds, less the margin.
    Late(u64, u64),
    /// The opening is shorter than the operation from its first moment on: its length in nanoseconds, less the margin.
    TooShort(u64),
    /// The gate changed while it was looked at.
    Again,
    /// The main has shut the gate down.
    ShutDown,
    /// Another side has taken this one's place.
    LeaseLost,
}

/// A side as the protocol knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SideProtocol {
    /// Of this side's lease.
    generation: u64,
    /// Generation of the opening it works in, or has worked in; 0: none.
    working_in: u64,
    /// The main's state while that opening lasts; [`NOTHING`] where a device opened.
    working_state: u64,
    /// When the last operation of that opening must have ended; 0 once it has stopped there by the clock.
    deadline: u64,
    /// When it went to work there; 0 where it did not.
    began: u64,
    /// What it last said to stand still in.
    acknowledged: u64,
    /// Operations finished, those of sides before included.
    finished: u64,
    /// When a device's line was last seen closed, or with the generation before; 0: not yet.
    seen_before: u64,
}

impl SideProtocol {
    /// The side of a lease that [`claim`] has given.
    pub fn new(generation: u64, finished: u64) -> Self {
        SideProtocol {
            generation,
            working_in: 0,
            working_state: NOTHING,
            deadline: 0,
            began: 0,
            acknowledged: NOTHING,
            finished,
            seen_before: 0,
        }
    }

    /// Operations finished behind this gate, those of earlier sides included.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// Of this side's lease.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Generation of the opening it works in, or has last worked in; 0 before the first.
    pub fn working_in(&self) -> u64 {
        self.working_in
    }

    /// When the last operation of that opening must have ended, in nanoseconds; 0 once the side has stopped by the clock.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Looks whether an operation that takes `need_ns` may start.
    #[inline(always)]
    pub fn look<M: Memory>(&mut self, m: &M, need_ns: u64) -> Result<Look, M::Stop> {
        if m.load(Word::SideGeneration, Order::Relaxed)? != self.generation {
            return Ok(Look::LeaseLost);
        }
        let state = m.load(Word::State, Order::Total)?;
        // The usual answer, without another access: the opening it works in lasts, and long enough.
        if state == self.working_state && m.now()?.saturating_add(need_ns) <= self.deadline {
            return Ok(Look::Go);
        }
        self.look_closer(m, state, need_ns)
    }

    fn look_closer<M: Memory>(&mut self, m: &M, state: u64, need_ns: u64) -> Result<Look, M::Stop> {
        if phase(state) != SHUT_DOWN && m.load(Word::Driver, Order::Relaxed)? != 0 {
            return self.look_at_device(m, need_ns);
        }
        match phase(state) {
            OPEN => {
                let opening = generation(state);
                if opening == self.working_in {
                    self.stop_by_clock(m, opening)?;
                    return Ok(Look::Wait(state));
                }
                let close = m.load(Word::ExpectedClose, Order::Publish)?;
                let grace = m.load(Word::Grace, Order::Publish)?;
                let margin = m.load(Word::Margin, Order::Publish)?;
                let opened = m.load(Word::OpenedAt, Order::Publish)?;
                if m.load(Word::State, Order::Publish)? != state {
                    return Ok(Look::Again);
                }
                let deadline = close.saturating_add(grace).saturating_sub(margin);
                self.enter(m, opening, state, opened, deadline, need_ns)
            }
            SHUT_DOWN => {
                let device = m.load(Word::Driver, Order::Relaxed)? != 0;
                self.stand_still(m, if device { DEVICE_SHUT_DOWN } else { generation(state) })?;
                Ok(Look::ShutDown)
            }
            _ => {
                self.stand_still(m, generation(state))?;
                Ok(Look::Wait(state))
            }
        }
    }

    /// The first look at an opening.
    fn enter<M: Memory>(
        &mut self,
        m: &M,
        opening: u64,
        state: u64,
        opened: u64,
        deadline: u64,
        need_ns: u64,
    ) -> Result<Look, M::Stop> {
        let now = m.now()?;
        // Where the main opened an open gate, the opening before ends here.
        self.account(m, now)?;
        (self.working_in, self.working_state, self.deadline) = (opening, state, deadline);
        if now.saturating_add(need_ns) <= deadline {
            self.began = now;
            m.store(Word::StartedAt, now, Order::Relaxed)?;
            m.store(Word::SideHeartbeat, now, Order::Relaxed)?;
            m.store(Word::Started, opening, Order::Publish)?;
            return Ok(Look::Go);
        }
        self.stop_by_clock(m, opening)?;
        let whole = deadline.saturating_sub(opened);
        Ok(if need_ns > whole { Look::TooShort(whole) } else { Look::Late(state, deadline.saturating_sub(now)) })
    }

    /// A device's opening began, at the earliest, when its line was last seen without it.
    fn look_at_device<M: Memory>(&mut self, m: &M, need_ns: u64) -> Result<Look, M::Stop> {
        let before = self.seen_before;
        let now = m.now()?;
        let open = m.load(Word::DeviceOpen, Order::Publish)?;
        let opening = m.load(Word::DeviceGeneration, Order::Publish)?;
        let expected_ns = m.load(Word::DeviceExpectedUs, Order::Publish)? * 1000;
        let margin = m.load(Word::Margin, Order::Relaxed)?;
        if m.load(Word::DeviceGeneration, Order::Publish)? != opening
            || m.load(Word::DeviceOpen, Order::Publish)? != open
        {
            return Ok(Look::Again);
        }
        let seen = opening << 2 | open;
        if open == 0 {
            self.seen_before = now;
            self.stand_still(m, opening)?;
            return Ok(Look::Wait(seen));
        }
        if opening == self.working_in {
            self.seen_before = now;
            if now.saturating_add(need_ns) <= self.deadline {
                return Ok(Look::Go);
            }
            self.stop_by_clock(m, opening)?;
            return Ok(Look::Wait(seen));
        }
        if self.acknowledged == opening {
            // The generation was there before it was open: standing still then is no word about the closing that follows.
            // Taken back before anything starts, and looked at once more: that word may have been believed already.
            self.acknowledged = NOTHING;
            m.store(Word::Stopped, NOTHING, Order::Total)?;
            return Ok(Look::Again);
        }
        self.seen_before = now;
        if before == 0 {
            // It was there at the first look, and may be of any age.
            self.working_in = opening;
            self.stop_by_clock(m, opening)?;
            return Ok(Look::Wait(seen));
        }
        let deadline = before.saturating_add(expected_ns).saturating_sub(margin);
        let look = self.enter(m, opening, seen, before, deadline, need_ns);
        // A main's state of that value is no word about a device's opening.
        self.working_state = NOTHING;
        look
    }

    /// No operation starts in this opening any more, whatever it needs: the main may take the word for it.
    fn stop_by_clock<M: Memory>(&mut self, m: &M, opening: u64) -> Result<(), M::Stop> {
        if self.began != 0 {
            count(m, Word::SelfStops)?;
        }
        self.stand_still(m, opening)?;
        self.deadline = 0;
        Ok(())
    }

    fn stand_still<M: Memory>(&mut self, m: &M, generation: u64) -> Result<(), M::Stop> {
        let word = standing(self.generation, generation);
        // Said once, and again where the last store of a side that lost this place came over it.
        if self.acknowledged == generation && m.load(Word::Stopped, Order::Relaxed)? == word {
            return Ok(());
        }
        self.acknowledged = generation;
        let now = m.now()?;
        // One that has stood still since says nothing new about when.
        if self.began != 0 {
            self.account(m, now)?;
            m.store(Word::StoppedAt, now, Order::Relaxed)?;
        }
        m.store(Word::SideHeartbeat, now, Order::Relaxed)?;
        m.store(Word::Stopped, word, Order::Publish)
    }

    fn account<M: Memory>(&mut self, m: &M, now: u64) -> Result<(), M::Stop> {
        if self.began != 0 {
            // What drains behind the closing is no use of the opening; a later closing is not this one. An earlier one's time
            // lies before the beginning.
            let closed = m.load(Word::ClosedAt, Order::Publish)?;
            let end = if closed >= self.began { closed.min(self.deadline.max(self.began)).min(now) } else { now };
            let work = m.load(Word::WorkNs, Order::Relaxed)?;
            m.store(Word::WorkNs, work.saturating_add(end.saturating_sub(self.began)), Order::Relaxed)?;
            self.began = 0;
        }
        Ok(())
    }

    /// Counts a finished operation; false where another side has taken the place, and nothing is touched.
    ///
    /// Here and elsewhere a side looks at the generation first and stores then: one that is suspended in between makes
    /// that one store behind the other's back. Totals may go back by it for as long as the other's next operation takes,
    /// and a word that it stands still is said again.
    #[inline(always)]
    pub fn done<M: Memory>(&mut self, m: &M) -> Result<bool, M::Stop> {
        if m.load(Word::SideGeneration, Order::Relaxed)? != self.generation {
            return Ok(false);
        }
        self.finished = self.finished.wrapping_add(1);
        m.store(Word::Operations, self.finished, Order::Publish)?;
        Ok(true)
    }

    /// Says that this side is about to sleep on the futex word; the caller sleeps only while it holds the state it saw.
    pub fn fall_asleep<M: Memory>(&self, m: &M) -> Result<(), M::Stop> {
        m.store(Word::Asleep, 1, Order::Total)
    }

    /// Says that it is awake, unless another side sleeps there by now.
    pub fn wake<M: Memory>(&self, m: &M) -> Result<(), M::Stop> {
        if m.load(Word::SideGeneration, Order::Relaxed)? == self.generation {
            m.store(Word::Asleep, 0, Order::Relaxed)?;
        }
        Ok(())
    }

    /// Says that process `pid` is ready to work; false where its place is another's. The caller holds the lock of places.
    pub fn ready<M: Memory>(&self, m: &M, pid: u64) -> Result<bool, M::Stop> {
        if m.load(Word::SideGeneration, Order::Total)? != self.generation {
            return Ok(false);
        }
        // In the total order: the next look at the state comes behind it.
        m.store(Word::SidePid, pid, Order::Total)?;
        Ok(true)
    }

    /// Gives the place back; the caller holds the lock of places.
    pub fn leave<M: Memory>(&self, m: &M) -> Result<(), M::Stop> {
        if m.load(Word::SideGeneration, Order::Total)? == self.generation {
            m.store(Word::SidePid, 0, Order::Total)?;
            m.store(Word::Holder, 0, Order::Publish)?;
            m.store(Word::LeaseUntil, 0, Order::Publish)?;
        }
        Ok(())
    }
}

/// Takes the side's place for the process `holder` up to `until`; `None` where another was faster. The caller holds the
/// lock of places, where there are locks, and has seen that nobody's lease lasts.
pub fn claim<M: Memory>(m: &M, holder: u64, until: u64) -> Result<Option<SideProtocol>, M::Stop> {
    let before = m.load(Word::SideGeneration, Order::Total)?;
    let generation = before.wrapping_add(1);
    // First: from here on the side before starts nothing any more, and the main takes no word of its. Should this one die
    // now, nobody's word counts until the next one comes. In the total order: see `advance`.
    if !m.exchange(Word::SideGeneration, before, generation)? {
        return Ok(None);
    }
    m.store(Word::SidePid, 0, Order::Total)?;
    m.store(Word::Holder, holder, Order::Publish)?;
    m.store(Word::LeaseUntil, until, Order::Publish)?;
    m.store(Word::Asleep, 0, Order::Relaxed)?;
    Ok(Some(SideProtocol::new(generation, m.load(Word::Operations, Order::Publish)?)))
}
