//! The presets: how much is measured, and how long each case may take.

use super::stop_rule::StopRule;
use crate::{Error, Result, nearest};

/// How much is measured: the list of cases, and the stop rule of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// At most 60 cases, 90 s on two cores: enough to see that everything works, and roughly how fast.
    Quick,
    /// At most 250 cases, 5 min on two cores; `cargo bench` runs this one.
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
            Preset::Quick => StopRule { min_samples: 12, max_samples: 40, relative_width: 0.05, cap_ns: 500_000_000 },
            Preset::Standard => {
                StopRule { min_samples: 12, max_samples: 100, relative_width: 0.02, cap_ns: 900_000_000 }
            }
            Preset::Full => {
                StopRule { min_samples: 20, max_samples: 1000, relative_width: 0.01, cap_ns: 5_000_000_000 }
            }
        }
    }
}
