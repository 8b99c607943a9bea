//! Whether a list of operations is a whole schedule: every operation there once, in an order that its own stage can run.
//! Whether the stages wait for each other in a circle is found out by running them ([`super::place`]).

use super::Mistake;
use super::read::{Found, Listed};
use crate::pipeline::layout::Placement;
use crate::pipeline::operations::OperationKind;
use crate::pipeline::schedule::{StageOperation, Work};
use crate::units::counted;

/// A list that is whole, by stages.
#[derive(Debug)]
pub struct Order {
    pub stages: usize,
    pub micro_batches: usize,
    pub chunks: usize,
    /// Whether every micro-batch runs in one of two chunks only: the directions of a two-way pipeline.
    pub two_way: bool,
    /// The lists of the stages, one after another.
    pub operations: Vec<StageOperation>,
    /// Where each stage's list begins, with one more entry than stages.
    pub offsets: Vec<usize>,
    /// When each of `operations` starts, where the file says it of all.
    pub start_ns: Option<Vec<u64>>,
}

/// Where an operation runs, and of which micro-batch, in the order in which a whole list has them: stage, chunk,
/// micro-batch.
type Cell = (u32, u16, u32);

/// Checks the list and puts it in the order of its stages.
pub fn check(found: &Found) -> Result<Order, Mistake> {
    let list = &found.listed;
    let stages = counted_up("stage", list, |o| o.stage)?;
    let micro_batches = counted_up("micro-batch", list, |o| o.micro_batch)?;
    let chunks = counted_up("chunk", list, |o| u32::from(o.chunk))?;
    agree(found, [stages, micro_batches, chunks])?;
    let ways = ways(found, micro_batches, chunks)?;
    let timed = list.iter().all(|o| o.start_ns.is_some());
    let mut order: Vec<u32> = (0..list.len() as u32).collect();
    let at = |entry: u32| &list[entry as usize];
    // Stable: what starts at once, because it takes no time, stays in the list's order.
    order.sort_by_key(|&entry| (at(entry).stage, if timed { at(entry).start_ns } else { None }));
    let entries = Entries { list, chunks, timed };
    let works = entries.works([stages, micro_batches], ways.as_deref(), &order)?;
    entries.pairs(&order, &works)?;
    let operation = |&entry: &u32| {
        let o = at(entry);
        let plain = StageOperation::new(works[entry as usize], o.micro_batch as usize, o.chunk as usize);
        if o.paired { plain.in_pair() } else { plain }
    };
    Ok(Order {
        stages,
        micro_batches,
        chunks,
        two_way: ways.is_some(),
        operations: order.iter().map(operation).collect(),
        offsets: (0..=stages).map(|stage| order.partition_point(|&e| (at(e).stage as usize) < stage)).collect(),
        start_ns: timed.then(|| order.iter().filter_map(|&entry| at(entry).start_ns).collect()),
    })
}

/// How many stages (micro-batches, chunks) there are: each number from 0 to the highest has an operation.
fn counted_up(what: &str, list: &[Listed], number: impl Fn(&Listed) -> u32) -> Result<usize, Mistake> {
    let count = list.iter().map(|o| number(o) as usize + 1).max().unwrap_or(0);
    // Of more numbers than operations one has none, and is among the first.
    let mut there = vec![false; count.min(list.len() + 1)];
    for o in list {
        if let Some(seen) = there.get_mut(number(o) as usize) {
            *seen = true;
        }
    }
    match there.iter().position(|seen| !seen) {
        None => Ok(count),
        Some(missing) => Err((
            format!("no operation is of {what} {missing}, though the highest is {what} {}", count - 1),
            format!("count them from 0 without a gap, or add the operations of {what} {missing}"),
        )),
    }
}

/// What the file says of its sizes is what its list has.
fn agree(found: &Found, held: [usize; 3]) -> Result<(), Mistake> {
    for ((what, said), held) in ["stage", "micro-batch", "chunk"].into_iter().zip(found.sizes).zip(held) {
        if let Some(said) = said
            && said != held as u64
        {
            return Err((
                format!("it says {}, its list has {}", counted(said, what), counted(held, what)),
                "correct the number or the list".into(),
            ));
        }
    }
    Ok(())
}

