//! Which layers stand where: an even spread with lighter ends, a list of layers per stage, or Megatron-LM's layout string.

use crate::pipeline::layout::Layout;
use crate::units::counted;

/// The layers of each piece of the model in the order in which a micro-batch runs through them: one piece a stage, or one
/// for each chunk of each stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread(pub Vec<u64>);

/// Why a layout cannot be, as the two halves of an error message.
pub type Mistake = (String, String);

impl Spread {
    /// `layers` over `pieces` as evenly as whole layers go. What is left over goes to the middle: the ends are lighter,
    /// because embedding and head come to them.
    pub fn even(layers: u64, pieces: u64) -> Spread {
        let pieces = pieces.max(1);
        let (base, extra) = (layers / pieces, layers % pieces);
        let first = (pieces - extra) / 2;
        Spread((0..pieces).map(|piece| base + u64::from((first..first + extra).contains(&piece))).collect())
    }

    /// `layers` over the pieces of a layout so that the busiest device has as little to do as whole layers allow: a layer
    /// takes `layer_ns`, the ends of the model take `ends_ns` besides, and a message to either neighbour `message_ns`. One layer
    /// after another goes to the piece whose device has least to do so far; every piece has one. `None` where there are fewer
    /// layers than pieces.
    pub fn balanced(layers: u64, layout: Layout, layer_ns: f64, ends_ns: [u64; 2], message_ns: u64) -> Option<Spread> {
        let pieces = pieces(layout);
        let rest = layers.checked_sub(pieces as u64)?;
        // The devices that hold each piece: two in a two-way pipeline.
        let numbered = Spread((0..pieces as u64).collect()).cells(layout);
        let holders: Vec<Vec<usize>> = (0..pieces)
            .map(|piece| (0..layout.cells()).filter(|&cell| numbered[cell] == piece as u64).collect::<Vec<_>>())
            .map(|cells| cells.into_iter().map(|cell| cell / layout.chunks).collect())
            .collect();
        let mut counts = vec![1; pieces];
        let mut busy = vec![0.0; layout.stages];
        for (piece, holders) in holders.iter().enumerate() {
            let [first, last] = ends_ns.map(|ns| ns as f64);
            let ends = f64::from(piece == 0) * first + f64::from(piece + 1 == pieces) * last;
            let neighbours = f64::from(piece > 0) + f64::from(piece + 1 < pieces);
            let messages = neighbours * message_ns as f64;
            holders.iter().for_each(|&stage| busy[stage] += layer_ns + ends + messages);
        }
        for _ in 0..rest {
            let load = |piece: &usize| holders[*piece].iter().map(|&stage| busy[stage]).fold(0.0, f64::max);
            // Of pieces on devices alike the shortest one: a long piece makes the others of its stage wait.
            let next = (0..pieces).min_by(|a, b| load(a).total_cmp(&load(b)).then(counts[*a].cmp(&counts[*b])))?;
            counts[next] += 1;
            holders[next].iter().for_each(|&stage| busy[stage] += layer_ns);
        }
        Some(Spread(counts))
    }

    /// Layers of all pieces together.
    pub fn layers(&self) -> u64 {
        self.0.iter().fold(0, |sum, &layers| sum.saturating_add(layers))
    }

