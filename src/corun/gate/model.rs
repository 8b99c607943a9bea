//! Every order of the programs' steps at a gate: a main, one or two sides, a device.
//!
//! The protocol's own code runs here, on a memory that stops it at every access. A state of the world is what is in memory,
//! what each program has stored that others do not see yet, and how far each has come; from every state every program
//! that can takes its next step, until no new state is found. Stores wait in a buffer of their program and are seen by
//! others in any order, except that stores to one word keep theirs, one that publishes or is of the total order comes behind
//! all before it, and a load of the total order waits for such stores of its own program: more than x86 or Arm do with
//! stores. Loads happen in the order of the program.
//!
//! What must hold: nothing works between an acknowledged closing and the next opening, also where the side was replaced in
//! between; no operation starts with less than it needs left; nobody sleeps for ever; the page names the side that has the
//! place. That the model would see it otherwise is tested by weakening the order of single words. Not here: how long a
//! lease lasts and who renews it, a side that leaves, margin and grace (both 0), and a device's time.

use super::memory::{Memory, Order, Word};
use super::protocol::{self, Look, SideProtocol};
use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};

/// Words that nothing is decided by while programs run: they count, tell people the time, or are set before. Accesses to
/// them are no steps, because every order of those gives the same.
const fn decides_nothing(word: Word) -> bool {
    matches!(
        word,
        Word::Bubble
            | Word::OpenedAt
            | Word::ClosedAt
            | Word::MainHeartbeat
            | Word::Grace
            | Word::Openings
            | Word::Closings
            | Word::Margin
            | Word::OpenNs
            | Word::StoppedAt
            | Word::Started
            | Word::StartedAt
            | Word::SideHeartbeat
            | Word::SelfStops
            | Word::WorkNs
            | Word::LeaseUntil
            | Word::Holder
    )
}

/// Operations that all sides do together.
const MOST_OPERATIONS: u64 = 2;
/// Words of the page.
const WORDS: usize = Word::DeviceExpectedUs as usize + 1;
/// Where the main and the device stand in the list of programs; sides follow.
const MAIN: usize = 0;
const FIRST_SIDE: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Do {
    Open(u64),
    Close,
    /// Has the side stopped? Where it has not, the main goes on all the same.
    Observe,
    ShutDown,
    /// The device's stores, one after another.
    Store(Word, u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    /// The next line of a main's or a device's script.
    Line(usize),
    /// A main that has to wake who sleeps, and goes on with that line.
    Wakes(usize),
    /// A side that is not there yet takes the place, then says that it is ready, each under the lock of places.
    Claims,
    GetsReady,
    /// Gives the lock back: a system call, which waits for all stores.
    Unlocks(bool),
    Looks,
    Works,
    Counts,
    FallsAsleep(u64),
    /// About to sleep if the futex word is still that of this state.
    Waits(u64),
    Sleeps,
    Wakes2,
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Program {
    doing: Doing,
    /// Results of the present call's accesses so far: the call is run again from its beginning with them.
    log: Vec<u64>,
    /// Stores that others do not see yet.
    buffer: Vec<(Word, u64, Order)>,
    side: Option<SideProtocol>,
    /// What its next operation needs.
    need: u64,
    /// Operations that it has counted.
    counted: u64,
    /// When it last looked at the clock, while that matters.
    clock: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    words: [u64; WORDS],
    now: u64,
    programs: Vec<Program>,
    /// Expected closes by generation, as the main named them.
    closes: BTreeMap<u64, u64>,
    /// The main has seen the side stand still, and not opened since.
    seen_stopped: bool,
    replaced: bool,
    /// Who holds the lock of places.
    locked: Option<usize>,
}

struct Scenario {
    script: Vec<Do>,
    device: Vec<Do>,
    sides: usize,
    /// The second side may be killed while it takes the place.
    mortal: bool,
    /// What an operation may need; which, is chosen before each look.
    needs: Vec<u64>,
    last_time: u64,
    /// Sleeping ends by itself, as it does in the program: who is not woken is not looked for.
    naps: bool,
    weaken: Vec<(Word, Order)>,
}

/// What was found, to show that what should happen did.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    worked: usize,
    slept: usize,
    seen_stopped: usize,
    not_stopped: usize,
    stopped_by_clock: usize,
    replaced: usize,
    died: usize,
}

/// Runs one call up to its next access, which is made on the world.
struct Stepper<'a> {
    world: RefCell<&'a mut World>,
    who: usize,
    /// The clock moves: when it is read matters.
    timed: bool,
    weaken: &'a [(Word, Order)],
    log: RefCell<(Vec<u64>, usize, bool)>,
}