/// Of a two-way pipeline the chunk in which each micro-batch runs. `None` where all of them run in all chunks.
fn ways(found: &Found, micro_batches: usize, chunks: usize) -> Result<Option<Vec<u16>>, Mistake> {
    let said = found.says.map(|name| (name.text(), name.placement()));
    if let Some((name, placement)) = said
        && placement != Placement::Loop
        && chunks != 2
    {
        return Err((
            format!(
                "its `schedule` is {name}, which has 2 chunks on every stage, its list has {}",
                counted(chunks, "chunk")
            ),
            "correct `schedule` or leave it out".into(),
        ));
    }
    if chunks != 2 || said.is_some_and(|(_, placement)| placement != Placement::Both) {
        return Ok(None);
    }
    let mut ways: Vec<Option<(u16, usize)>> = vec![None; micro_batches];
    for (index, o) in found.listed.iter().enumerate() {
        let &mut (chunk, first) = ways[o.micro_batch as usize].get_or_insert((o.chunk, index));
        if chunk == o.chunk {
            continue;
        }
        return match said {
            None => Ok(None),
            Some((name, _)) => Err((
                format!(
                    "micro-batch {} runs in both chunks (entries {} and {}), and in {name} each goes one way",
                    o.micro_batch,
                    first + 1,
                    index + 1
                ),
                "correct the micro-batches, or `schedule`, or leave it out".into(),
            )),
        };
    }
    Ok(Some(ways.into_iter().flatten().map(|(chunk, _)| chunk).collect()))
}

/// The list, and how its operations are called.
struct Entries<'a> {
    list: &'a [Listed],
    chunks: usize,
    /// Whether the order is that of the start times.
    timed: bool,
}