    /// Reads Megatron-LM's layout string (`--pipeline-model-parallel-layout`): pieces between `|`, each of `E` for the
    /// embedding, `t` for a layer and `L` for the loss; `x*3` repeats a letter and `(…)*3` a group; commas are ignored.
    pub fn parse(text: &str) -> Result<Spread, Mistake> {
        let cure = || "write it like \"Ett|ttt|ttt|ttL\", or as a list of layers, like [2, 3, 3, 2]".to_string();
        let mut flat = String::new();
        let mut rest: &str = &text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>();
        while let Some(first) = rest.chars().next() {
            let (unit, behind) = if first == '(' {
                let end = rest.find(')').ok_or_else(|| (format!("`{text}` has a ( without its )"), cure()))?;
                (&rest[1..end], &rest[end + 1..])
            } else {
                rest.split_at(first.len_utf8())
            };
            if let Some(wrong) = unit.chars().find(|c| !"EtL|".contains(*c)) {
                return Err(match wrong {
                    'm' => (
                        format!("`{text}` has a multi-token prediction layer (m), which has no price yet"),
                        "leave the m out: the plan is then of the model without it".into(),
                    ),
                    '(' => (format!("`{text}` has a group within a group"), cure()),
                    _ => (format!("`{wrong}` in `{text}` is neither E, t, L nor |"), cure()),
                });
            }
            let (times, behind) = match behind.strip_prefix('*') {
                None => (1, behind),
                Some(number) => {
                    let digits = number.chars().take_while(char::is_ascii_digit).count();
                    let times = number[..digits].parse::<usize>().ok().filter(|n| (1..=1 << 14).contains(n));
                    (times.ok_or_else(|| (format!("`{text}` has a * without a number"), cure()))?, &number[digits..])
                }
            };
            if flat.len() + unit.len() * times > 1 << 16 {
                return Err((format!("`{text}` is longer than any model"), cure()));
            }
            flat.push_str(&unit.repeat(times));
            rest = behind;
        }
        let letters = |letter| flat.matches(letter).count();
        let ends = flat.find('E') == Some(0) && flat.ends_with('L');
        if !ends || letters('E') != 1 || letters('L') != 1 {
            return Err((format!("`{text}` does not begin with its one E and end with its one L"), cure()));
        }
        Ok(Spread(flat.split('|').map(|piece| piece.matches('t').count() as u64).collect()))
    }

    /// Whether the spread says what every piece of a layout holds.
    pub fn fits(&self, layout: Layout) -> bool {
        self.0.len() == pieces(layout)
    }

    /// Checks a spread that was given by hand against the model's layers and the pieces of its schedule.
    pub fn check(&self, layers: u64, layout: Layout) -> Result<(), Mistake> {
        let (given, needed) = (self.0.len(), pieces(layout));
        if given != needed {
            let what = format!("layout holds {}, the schedule has {needed}", counted(given, "piece"));
            return Err((
                what,
                "give one entry a stage, or one for each chunk of each stage in the order of the model".into(),
            ));
        }
        if self.layers() != layers {
            let what = format!("layout holds {}, the model has {layers}", counted(self.layers(), "layer"));
            return Err((what, "correct an entry of layout, or layers".into()));
        }
        Ok(())
    }

    /// The layers of every cell of a layout, by the cell's index; in a two-way pipeline those of the cell's stage.
    pub fn cells(&self, layout: Layout) -> Vec<u64> {
        let mut cells = vec![0; layout.cells()];
        let starts = (0..layout.stages).flat_map(|stage| (0..layout.chunks).map(move |chunk| (stage, chunk)));
        for start in starts.filter(|&(stage, chunk)| layout.is_first(stage, chunk)) {
            let chain = std::iter::successors(Some(start), |&(stage, chunk)| layout.next(stage, chunk));
            for ((stage, chunk), layers) in chain.zip(&self.0) {
                cells[layout.cell(stage, chunk)] = *layers;
            }
        }
        cells
    }
}