enum Stopped {
    /// The step was made; the next access waits for its turn.
    Next,
    /// The step cannot be made now.
    Blocked,
}

impl Stepper<'_> {
    /// The logged result of this access; else makes it if it is this step's, or `free`: a part of the step before.
    fn access(&self, free: bool, make: impl FnOnce(&mut World) -> Option<u64>) -> Result<u64, Stopped> {
        let mut log = self.log.borrow_mut();
        if log.1 < log.0.len() {
            log.1 += 1;
            return Ok(log.0[log.1 - 1]);
        }
        if log.2 && !free {
            return Err(Stopped::Next);
        }
        let value = make(&mut self.world.borrow_mut()).ok_or(Stopped::Blocked)?;
        log.0.push(value);
        log.1 += 1;
        log.2 |= !free;
        Ok(value)
    }
}

impl Memory for Stepper<'_> {
    type Stop = Stopped;

    fn load(&self, word: Word, order: Order) -> Result<u64, Stopped> {
        if decides_nothing(word) {
            return Ok(0);
        }
        // What nobody but the reader writes is the same whenever it is read.
        let own = self.who == MAIN && matches!(word, Word::State | Word::ExpectedClose);
        self.access(own || word == Word::Driver, |world| {
            let waits = order == Order::Total && world.programs[self.who].buffer.iter().any(|entry| entry.2 == order);
            (!waits).then(|| world.read(self.who, word))
        })
    }

    fn store(&self, word: Word, value: u64, order: Order) -> Result<(), Stopped> {
        if decides_nothing(word) {
            return Ok(());
        }
        let weaker = self.weaken.iter().find(|(weak, _)| *weak == word);
        let order = weaker.map_or(order, |(_, order)| *order);
        self.access(false, |world| Some(world.write(self.who, word, value, order))).map(|_| ())
    }

    fn exchange(&self, word: Word, from: u64, to: u64) -> Result<bool, Stopped> {
        let done = self.access(false, |world| {
            if !world.programs[self.who].buffer.is_empty() {
                return None;
            }
            let same = world.words[word as usize] == from;
            if same {
                world.words[word as usize] = to;
                world.replaced |= word == Word::SideGeneration && self.who > FIRST_SIDE;
            }
            Some(u64::from(same))
        });
        done.map(|same| same != 0)
    }

    fn now(&self) -> Result<u64, Stopped> {
        self.access(!self.timed, |world| {
            world.programs[self.who].clock = world.now;
            Some(world.now)
        })
    }
}

impl World {
    fn new(scenario: &Scenario) -> World {
        let program =
            |doing| Program { doing, log: Vec::new(), buffer: Vec::new(), side: None, need: 0, counted: 0, clock: 0 };
        let mut programs = vec![program(Doing::Line(0)), program(Doing::Line(0))];
        programs.extend((0..scenario.sides).map(|_| program(Doing::Claims)));
        let mut words = [0; WORDS];
        words[Word::Driver as usize] = u64::from(!scenario.device.is_empty());
        // A clock that has never been 0: a side takes that for "not yet".
        World { words, now: 1, programs, closes: BTreeMap::new(), seen_stopped: false, replaced: false, locked: None }
    }

    fn read(&self, who: usize, word: Word) -> u64 {
        let own = self.programs[who].buffer.iter().rev().find(|entry| entry.0 == word);
        own.map_or(self.words[word as usize], |entry| entry.1)
    }

    fn write(&mut self, who: usize, word: Word, value: u64, order: Order) -> u64 {
        // What the main named last holds for the opening that it makes next, and for one that is open.
        let state = self.read(who, Word::State);
        if word == Word::State {
            let close = self.read(who, Word::ExpectedClose);
            self.closes.insert(protocol::generation(value), close);
        } else if word == Word::ExpectedClose && protocol::phase(state) == protocol::OPEN {
            self.closes.insert(protocol::generation(state), value);
        }
        if word == Word::DeviceOpen && value == 1 {
            let generation = self.read(who, Word::DeviceGeneration);
            let close = self.now + self.read(who, Word::DeviceExpectedUs) * 1000;
            self.closes.insert(generation, close);
        }
        self.programs[who].buffer.push((word, value, order));
        0
    }

