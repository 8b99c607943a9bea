//! The presets: how much is measured, and how long each case may take.

use super::Platform;
use super::stop_rule::StopRule;
use crate::{Error, Result, nearest};

/// How much is measured: the list of cases, and the stop rule of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// At most 65 cases, 30 to 90 s on two cores: enough to see that everything works, and roughly how fast.
    Quick,
    /// At most 260 cases, 6 min on two cores; `cargo bench` runs this one.
    Standard,
    /// Every shape, size and pair in the lists.
    Full,
}

impl Preset {
    /// Every preset, the shortest first.
    pub const ALL: [Preset; 3] = [Preset::Quick, Preset::Standard, Preset::Full];

    /// The preset's name on the command line and in records: `quick`, `standard` or `full`.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Quick => "quick",
            Preset::Standard => "standard",
            Preset::Full => "full",
        }
    }

    /// The preset of this name; an error for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        Preset::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| {
            Error::input(format!("`{text}` is not a preset"), nearest::cure(text, Preset::ALL.map(Preset::name)))
        })
    }

    /// When a case of this preset has been measured well enough (docs/method.md, "One case").
    pub const fn stop_rule(self) -> StopRule {
        match self {
            Preset::Quick => StopRule::new(12, 40, 0.05, 500_000_000),
            Preset::Standard => StopRule::new(12, 100, 0.02, 900_000_000),
            Preset::Full => StopRule::new(20, 1000, 0.01, 5_000_000_000),
        }
    }

    /// When a filled stage of this preset has been measured well enough: the slowdown's 95 % interval is at most ±1 % wide.
    /// A pair of iterations takes a third of a second, so a stage has more time than other cases have.
    pub const fn stage_rule(self) -> StopRule {
        match self {
            Preset::Quick => StopRule::new(12, 40, 0.02, 500_000_000),
            Preset::Standard => StopRule::new(12, 100, 0.02, 8_000_000_000),
            Preset::Full => StopRule::new(20, 1000, 0.02, 60_000_000_000),
        }
    }

    /// How often a run on this platform comes to each of its cases. On the CPU the whole list lies between two visits
    /// of a case, because what slows it drifts more slowly than one case takes (docs/method.md, "Visits"); a GPU's
    /// clock is watched instead.
    pub const fn visits(self, platform: Platform) -> usize {
        match platform {
            Platform::Host => 5,
            Platform::Gpu(_) | Platform::Software(_) => 1,
        }
    }
}