/// Pieces that a chain of a layout consists of.
pub fn pieces(layout: Layout) -> usize {
    if layout.splits() { layout.cells() } else { layout.stages }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::layout::Placement;

    #[test]
    fn what_does_not_divide_leaves_the_ends_lighter() {
        assert_eq!(Spread::even(24, 4).0, [6, 6, 6, 6]);
        assert_eq!(Spread::even(22, 4).0, [5, 6, 6, 5]);
        assert_eq!(Spread::even(21, 4).0, [5, 6, 5, 5]);
        // BLOOM-176B's 70 layers on 12 stages.
        assert_eq!(Spread::even(70, 12).0, [5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 5]);
        for (layers, pieces) in [(7, 3), (1, 4), (105, 35), (61, 16)] {
            let spread = Spread::even(layers, pieces);
            assert_eq!(spread.layers(), layers);
            assert!(spread.0[0] <= spread.0[pieces as usize / 2]);
        }
    }

    /// A head that takes as long as two layers stands for two; with lighter ends than a layer nothing is moved.
    #[test]
    fn a_balanced_spread_leaves_room_for_the_ends() {
        let layout = |placement, stages, chunks| Layout { placement, stages, chunks };
        let plain = layout(Placement::Loop, 4, 1);
        assert_eq!(Spread::balanced(24, plain, 10.0, [0, 20], 0).unwrap().0, [7, 6, 6, 5]);
        assert_eq!(Spread::balanced(24, plain, 10.0, [1, 4], 0).unwrap().0, [6, 6, 6, 6]);
        // A V has both ends on the first device, an interleaved stage one each on the first and the last.
        let vee = Spread::balanced(24, layout(Placement::Vee, 4, 2), 10.0, [0, 20], 0).unwrap();
        let devices = vee.cells(layout(Placement::Vee, 4, 2));
        let of = |stage: usize| devices[2 * stage] + devices[2 * stage + 1];
        assert_eq!([of(0), of(1), of(2), of(3)], [5, 7, 6, 6]);
        let looped = Spread::balanced(24, layout(Placement::Loop, 4, 2), 10.0, [0, 20], 0).unwrap();
        assert_eq!(looped.layers(), 24);
        assert!(looped.0[7] < looped.0[4] && looped.0[3] + looped.0[7] == 5, "{looped:?}");
        // Both ways hold the whole model, so that device d holds what d − 1 from the end holds.
        let both = Spread::balanced(24, layout(Placement::Both, 4, 2), 10.0, [0, 20], 0).unwrap();
        assert_eq!((both.layers(), both.0[0] + both.0[3] < both.0[1] + both.0[2]), (24, true));
        assert_eq!(Spread::balanced(3, plain, 10.0, [0, 0], 0), None);
        // The first stage sends no gradient on, so that it may hold a layer more.
        assert_eq!(Spread::balanced(25, plain, 10.0, [0, 0], 6).unwrap().0, [7, 6, 6, 6]);
    }

    /// The example of Megatron-LM's own documentation, but for its multi-token prediction.
    #[test]
    fn megatrons_string_is_read() {
        assert_eq!(Spread::parse("Ett|ttt|ttt|ttL").unwrap().0, [2, 3, 3, 2]);
        assert_eq!(Spread::parse("Et*3|(tt|)*29, L").unwrap().0.len(), 31);
        assert_eq!(Spread::parse("Et*3|(tt|)*29, L").unwrap().layers(), 61);
        assert_eq!(Spread::parse("E|t|L").unwrap().0, [0, 1, 0]);
        for (wrong, answer) in [
            ("Et*3|(tt|)*29,m|L", "multi-token"),
            ("Et|tx|L", "`x` in"),
            ("tt|ttL", "begin with its one E"),
            ("Et|t", "begin with its one E"),
            ("Et*|L", "without a number"),
            ("E(tt|L", "without its )"),
            ("E((t|)*2|)*2L", "group within a group"),
            ("Et*16384t*16384t*16384t*16384t*16384L", "longer than any model"),
            ("", "begin with its one E"),
        ] {
            let (what, cure) = Spread::parse(wrong).unwrap_err();
            assert!(what.contains(answer) && !cure.is_empty(), "{wrong}: {what}");
        }
    }

    /// A V's second chunks come back up; both directions of a two-way pipeline hold the whole model.
    #[test]
    fn pieces_follow_the_chain() {
        let layout = |placement, chunks| Layout { placement, stages: 3, chunks };
        let spread = Spread(vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(spread.cells(layout(Placement::Loop, 2)), [1, 4, 2, 5, 3, 6]);
        assert_eq!(spread.cells(layout(Placement::Vee, 2)), [1, 6, 2, 5, 3, 4]);
        assert_eq!(Spread(vec![1, 2, 3]).cells(layout(Placement::Both, 2)), [1, 3, 2, 2, 3, 1]);
        let error = spread.check(20, layout(Placement::Loop, 2)).unwrap_err();
        assert_eq!(error.0, "layout holds 21 layers, the model has 20");
        assert!(spread.check(21, layout(Placement::Loop, 1)).unwrap_err().0.contains("6 pieces, the schedule has 3"));
    }
}
