//! The presets: which cases, and how long each may take. The lists are fixed; a case keeps its name for ever.

use super::collectives::{Choices, SharedCrew};
use super::sampler::StopRule;
use super::{Platform, Spec, collectives, corun, fill, gpt_layer};
use crate::records::measurement::Kind;
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    /// ≤ 60 cases, 90 s on two cores: does it work, roughly how fast.
    Quick,
    /// ≤ 250 cases, 6 min on two cores: what `cargo bench` runs.
    Standard,
    /// Every shape, size and pair.
    Full,
}

/// The rooms a run can be limited to, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    GptLayer,
    Collectives,
    Corun,
    Fill,
}

impl Group {
    pub const ALL: [Group; 4] = [Group::GptLayer, Group::Collectives, Group::Corun, Group::Fill];

    pub const fn name(self) -> &'static str {
        match self {
            Group::GptLayer => "gpt-layer",
            Group::Collectives => "collectives",
            Group::Corun => "corun",
            Group::Fill => "fill",
        }
    }

    /// Whether a case of this name is one of the group's.
    pub fn holds(self, id: &str) -> bool {
        self == match kind_of(id) {
            Kind::Collective => Group::Collectives,
            Kind::Corun => Group::Corun,
            Kind::Fill => Group::Fill,
            Kind::Layer | Kind::Operation | Kind::End => Group::GptLayer,
        }
    }

    /// The preset's cases of this group, in the order they run.
    pub fn cases(
        self,
        preset: Preset,
        platform: Platform,
        crew: Option<&SharedCrew>,
        choices: &Choices,
    ) -> Vec<Box<dyn Spec>> {
        match self {
            Group::GptLayer => gpt_layer::cases(preset, platform),
            Group::Collectives => collectives::cases(preset, platform, crew, choices),
            Group::Corun => corun::cases(preset, platform),
            Group::Fill => fill::cases(preset, platform),
        }
    }
}

impl Preset {
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Quick => "quick",
            Preset::Standard => "standard",
            Preset::Full => "full",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        [Preset::Quick, Preset::Standard, Preset::Full]
            .into_iter()
            .find(|p| p.name() == text)
            .ok_or_else(|| Error::input(format!("`{text}` is not a preset"), "choose quick, standard or full"))
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

/// The kind a case has by its name alone.
pub fn kind_of(id: &str) -> Kind {
    match id.split('/').next() {
        Some("corun") => Kind::Corun,
        Some("fill") => Kind::Fill,
        Some("host" | "nccl") => Kind::Collective,
        _ if id.contains("/op/") => Kind::Operation,
        _ => Kind::Layer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn all(preset: Preset) -> Vec<String> {
        let choices = Choices::default();
        let all = Group::ALL.iter().flat_map(|g| g.cases(preset, Platform::Host, None, &choices));
        all.map(|spec| spec.id()).collect()
    }

    #[test]
    fn presets_hold_what_they_promise_and_no_name_twice() {
        for (preset, most) in [(Preset::Quick, 60), (Preset::Standard, 250), (Preset::Full, usize::MAX)] {
            let ids = all(preset);
            assert!(ids.len() <= most, "{} has {}", preset.name(), ids.len());
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "a name twice in {}", preset.name());
            for head in ["gpt/", "host/all_reduce/", "host/send_recv/", "corun/", "fill/"] {
                assert!(ids.iter().any(|id| id.starts_with(head)), "{} has no {head}", preset.name());
            }
        }
    }

    #[test]
    fn larger_presets_hold_the_smaller_ones() {
        let standard: HashSet<String> = all(Preset::Standard).into_iter().collect();
        let full: HashSet<String> = all(Preset::Full).into_iter().collect();
        assert!(all(Preset::Quick).iter().all(|id| standard.contains(id)));
        assert!(standard.is_subset(&full));
    }
}