    /// Worlds in which one more store of this program is seen by all.
    fn flushed(&self, who: usize) -> impl Iterator<Item = World> + '_ {
        let buffer = &self.programs[who].buffer;
        let may_go = move |&at: &usize| {
            let (word, _, order) = buffer[at];
            buffer[..at].iter().all(|before| before.0 != word && order == Order::Relaxed)
        };
        (0..buffer.len()).filter(may_go).map(move |at| {
            let mut next = self.clone();
            let (word, value, _) = next.programs[who].buffer.remove(at);
            next.words[word as usize] = value;
            next
        })
    }

    /// One step of a call: `None` where it cannot be made; the call's result where this step ended it.
    fn step<T>(
        &mut self,
        who: usize,
        scenario: &Scenario,
        call: impl FnOnce(&Stepper<'_>) -> Result<T, Stopped>,
    ) -> Option<Option<T>> {
        let log = std::mem::take(&mut self.programs[who].log);
        let (timed, weaken) = (scenario.last_time > 1, &scenario.weaken[..]);
        let stepper = Stepper { world: RefCell::new(self), who, timed, weaken, log: RefCell::new((log, 0, false)) };
        let outcome = call(&stepper);
        let (log, ..) = stepper.log.into_inner();
        match outcome {
            Ok(done) => Some(Some(done)),
            Err(Stopped::Next) => {
                self.programs[who].log = log;
                Some(None)
            }
            Err(Stopped::Blocked) => None,
        }
    }

    /// In how many ways this program may go on.
    fn choices(&self, who: usize, scenario: &Scenario) -> usize {
        let program = &self.programs[who];
        match program.doing {
            Doing::Looks if program.log.is_empty() => scenario.needs.len(),
            Doing::Claims if scenario.mortal && who > FIRST_SIDE && !program.log.is_empty() => 2,
            _ => 1,
        }
    }

    /// The world after this program's next step in one of those ways, if it can take it; an error where something happened
    /// that must not.
    fn after(
        &self,
        who: usize,
        choice: usize,
        scenario: &Scenario,
        found: &mut Found,
    ) -> Result<Option<World>, String> {
        let mut next = self.clone();
        let doing = self.programs[who].doing.clone();
        let lines = if who == MAIN { &scenario.script } else { &scenario.device };
        let end = |next: &mut World, doing| next.programs[who].doing = doing;
        match doing {
            Doing::Ended | Doing::Sleeps => return Ok(None),
            Doing::Line(at) => {
                let Some(line) = lines.get(at) else {
                    end(&mut next, Doing::Ended);
                    return Ok(Some(next));
                };
                if matches!(line, Do::Open(_)) || matches!(line, Do::Store(Word::DeviceGeneration, _)) {
                    next.seen_stopped = false;
                }
                // Who asks for a device has seen its stores.
                if *line == Do::Observe && who != MAIN && !next.programs[who].buffer.is_empty() {
                    return Ok(None);
                }
                let Some(done) = next.step(who, scenario, |m| match *line {
                    Do::Open(ns) => protocol::open(m, ns).map(|asleep| (asleep, None)),
                    Do::Close => protocol::close(m).map(|asleep| (asleep, None)),
                    Do::ShutDown => protocol::shut_down(m).map(|asleep| (asleep, None)),
                    Do::Store(word, value) => m.store(word, value, Order::Publish).map(|()| (false, None)),
                    Do::Observe => {
                        let stopped = protocol::stopped(m)?.is_some();
                        let absent = !stopped && m.load(Word::SidePid, Order::Total)? == 0;
                        Ok((false, Some(stopped || absent)))
                    }
                }) else {
                    return Ok(None);
                };
                if let Some((asleep, observed)) = done {
                    end(&mut next, if asleep { Doing::Wakes(at + 1) } else { Doing::Line(at + 1) });
                    match observed {
                        Some(true) => next.observe_stopped(found)?,
                        Some(false) => found.not_stopped += 1,
                        None => {}
                    }
                }
            }
            Doing::Wakes(at) => {
                for program in &mut next.programs {
                    if program.doing == Doing::Sleeps {
                        program.doing = Doing::Wakes2;
                    }
                }
                end(&mut next, Doing::Line(at));
            }
            Doing::Claims | Doing::GetsReady if self.locked.is_some_and(|holder| holder != who) => return Ok(None),
            Doing::Claims if choice == 1 => {
                found.died += 1;
                next.locked = None;
                next.programs[who].log.clear();
                end(&mut next, Doing::Ended);
            }
            Doing::Claims => {
                next.locked = Some(who);
                let Some(done) = next.step(who, scenario, |m| protocol::claim(m, who as u64, u64::MAX)) else {
                    return Ok(None);
                };
                if let Some(side) = done {
                    let side = side.expect("the lock of places excludes the others");
                    found.replaced += usize::from(next.replaced);
                    next.programs[who].counted = side.finished();
                    next.programs[who].side = Some(side);
                    end(&mut next, Doing::Unlocks(false));
                }
            }
            Doing::GetsReady => {
                next.locked = Some(who);
                let side = next.programs[who].side.clone().unwrap();
                let ready = next.step(who, scenario, |m| side.ready(m, who as u64));
                let Some(done) = ready else { return Ok(None) };
                if done.is_some() {
                    end(&mut next, Doing::Unlocks(true));
                }
            }
            Doing::Unlocks(ready) => {
                if !next.programs[who].buffer.is_empty() {
                    return Ok(None);
                }
                next.locked = None;
                end(&mut next, if ready { Doing::Looks } else { Doing::GetsReady });
            }
            Doing::Looks => {
                let mut side = next.programs[who].side.clone().unwrap();
                if next.programs[who].log.is_empty() {
                    next.programs[who].need = scenario.needs[choice];
                }
                let need = next.programs[who].need;
                let Some(done) = next.step(who, scenario, |m| side.look(m, need)) else { return Ok(None) };
                if let Some(look) = done {
                    next.programs[who].side = Some(side);
                    let works = next.programs[who].counted < MOST_OPERATIONS;
                    end(
                        &mut next,
                        match look {
                            Look::Go if works => Doing::Works,
                            // It may, and does not: there would be no end of states.
                            Look::Go => Doing::Looks,
                            Look::Again => Doing::Looks,
                            Look::Wait(state) | Look::Late(state, _) => Doing::FallsAsleep(state),
                            Look::TooShort(_) => Doing::Looks,
                            Look::ShutDown | Look::LeaseLost => Doing::Ended,
                        },
                    );
                    if look == Look::Go && works {
                        found.worked += 1;
                        next.check_start(who, scenario)?;
                    }
                    (next.programs[who].clock, next.programs[who].need) = (0, 0);
                    let by_clock = matches!(look, Look::Wait(state) | Look::Late(state, _) if state & 3 == 1);
                    found.stopped_by_clock += usize::from(by_clock);
                }
            }
            Doing::Works => end(&mut next, Doing::Counts),
            Doing::Counts => {
                let mut side = next.programs[who].side.clone().unwrap();
                let Some(done) = next.step(who, scenario, |m| side.done(m)) else { return Ok(None) };
                if let Some(counted) = done {
                    next.programs[who].counted += u64::from(counted);
                    next.programs[who].side = Some(side);
                    end(&mut next, if counted { Doing::Looks } else { Doing::Ended });
                }
            }
            // Nobody wakes a side when a device opens: it looks again and again.
            Doing::FallsAsleep(_) if !scenario.device.is_empty() => end(&mut next, Doing::Looks),
            Doing::FallsAsleep(state) => {
                let side = next.programs[who].side.clone().unwrap();
                let Some(done) = next.step(who, scenario, |m| side.fall_asleep(m)) else { return Ok(None) };
                if done.is_some() {
                    end(&mut next, Doing::Waits(state));
                }
            }
            Doing::Waits(state) => {
                // The system call is a barrier.
                if !next.programs[who].buffer.is_empty() {
                    return Ok(None);
                }
                let same = next.words[Word::Futex as usize] == state & 0xffff_ffff;
                found.slept += usize::from(same);
                end(&mut next, if same { Doing::Sleeps } else { Doing::Wakes2 });
            }
            Doing::Wakes2 => {
                let side = next.programs[who].side.clone().unwrap();
                let Some(done) = next.step(who, scenario, |m| side.wake(m)) else { return Ok(None) };
                if done.is_some() {
                    end(&mut next, Doing::Looks);
                }
            }
        }
        Ok(Some(next))
    }

    /// The side whose lease holds. Of one that is being replaced it is over, whatever it does.
    fn holder(&self) -> usize {
        if self.replaced { FIRST_SIDE + 1 } else { FIRST_SIDE }
    }

    fn observe_stopped(&mut self, found: &mut Found) -> Result<(), String> {
        found.seen_stopped += 1;
        self.seen_stopped = true;
        let holder = &self.programs[self.holder()];
        if holder.doing == Doing::Works {
            return Err("the main sees a side stand still that works".into());
        }
        let counted = self.words[Word::Operations as usize];
        if !self.replaced && counted != holder.counted && holder.doing != Doing::Counts {
            return Err(format!("the main sees a side stand still and not what it did before: {self:?}"));
        }
        Ok(())
    }

    fn check_start(&self, who: usize, scenario: &Scenario) -> Result<(), String> {
        let side = self.programs[who].side.as_ref().unwrap();
        // One that lost its place since it looked ends its operation beside the other: nobody can call it back.
        if self.seen_stopped && who == self.holder() {
            return Err("an operation starts although the main has seen the side stand still".into());
        }
        if scenario.last_time > 1 {
            let (looked, need) = (self.programs[who].clock, self.programs[who].need);
            let close = self.closes.get(&side.working_in()).copied().unwrap_or(0);
            if looked + need > close {
                return Err(format!("an operation starts at {looked}, needs {need}, and {close} is the end"));
            }
        }
        Ok(())
    }

    /// The page names the side that has the place, once that has said so.
    fn check_place(&self) -> Result<(), String> {
        let second = self.programs.get(FIRST_SIDE + 1).filter(|side| side.buffer.is_empty());
        let ready = second.is_some_and(|side| {
            matches!(side.doing, Doing::Looks | Doing::Works | Doing::Counts | Doing::FallsAsleep(_) | Doing::Waits(_))
        });
        if ready && self.words[Word::SidePid as usize] != (FIRST_SIDE + 1) as u64 {
            return Err("the page does not name the side that has the place".into());
        }
        Ok(())
    }
}

