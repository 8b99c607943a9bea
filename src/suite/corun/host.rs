//! The host's co-run cases: the layer's forward or backward beside each small model and beside single-resource
//! pressure, by sharing mode; probes of each resource beside each side; and the main beside nothing.

use super::{LEAST_PAIRS, sample_of, sampling, worth_keeping};
use crate::Result;
use crate::clock::Trial;
use crate::corun::load::{Load, Running};
use crate::corun::mains::{Main, MainSpec};
use crate::corun::pair::{self, Nobody, OnHost};
use crate::corun::pressure::{PressureSpec, Resource};
use crate::corun::sharing::Sharing;
use crate::models::SideSpec;
use crate::ops::DType;
use crate::records::measurement::{Backend, Kind, Verified};
use crate::shape::LayerShape;
use crate::stats::SplitMix;
use crate::suite::Preset;
use crate::suite::case::{Case, CaseInfo, Context, RawSample, Sampling, Spec};

pub fn cases(preset: Preset) -> Vec<Box<dyn Spec>> {
    let list = match preset {
        Preset::Quick => quick(),
        Preset::Standard => standard(),
        Preset::Full => full(),
    };
    list.into_iter().map(|pair| Box::new(pair) as Box<dyn Spec>).collect()
}

/// One row: who beside whom, and how they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PairSpec {
    sharing: Sharing,
    main: MainSpec,
    side: Load,
}

const fn shape(hidden: u64, heads: u64, sequence: u64) -> LayerShape {
    LayerShape::new(hidden, heads, sequence, 1, DType::F32)
}

/// The layer that stands in every preset: 12 MiB of weights, some 10 ms forward on two cores.
const USUAL: LayerShape = shape(512, 8, 128);

fn models() -> impl Iterator<Item = Load> + Clone {
    SideSpec::usual().into_iter().map(Load::Model)
}

fn pressures() -> impl Iterator<Item = Load> + Clone {
    Resource::ALL.into_iter().map(|r| Load::Pressure(PressureSpec::full(r)))
}

fn sides() -> impl Iterator<Item = Load> + Clone {
    models().chain(pressures())
}

fn rows(sharing: Sharing, main: MainSpec, sides: impl Iterator<Item = Load>) -> Vec<PairSpec> {
    sides.map(|side| PairSpec { sharing, main, side }).collect()
}

fn nothing() -> std::iter::Once<Load> {
    std::iter::once(Load::Nothing)
}

fn quick() -> Vec<PairSpec> {
    let mlp = SideSpec::usual().into_iter().take(1).map(Load::Model);
    let memory = std::iter::once(Load::Pressure(PressureSpec::full(Resource::Memory)));
    [
        rows(Sharing::Free, MainSpec::Forward(USUAL), nothing()),
        rows(Sharing::Free, MainSpec::Forward(USUAL), mlp.clone()),
        rows(Sharing::Free, MainSpec::Forward(USUAL), memory),
        rows(Sharing::Split, MainSpec::Forward(USUAL), mlp.clone()),
        rows(Sharing::Nice, MainSpec::Forward(USUAL), mlp.clone()),
        rows(Sharing::Free, MainSpec::Probe(Resource::Memory), mlp),
    ]
    .concat()
}

/// 47 rows: every side, and nothing, beside forward and backward in free sharing and beside forward in the other modes;
/// and the small models beside a probe of each resource (of the pressure programs only the one of that resource: it
/// sets the scale).
fn standard() -> Vec<PairSpec> {
    let all = nothing().chain(sides());
    let mut list = rows(Sharing::Free, MainSpec::Forward(USUAL), all.clone());
    list.extend(rows(Sharing::Free, MainSpec::Backward(USUAL), all.clone()));
    list.extend(rows(Sharing::Split, MainSpec::Forward(USUAL), all.clone()));
    list.extend(rows(Sharing::Nice, MainSpec::Forward(USUAL), all));
    for resource in Resource::ALL {
        let scale = Load::Pressure(PressureSpec::full(resource));
        list.extend(rows(Sharing::Free, MainSpec::Probe(resource), models().chain(std::iter::once(scale))));
    }
    list
}

/// Everything beside everything, for three layers, and pressure at half its strength.
fn full() -> Vec<PairSpec> {
    let half = Resource::ALL.into_iter().map(|r| Load::Pressure(PressureSpec { percent: 50, ..PressureSpec::full(r) }));
    let all = nothing().chain(sides()).chain(half);
    let mut list = Vec::new();
    for sharing in Sharing::ALL {
        for layer in [USUAL, shape(256, 4, 256), shape(1024, 16, 256)] {
            list.extend(rows(sharing, MainSpec::Forward(layer), all.clone()));
            list.extend(rows(sharing, MainSpec::Backward(layer), all.clone()));
        }
        for resource in Resource::ALL {
            list.extend(rows(sharing, MainSpec::Probe(resource), all.clone()));
        }
    }
    list
}

