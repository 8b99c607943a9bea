//! The groups of cases and their lists for each preset. The lists are fixed; a case keeps its name for ever.

use super::collectives::{Choices, SharedCoordinator};
use super::presets::Preset;
use super::{Platform, Spec, collectives, corun, fill, gpt_layer};
use crate::records::measurement::Kind;

/// The groups of cases that a run can be limited to, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Layers, their operations one by one, and training steps of the small models.
    GptLayer,
    /// Collectives between threads of the host, or between GPUs by NCCL.
    Collectives,
    /// Two programs at the same time on one device.
    Corun,
    /// The gate, and a pipeline stage whose bubbles a small model fills.
    Fill,
}

impl Group {
    /// Every group, in the order in which a run measures them.
    pub const ALL: [Group; 4] = [Group::GptLayer, Group::Collectives, Group::Corun, Group::Fill];

    /// The group's name on the command line: `gpt-layer`, `collectives`, `corun` or `fill`.
    pub const fn name(self) -> &'static str {
        match self {
            Group::GptLayer => "gpt-layer",
            Group::Collectives => "collectives",
            Group::Corun => "corun",
            Group::Fill => "fill",
        }
    }

    /// Whether a case of this name belongs to the group.
    pub fn holds(self, id: &str) -> bool {
        self == match kind_of(id) {
            Kind::Collective => Group::Collectives,
            Kind::Corun => Group::Corun,
            Kind::Fill => Group::Fill,
            Kind::Layer | Kind::Operation | Kind::End => Group::GptLayer,
        }
    }

    /// The preset's cases of this group, in the order they run; collectives between GPUs need a coordinator.
    pub fn cases(
        self,
        preset: Preset,
        platform: Platform,
        coordinator: Option<&SharedCoordinator>,
        choices: &Choices,
    ) -> Vec<Box<dyn Spec>> {
        match self {
            Group::GptLayer => gpt_layer::cases(preset, platform),
            Group::Collectives => collectives::cases(preset, platform, coordinator, choices),
            Group::Corun => corun::cases(preset, platform),
            Group::Fill => fill::cases(preset, platform),
        }
    }
}

/// The kind of a case by its name alone; a name of no known form counts as a layer's.
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
        for (preset, most) in [(Preset::Quick, 65), (Preset::Standard, 260), (Preset::Full, usize::MAX)] {
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
