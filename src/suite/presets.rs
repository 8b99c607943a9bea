//! The presets: how much is measured, and how long each case may take.

use super::stop_rule::StopRule;
use crate::{Error, Result, nearest};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// ≤ 60 cases, 90 s on two cores: does it work, roughly how fast.
    Quick,
    /// ≤ 250 cases, 6 min on two cores: what `cargo bench` runs.
    Standard,
    /// Every shape, size and pair.
    Full,
}

impl Preset {
    /// Every preset, the shortest first.
    pub const ALL: [Preset; 3] = [Preset::Quick, Preset::Standard, Preset::Full];

    pub const fn name(self) -> &'static str {
        match self {
            Preset::Quick => "quick",
            Preset::Standard => "standard",
            Preset::Full => "full",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        Preset::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| {
            Error::input(format!("`{text}` is not a preset"), nearest::cure(text, Preset::ALL.map(Preset::name)))
        })
    }

    pub const fn stop_rule(self) -> StopRule {
        match self {
            Preset::Quick => StopRule { min_samples: 8, max_samples: 40, relative_width: 0.05, cap_ns: 500_000_000 },
            Preset::Standard => {
                StopRule { min_samples: 10, max_samples: 100, relative_width: 0.02, cap_ns: 900_000_000 }
            }
            Preset::Full => {
                StopRule { min_samples: 20, max_samples: 1000, relative_width: 0.01, cap_ns: 5_000_000_000 }
            }
        }
    }
}