/// All states that can be reached; the first thing that must not happen.
fn explore(scenario: &Scenario) -> Result<Found, String> {
    let mut found = Found::default();
    let (mut seen, mut open) = (HashSet::new(), vec![World::new(scenario)]);
    let fresh = |world: &World, seen: &mut HashSet<u64>| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        seen.insert(hasher.finish())
    };
    while let Some(world) = open.pop() {
        if !fresh(&world, &mut seen) {
            continue;
        }
        world.check_place()?;
        assert!(seen.len() < 3_000_000, "too many states for a test: {:?}", found);
        let mut next: Vec<World> = Vec::new();
        for who in 0..world.programs.len() {
            next.extend(world.flushed(who));
            // The second side comes whenever it likes, as if the lease of the first had ended just then.
            let waits = who > FIRST_SIDE
                && world.programs[who].doing == Doing::Claims
                && world.programs[FIRST_SIDE].side.is_none();
            for choice in 0..if waits { 0 } else { world.choices(who, scenario) } {
                next.extend(world.after(who, choice, scenario, &mut found)?);
            }
        }
        let ended = |program: &Program| program.doing == Doing::Ended;
        if next.is_empty() && !world.programs.iter().all(ended) {
            // Sleeping is bounded by a time limit, which a side needs that another has replaced.
            if !world.replaced && !scenario.naps {
                return Err(format!("somebody sleeps for ever: {:?}", world.programs));
            }
            let mut woken = world.clone();
            woken.programs.iter_mut().filter(|p| p.doing == Doing::Sleeps).for_each(|p| p.doing = Doing::Wakes2);
            next.push(woken);
        }
        if world.now < scenario.last_time {
            next.push(World { now: world.now + 1, ..world.clone() });
        }
        open.extend(next);
    }
    found.states = seen.len();
    Ok(found)
}

