//! The lists are what the fits and the presets count on; a case of each kind is prepared and sampled.

use super::lists::host::{COLD, ENDS, f32_layer};
use super::lists::{CALL, loose, operations_of};
use super::*;
use crate::ops::work::Family;
use crate::shape::Recompute;
use crate::shape::params::{layer_params, operation_params};
use std::collections::BTreeSet;

fn specs(preset: Preset) -> Vec<CaseSpec> {
    let mut seen = HashSet::new();
    lists::host::specs(preset).into_iter().filter(|spec| seen.insert(spec.id())).collect()
}

#[test]
fn presets_keep_to_their_number_of_cases() {
    for (preset, most) in [(Preset::Quick, 32), (Preset::Standard, 115)] {
        let count = cases(preset, Platform::Host).len();
        assert!(count <= most && count * 10 >= most * 9, "{} has {count} cases", preset.name());
    }
    assert!(cases(Preset::Full, Platform::Host).len() > 200);
}

const PLATFORMS: [fn(Preset) -> Vec<CaseSpec>; 3] = [lists::host::specs, lists::gpu::specs, lists::software::specs];

/// A name means one thing: the same operation on the same data, launched in the same way.
#[test]
fn a_name_stands_for_one_case_and_every_shape_is_valid() {
    for specs in PLATFORMS {
        let mut named = std::collections::HashMap::new();
        for spec in [Preset::Quick, Preset::Standard, Preset::Full].into_iter().flat_map(specs) {
            if let CaseSpec::Layer(shape, ..) = &spec {
                shape.validate().unwrap();
            }
            let same = named.entry(spec.id()).or_insert_with(|| spec.clone());
            assert_eq!(*same, spec, "{}", spec.id());
        }
    }
}

#[test]
fn larger_presets_hold_the_smaller_ones() {
    for specs in PLATFORMS {
        let ids = |preset| specs(preset).iter().map(CaseSpec::id).collect::<BTreeSet<_>>();
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        assert_eq!(quick.difference(&standard).next(), None);
        assert_eq!(standard.difference(&full).next(), None);
    }
}

/// How many cases the lists of a GPU hold, and how many the fibers of the software device can run in time.
#[test]
fn the_lists_of_gpus_keep_to_their_number_of_cases() {
    let count = |preset, platform| cases(preset, platform).len();
    assert!((30..=60).contains(&count(Preset::Quick, Platform::Gpu(0))), "{}", count(Preset::Quick, Platform::Gpu(0)));
    let standard = count(Preset::Standard, Platform::Gpu(0));
    assert!((150..=250).contains(&standard), "{standard}");
    assert!(count(Preset::Quick, Platform::Software(0)) <= 60);
}

/// What a fit of each part needs: shapes to hold out, and for every operation of a layer rows of its own.
#[test]
fn standard_holds_enough_to_fit() {
    let specs = specs(Preset::Standard);
    let shapes: HashSet<_> =
        specs.iter().filter_map(|p| if let CaseSpec::Layer(shape, ..) = p { Some(shape) } else { None }).collect();
    assert!(shapes.len() >= 8 && shapes.iter().any(|s| s.tensor == 2));
    for recompute in [Recompute::Selective, Recompute::Full] {
        assert!(shapes.iter().any(|s| s.recompute == recompute));
    }
    for product in ["forward", "backward_input", "backward_weight"] {
        let distinct: HashSet<_> = specs
            .iter()
            .filter_map(|p| match p {
                CaseSpec::Operation { operation, .. } if operation.family() == Family::Gemm => Some(operation),
                _ => None,
            })
            .filter(|o| o.name() == product)
            .collect();
        assert!(distinct.len() >= 10, "{product}: {}", distinct.len());
    }
    let names: BTreeSet<_> = specs.iter().filter_map(operation_name).collect();
    for shape in shapes {
        for (_, operation) in shape.operations(Phase::ForwardBackward) {
            assert!(names.contains(operation.name()), "{}", operation.name());
        }
    }
}

fn operation_name(spec: &CaseSpec) -> Option<&'static str> {
    match spec {
        CaseSpec::Operation { operation, .. } => Some(operation.name()),
        _ => None,
    }
}

#[test]
fn parameters_have_the_names_that_fits_read() {
    let shape = f32_layer(256, 4, 128, 1).tensor(2);
    let keys = |map: serde_json::Map<String, serde_json::Value>| map.keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(layer_params(&shape, Phase::Forward)),
        "hidden heads sequence micro_batch tensor dtype recompute phase activation_bytes parameter_bytes"
    );
    let of = |name| {
        let list = shape.operations(Phase::Forward);
        keys(operation_params(&list.iter().find(|(n, _)| *n == name).unwrap().1))
    };
    assert_eq!(of("qkv"), "operation family product rows inputs outputs epilogue");
    assert_eq!(of("attention"), "operation family batch heads sequence head_size");
    assert_eq!(of("ln1"), "operation family elements rows columns");
    assert_eq!(of("residual1"), "operation family elements");
}

/// One small case of each kind, as the runner drives it.
#[test]
fn cases_prepare_verify_and_sample() {
    let context =
        Context { preset: Preset::Quick, platform: Platform::Host, cores: 2, last_level_cache_bytes: 1 << 16 };
    let (shape, shared) =
        (f32_layer(32, 4, 9, 2).tensor(2).recompute(Recompute::Selective), SharedBench::<bench::HostBench>::default());
    let mut list: Vec<CaseSpec> = Phase::ALL.map(|phase| CaseSpec::Layer(shape, phase, CALL)).to_vec();
    let names = ["ln1", "qkv", "attention", "projection", "residual1", "fc1", "fc2"];
    list.extend(operations_of(shape, &names, CALL));
    list.extend(operations_of(shape, &["ln1", "residual1"], COLD));
    list.extend(loose(shape, ENDS, CALL));
    list.extend(SideSpec::usual().map(|spec| CaseSpec::Side(SideSpec { batch: 2, ..spec }, DType::F32, CALL)));
    for spec in list {
        let spec = ListedCase { spec, shared: shared.clone() };
        let mut case = spec.build(&context).unwrap();
        let verified = case.prepare().unwrap().unwrap();
        assert_eq!(verified.wrong, 0, "{}: {verified:?}", spec.id());
        assert!(case.info().id == spec.id() && case.info().flop.unwrap() > 0.0);
        assert_eq!(case.info().cache == Some(Cache::Cold), spec.id().ends_with("/cold"));
        let samples = case.sample(3).unwrap();
        assert!(samples.len() == 1 && samples[0].iterations == 3 && samples[0].ns > 0.0);
    }
}