impl Entries<'_> {
    /// `F of micro-batch 3 on stage 1`, and the chunk where there are several.
    fn of(&self, kind: OperationKind, (stage, chunk, micro_batch): Cell) -> String {
        format!("{} of {}", kind.text(), self.place((stage, chunk, micro_batch)))
    }

    fn place(&self, (stage, chunk, micro_batch): Cell) -> String {
        let chunk = if self.chunks > 1 { format!(", chunk {chunk}") } else { String::new() };
        format!("micro-batch {micro_batch} on stage {stage}{chunk}")
    }

    /// `entry 7, F of micro-batch 3 on stage 1`.
    fn entry(&self, entry: u32) -> String {
        let o = &self.list[entry as usize];
        format!("entry {}, {}", entry + 1, self.of(o.kind, (o.stage, o.chunk, o.micro_batch)))
    }

    /// What each entry computes; that everything is there once, and in order.
    fn works(
        &self,
        [stages, micro_batches]: [usize; 2],
        ways: Option<&[u16]>,
        order: &[u32],
    ) -> Result<Vec<Work>, Mistake> {
        let mut position = vec![0u32; order.len()];
        (0..).zip(order).for_each(|(at, &entry)| position[entry as usize] = at);
        let mut sorted: Vec<(Cell, OperationKind, u32)> =
            (0..).zip(self.list).map(|(entry, o)| ((o.stage, o.chunk, o.micro_batch), o.kind, entry)).collect();
        sorted.sort_unstable();
        let mut wanted = (0..stages as u32).flat_map(|stage| {
            let chunks = (0..self.chunks as u16).flat_map(|chunk| (0..micro_batches as u32).map(move |m| (chunk, m)));
            let here = chunks.filter(|&(chunk, m)| ways.is_none_or(|ways| ways[m as usize] == chunk));
            here.map(move |(chunk, m)| (stage, chunk, m))
        });
        let missing = |cell| {
            let cure =
                "list F and B of every micro-batch on every stage, and in every chunk unless it is a two-way pipeline";
            (format!("no operation of {}", self.place(cell)), cure.to_string())
        };
        let mut works = vec![Work::Forward; order.len()];
        // A B without its W, and a W: in a list without pairs there are not both.
        let mut examples = [None, None];
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            let cell = group[0].0;
            if let Some(other) = wanted.next()
                && other != cell
            {
                return Err(missing(other));
            }
            let Passes { backward, weight, .. } = self.whole(cell, group, &position)?;
            works[backward as usize] = if weight.is_some() { Work::BackwardInput } else { Work::Backward };
            if let Some(entry) = weight {
                works[entry as usize] = Work::BackwardWeight;
            }
            examples[usize::from(weight.is_some())].get_or_insert(weight.unwrap_or(backward));
        }
        if let Some(cell) = wanted.next() {
            return Err(missing(cell));
        }
        match examples {
            [Some(without), Some(with)] if !self.list.iter().any(|o| o.paired) => Err((
                format!("{}, has no W, and entry {} has one", self.entry(without), with + 1),
                "list a W for every B, or none at all: then every B is the whole backward".into(),
            )),
            _ => Ok(works),
        }
    }

    /// The entries of one micro-batch's F, B and, if there is one, W in a cell: each there once, and in that order.
    fn whole(&self, cell: Cell, group: &[(Cell, OperationKind, u32)], position: &[u32]) -> Result<Passes, Mistake> {
        if let Some(twice) = group.windows(2).find(|two| two[0].1 == two[1].1) {
            return Err((
                format!("entries {} and {} are both {}", twice[0].2 + 1, twice[1].2 + 1, self.of(twice[0].1, cell)),
                "keep one of them".into(),
            ));
        }
        let of = |kind| group.iter().find(|(_, k, _)| *k == kind).map(|&(.., entry)| entry);
        let needed = |kind: OperationKind| {
            of(kind).ok_or_else(|| {
                let other = self.entry(group[0].2);
                (format!("{other}, has no {}", kind.text()), "list F and B of every micro-batch".to_string())
            })
        };
        let passes = Passes {
            forward: needed(OperationKind::Forward)?,
            backward: needed(OperationKind::Backward)?,
            weight: of(OperationKind::Weight),
        };
        let order = [Some(passes.forward), Some(passes.backward), passes.weight].into_iter().flatten();
        let order: Vec<u32> = order.collect();
        if let Some(two) = order.windows(2).find(|two| position[two[0] as usize] > position[two[1] as usize]) {
            let by = if self.timed { " by its start_ns" } else { "" };
            let first = self.list[two[0] as usize].kind.text();
            return Err((
                format!("{}, comes before its {first} (entry {}){by}", self.entry(two[1]), two[0] + 1),
                "on each stage a micro-batch's F comes first, then its B, then its W".into(),
            ));
        }
        Ok(passes)
    }

    /// That the halves of each pair stand one behind the other and can run side by side.
    fn pairs(&self, order: &[u32], works: &[Work]) -> Result<(), Mistake> {
        let at = |entry: u32| &self.list[entry as usize];
        let mut rest = order;
        while let [first, behind @ ..] = rest {
            rest = behind;
            let f = at(*first);
            if !f.paired {
                continue;
            }
            let second = behind.first().filter(|&&b| {
                let (whole, b) = (works[b as usize] == Work::Backward, at(b));
                let beside = b.paired && b.stage == f.stage && b.micro_batch != f.micro_batch;
                let across = b.chunk as usize == self.chunks - 1 - f.chunk as usize;
                f.kind == OperationKind::Forward && beside && across && whole
            });
            if second.is_none() {
                let chunk = if self.chunks > 1 { " in the chunk counted from the other end" } else { "" };
                return Err((
                    format!("{}, is `paired` with nothing it could run beside", self.entry(*first)),
                    format!(
                        "a pair is an F and, directly behind it on its stage, the B of another micro-batch{chunk}, without a W of its own; both are `paired`"
                    ),
                ));
            }
            rest = &behind[1..];
        }
        Ok(())
    }
}

/// The entries of one micro-batch in one cell.
struct Passes {
    forward: u32,
    backward: u32,
    weight: Option<u32>,
}