const LONG: u64 = 1 << 40;

fn scenario(script: &[Do]) -> Scenario {
    Scenario {
        script: script.to_vec(),
        device: Vec::new(),
        sides: 1,
        mortal: false,
        needs: vec![0],
        last_time: 1,
        naps: false,
        weaken: Vec::new(),
    }
}

fn two_bubbles() -> Scenario {
    use Do::*;
    scenario(&[Open(LONG), Close, Observe, Open(LONG), Close, Observe, ShutDown])
}

/// An opening that is forgotten, and one that follows it.
fn forgotten() -> Scenario {
    use Do::*;
    Scenario { needs: vec![1], last_time: 4, ..scenario(&[Open(2), Close, Open(2), ShutDown]) }
}

/// Operations of two lengths: what is left may be too short for one and long enough for the other.
fn of_two_lengths() -> Scenario {
    use Do::*;
    Scenario { needs: vec![1, 2], last_time: 3, ..scenario(&[Open(2), Close, Observe, ShutDown]) }
}

fn replaced() -> Scenario {
    use Do::*;
    Scenario { sides: 2, ..scenario(&[Open(LONG), Close, Observe, ShutDown]) }
}

#[test]
fn nothing_works_behind_an_acknowledged_closing_and_nobody_sleeps_for_ever() {
    let found = explore(&two_bubbles()).unwrap();
    println!("{found:?}");
    assert!(found.states > 10_000 && found.worked > 0 && found.slept > 0, "{found:?}");
    assert!(found.seen_stopped > 0 && found.not_stopped > 0, "{found:?}");
}