impl Spec for PairSpec {
    fn id(&self) -> String {
        format!("corun/{}/{}+{}", self.sharing.name(), self.main.name(), self.side)
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let (main, side) = self.sharing.configs(context.cores)?;
        let mut info = CaseInfo::new(self.id(), Kind::Corun, Backend::Host)
            .param("side", self.side.to_string())
            .param("side_unit", self.side.unit())
            .param("sharing", self.sharing.name())
            .param("main_threads", main.threads)
            .param("side_threads", side.threads);
        for (name, config) in [("main_cores", &main), ("side_cores", &side)] {
            if let Some(cores) = &config.cores {
                info = info.param(name, cores.clone());
            }
        }
        info.params.extend(self.main.params());
        info.sharing = Some(self.sharing.name().into());
        info.flop = self.main.flop();
        let cache = context.last_level_cache_bytes;
        Ok(Box::new(PairCase { spec: *self, info, configs: Some((main, side)), cache, ready: None, discarded: 0 }))
    }
}

struct PairCase {
    spec: PairSpec,
    info: CaseInfo,
    configs: Option<(crate::ops::host::HostConfig, crate::ops::host::HostConfig)>,
    cache: u64,
    ready: Option<Ready>,
    discarded: u64,
}

struct Ready {
    main: Main,
    side: Option<Running>,
    random: SplitMix,
}

impl Ready {
    fn pair(&mut self) -> Result<pair::Pair> {
        let Ready { main, side, random } = self;
        main.within(|main| match side {
            Some(side) => pair::measure(&mut OnHost { main, side }, random),
            None => pair::measure(&mut OnHost { main, side: &mut Nobody }, random),
        })
    }
}

impl Case for PairCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling(LEAST_PAIRS)
    }

    /// Nothing is checked here: the layer's and the small models' results are, in their own cases.
    fn prepare(&mut self) -> Result<Option<Verified>> {
        if let Some((main, side)) = self.configs.take() {
            let main = Main::new(self.spec.main, main, self.cache)?;
            let side = Running::start(self.spec.side, side, self.cache)?;
            self.ready = Some(Ready { main, side, random: SplitMix(0xc0_4a11) });
        }
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let Some(ready) = &mut self.ready else { return Ok(Vec::new()) };
        let may_starve = self.spec.sharing == Sharing::Nice || self.spec.side == Load::Nothing;
        let pairs = worth_keeping(n, may_starve, &mut self.discarded, || Ok((ready.pair()?, ())))?;
        Ok(pairs.into_iter().map(|(pair, ())| sample_of(pair, 1, &Trial::default())).collect())
    }

    fn discarded(&self) -> u64 {
        self.discarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Platform;
    use crate::suite::case::Detail;
    use std::collections::HashSet;

    fn ids(preset: Preset) -> Vec<String> {
        cases(preset).iter().map(|s| s.id()).collect()
    }

    #[test]
    fn the_lists_keep_their_sizes_and_names() {
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        assert!(quick.len() <= 6 && standard.len() <= 47, "{} {}", quick.len(), standard.len());
        for list in [&quick, &standard, &full] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len(), "no name twice");
        }
        assert!(standard.iter().all(|id| full.contains(id)) && quick.iter().all(|id| standard.contains(id)));
        for id in [
            "corun/free/gpt-h512-a8-s128-b1-t1-f32-forward+convnet-b16",
            "corun/nice/gpt-h512-a8-s128-b1-t1-f32-forward+pressure-memory",
            "corun/free/gpt-h512-a8-s128-b1-t1-f32-forward+nothing",
            "corun/free/gpt-h512-a8-s128-b1-t1-f32-backward+nothing",
            "corun/split/gpt-h512-a8-s128-b1-t1-f32-forward+nothing",
            "corun/nice/gpt-h512-a8-s128-b1-t1-f32-forward+nothing",
            "corun/free/probe-memory+mlp-b32",
        ] {
            assert!(standard.iter().any(|s| s == id), "{id}");
        }
    }

    fn context() -> Context {
        Context { preset: Preset::Quick, platform: Platform::Host, cores: 1, last_level_cache_bytes: 1 << 20 }
    }

    #[test]
    fn one_core_cannot_be_split_and_says_so() {
        let spec = rows(Sharing::Split, MainSpec::Forward(USUAL), nothing())[0];
        assert!(spec.build(&context()).err().unwrap().to_string().contains("two cores"));
    }

    #[test]
    fn pairs_are_measured_with_both_sides_progress() {
        // Some milliseconds: long enough for a side to get somewhere meanwhile.
        let small = MainSpec::Forward(shape(256, 4, 128));
        for side in ["mlp-b2", "pressure-cache", "nothing"] {
            let spec = rows(Sharing::Free, small, std::iter::once(side.parse().unwrap()))[0];
            let mut case = spec.build(&context()).unwrap();
            assert!(case.prepare().unwrap().is_none());
            let samples = case.sample(2).unwrap();
            assert!((1..=2).contains(&samples.len()), "{side}");
            assert_eq!(case.info().params["phase"], "forward");
            for sample in samples {
                let Detail::Pair { alone_ns, side_alone_per_s, overlap_percent, .. } = sample.detail else {
                    panic!("{side}: not a pair")
                };
                assert!(sample.ns > 0.0 && alone_ns > 0.0 && overlap_percent >= 95.0);
                assert!(side_alone_per_s.is_finite() && (side != "nothing" || side_alone_per_s == 0.0));
            }
        }
    }
}
