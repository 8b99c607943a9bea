//! The lists are what the fits and the presets count on; a case of each kind is prepared and sampled.

use super::*;
use crate::ops::work::Family;
use std::collections::BTreeSet;

fn plans(preset: Preset) -> Vec<Plan> {
    let mut seen = HashSet::new();
    let all = layers(preset).into_iter().chain(operations(preset)).chain(sides(preset).into_iter().map(Plan::Side));
    all.filter(|plan| seen.insert(plan.id())).collect()
}

#[test]
fn presets_keep_to_their_number_of_cases() {
    for (preset, most) in [(Preset::Quick, 32), (Preset::Standard, 115)] {
        let count = cases(preset, Backend::Host).len();
        assert!(count <= most && count * 10 >= most * 9, "{} has {count} cases", preset.name());
    }
    assert!(cases(Preset::Full, Backend::Host).len() > 200);
    assert!(cases(Preset::Full, Backend::Cuda).is_empty());
}

#[test]
fn names_are_unique_and_every_shape_is_valid() {
    for preset in [Preset::Quick, Preset::Standard, Preset::Full] {
        let ids: Vec<String> = cases(preset, Backend::Host).iter().map(|spec| spec.id()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        for plan in plans(preset) {
            if let Plan::Layer(shape, _) = plan {
                shape.validate().unwrap();
            }
        }
    }
}

#[test]
fn larger_presets_hold_the_smaller_ones() {
    let ids = |preset| plans(preset).iter().map(Plan::id).collect::<BTreeSet<_>>();
    let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
    assert_eq!(quick.difference(&standard).next(), None);
    assert_eq!(standard.difference(&full).next(), None);
}

/// What a fit of each part needs: shapes to hold out, and for every operation of a layer rows of its own.
#[test]
fn standard_holds_enough_to_fit() {
    let plans = plans(Preset::Standard);
    let shapes: HashSet<_> =
        plans.iter().filter_map(|p| if let Plan::Layer(shape, _) = p { Some(shape) } else { None }).collect();
    assert!(shapes.len() >= 8 && shapes.iter().any(|s| s.tensor == 2));
    for recompute in [Recompute::Selective, Recompute::Full] {
        assert!(shapes.iter().any(|s| s.recompute == recompute));
    }
    for product in ["forward", "backward_input", "backward_weight"] {
        let distinct: HashSet<_> = plans
            .iter()
            .filter_map(|p| match p {
                Plan::Operation { operation, .. } if operation.family() == Family::Gemm => Some(operation),
                _ => None,
            })
            .filter(|o| o.name() == product)
            .collect();
        assert!(distinct.len() >= 10, "{product}: {}", distinct.len());
    }
    let names: BTreeSet<_> = plans.iter().filter_map(operation_name).collect();
    for shape in shapes {
        for (_, operation) in shape.operations(Phase::ForwardBackward) {
            assert!(names.contains(operation.name()), "{}", operation.name());
        }
    }
}

fn operation_name(plan: &Plan) -> Option<&'static str> {
    match plan {
        Plan::Operation { operation, .. } => Some(operation.name()),
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
    let context = Context { preset: Preset::Quick, cores: 2, last_level_cache_bytes: 1 << 16 };
    let (shape, shared) = (f32_layer(32, 4, 9, 2).tensor(2).recompute(Recompute::Selective), Shared::default());
    let mut list: Vec<Plan> = Phase::ALL.map(|phase| Plan::Layer(shape, phase)).to_vec();
    let names = ["ln1", "qkv", "attention", "projection", "residual1", "fc1", "fc2"];
    list.extend(operations_of(shape, &names, Cache::Warm));
    list.extend(operations_of(shape, &["ln1", "residual1"], Cache::Cold));
    list.extend(loose(shape, Cache::Warm));
    list.extend(SideSpec::usual().map(|spec| Plan::Side(SideSpec { batch: 2, ..spec })));
    for plan in list {
        let spec = HostSpec { plan, shared: shared.clone() };
        let mut case = spec.build(&context).unwrap();
        let verified = case.prepare().unwrap().unwrap();
        assert_eq!(verified.wrong, 0, "{}: {verified:?}", spec.id());
        assert!(case.info().id == spec.id() && case.info().flop.unwrap() > 0.0);
        assert_eq!(case.info().cache == Some(Cache::Cold), spec.id().ends_with("/cold"));
        let samples = case.sample(3).unwrap();
        assert!(samples.len() == 1 && samples[0].iterations == 3 && samples[0].ns > 0.0);
    }
}