#[test]
fn no_operation_starts_with_less_than_it_needs_left() {
    use Do::*;
    let reopened = Scenario { needs: vec![1], last_time: 4, ..scenario(&[Open(2), Open(2), ShutDown]) };
    for scenario in [forgotten(), reopened, of_two_lengths()] {
        let found = explore(&scenario).unwrap();
        println!("{found:?}");
        assert!(found.worked > 0 && found.stopped_by_clock > 0, "{found:?}");
    }
}

#[test]
fn a_side_that_lost_its_place_speaks_for_nobody() {
    let found = explore(&replaced()).unwrap();
    println!("{found:?}");
    assert!(found.replaced > 0 && found.worked > 0 && found.seen_stopped > 0, "{found:?}");
    let found = explore(&Scenario { mortal: true, ..replaced() }).unwrap();
    println!("{found:?}");
    assert!(found.died > 0 && found.worked > 0 && found.seen_stopped > 0, "{found:?}");
}

#[test]
fn a_device_opens_and_closes_by_stores_in_order() {
    use Do::*;
    let opening = |generation| {
        [Store(Word::DeviceGeneration, generation), Store(Word::DeviceExpectedUs, 1), Store(Word::DeviceOpen, 1)]
    };
    let closing = [Store(Word::DeviceOpen, 0), Observe];
    let device = [&opening(1)[..], &closing, &opening(2), &closing].concat();
    let found = explore(&Scenario { device, ..scenario(&[ShutDown, Observe]) }).unwrap();
    println!("{found:?}");
    assert!(found.worked > 0 && found.seen_stopped > 0, "{found:?}");
}

/// The model sees what it is there to see: with a weaker order of one word, something goes wrong that it finds. Of `Asleep`
/// and `SidePid` it cannot, because the system calls that follow, to sleep and to give a lock back, are barriers of their
/// own.
#[test]
fn weaker_orders_are_found_out() {
    let weak = |scenario: Scenario, words: &[Word], order| {
        let weaken = words.iter().map(|&word| (word, order)).collect();
        let answer = explore(&Scenario { weaken, ..scenario });
        answer.err().unwrap_or_else(|| panic!("{words:?} as {order:?} are not found out"))
    };
    assert!(weak(two_bubbles(), &[Word::Futex], Order::Publish).contains("sleeps for ever"));
    assert!(weak(two_bubbles(), &[Word::Stopped], Order::Relaxed).contains("not what it did before"));
    let opening = [Word::State, Word::Futex, Word::ExpectedClose];
    let naps = Scenario { naps: true, ..forgotten() };
    assert!(weak(naps, &opening, Order::Relaxed).contains("is the end"));
}
