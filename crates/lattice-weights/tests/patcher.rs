//! The patcher: nothing is copied that is not changed, nothing is computed twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use lattice_weights::adapters::{AdapterFile, KeyTable, PatchError, Target};
use lattice_weights::patcher::{PatchSet, PatchedWeights};
use lattice_weights::{StateDict, Weight};

fn dict(tensors: &[(&str, Vec<f32>, &[usize])]) -> StateDict {
    let tensors: IndexMap<String, Weight> = tensors
        .iter()
        .map(|(name, values, shape)| ((*name).to_owned(), Weight::from_f32(values.clone(), *shape).unwrap()))
        .collect();
    StateDict::new("test.safetensors", tensors, BTreeMap::new())
}

fn base() -> StateDict {
    dict(&[
        ("a.weight", vec![1.0; 4], &[2, 2]),
        ("b.weight", vec![2.0; 4], &[2, 2]),
        ("c.bias", vec![3.0; 2], &[2]),
    ])
}

fn table() -> KeyTable {
    let target = |tensor: &str| Target { tensor: tensor.into(), slice: None, swap_halves: false };
    KeyTable::from_targets([("a".to_owned(), target("a.weight")), ("b".to_owned(), target("b.weight"))])
}

fn diff(module: &str, value: f32) -> AdapterFile {
    AdapterFile::new(&dict(&[(&format!("{module}.diff"), vec![value; 4], &[2, 2])]))
}

fn set(file: &AdapterFile, strength: f64) -> Arc<PatchSet> {
    Arc::new(PatchSet::new(file.patches(&table()), strength))
}

fn ids(dict: &StateDict) -> Vec<usize> {
    dict.iter().map(|(_, w)| w.id()).collect()
}

#[test]
fn untouched_weights_and_strength_zero_keep_the_handles_of_the_base() {
    let model = PatchedWeights::new(base(), "", 1 << 20);
    let plain = ids(model.base());
    assert_eq!(ids(&model.weights().unwrap()), plain);
    let file = diff("a", 0.5);
    assert_eq!(ids(&model.with(set(&file, 0.0)).weights().unwrap()), plain);
    let patched = model.with(set(&file, 2.0)).weights().unwrap();
    assert_eq!(patched.get("a.weight").unwrap().to_f32(), [2.0; 4]);
    assert_eq!(ids(&patched)[1..], plain[1..]);
    assert_eq!(ids(&model.weights().unwrap()), plain, "the plain model is still there");
}

#[test]
fn switching_lists_recomputes_only_what_differs() {
    let model = PatchedWeights::new(base(), "", 1 << 20);
    let (a, b) = (diff("a", 1.0), diff("b", 1.0));
    let first = model.with(set(&a, 1.0)).with(set(&b, 1.0)).weights().unwrap();
    // The same adapter at the same strength in a new set, the other one at another strength.
    let second = model.with(set(&a, 1.0)).with(set(&b, 0.5)).weights().unwrap();
    assert_eq!(ids(&first)[0], ids(&second)[0]);
    assert_ne!(ids(&first)[1], ids(&second)[1]);
    assert_eq!(second.get("b.weight").unwrap().to_f32(), [2.5; 4]);
    let again = model.with(set(&a, 1.0)).with(set(&b, 1.0)).weights().unwrap();
    assert_eq!(ids(&again), ids(&first), "within the budget the earlier result is kept");
}

/// Two stacks of three adapters on three tensors, as a user switches between them: what is computed is counted.
#[test]
fn a_switch_between_stacks_computes_only_the_tensors_that_differ() {
    let names: Vec<String> = (0..6).map(|i| format!("layer{i}")).collect();
    let tensors: Vec<_> = names.iter().map(|n| (format!("{n}.weight"), vec![1.0; 4])).collect();
    let tensors: Vec<_> = tensors.iter().map(|(n, v)| (n.as_str(), v.clone(), &[2, 2][..])).collect();
    let model = PatchedWeights::new(dict(&tensors), "", 0);
    let target = |n: &String| Target { tensor: format!("{n}.weight"), slice: None, swap_halves: false };
    let table = KeyTable::from_targets(names.iter().map(|n| (n.clone(), target(n))));
    // An adapter of the layers of a range.
    let adapter = |layers: std::ops::Range<usize>| {
        let parts: Vec<_> = layers.flat_map(|i| [(i, "up", [2, 1]), (i, "down", [1, 2])]).collect();
        let parts: Vec<_> = parts
            .iter()
            .map(|(i, side, shape)| (format!("layer{i}.lora_{side}.weight"), vec![1.0; 2], *shape))
            .collect();
        let parts: Vec<_> = parts.iter().map(|(n, v, s)| (n.as_str(), v.clone(), &s[..])).collect();
        AdapterFile::new(&dict(&parts))
    };
    let (style, person, light) = (adapter(0..6), adapter(0..2), adapter(4..5));
    let set = |file: &AdapterFile, strength| Arc::new(PatchSet::new(file.patches(&table), strength));

    let stack = model.with(set(&style, 0.8)).with(set(&person, 1.0));
    let copies: Vec<PatchedWeights> = (0..100).map(|_| stack.clone()).collect();
    assert_eq!(stack.computed(), 0, "adding and cloning compute nothing");
    stack.weights().unwrap();
    assert_eq!(stack.computed(), 6);
    copies[99].weights().unwrap();
    assert_eq!(stack.computed(), 6, "a clone shares what is there");
    // Layers 0 and 1 lose the person, layer 4 gets the light; 2, 3 and 5 stay.
    let other = model.with(set(&style, 0.8)).with(set(&light, -0.5));
    other.weights().unwrap();
    assert_eq!(other.computed(), 9);
    let plain = model.weights().unwrap();
    assert_eq!((ids(&plain), model.computed()), (ids(model.base()), 9), "back to the plain weights");
}

#[test]
fn without_a_budget_only_the_current_list_is_kept() {
    let model = PatchedWeights::new(base(), "", 0);
    let file = diff("a", 1.0);
    let first = model.with(set(&file, 1.0)).weights().unwrap();
    assert_eq!(ids(&model.with(set(&file, 1.0)).weights().unwrap()), ids(&first));
    let other = model.with(set(&file, 2.0)).weights().unwrap();
    let back = model.with(set(&file, 1.0)).weights().unwrap();
    assert_ne!(ids(&back)[0], ids(&first)[0]);
    assert_eq!(other.get("a.weight").unwrap().to_f32(), [3.0; 4]);
}

#[test]
fn patches_apply_in_order() {
    let model = PatchedWeights::new(base(), "", 0);
    let whole = AdapterFile::new(&dict(&[("a.set_weight", vec![5.0; 4], &[2, 2])]));
    let value = |m: PatchedWeights| m.weights().unwrap().get("a.weight").unwrap().to_f32()[0];
    let (whole, added) = (set(&whole, 1.0), set(&diff("a", 1.0), -2.0));
    assert_eq!(value(model.with(whole.clone()).with(added.clone())), 3.0);
    assert_eq!(value(model.with(added).with(whole)), 5.0);
}

#[test]
fn nan_in_an_adapter_is_an_error_that_names_it() {
    let model = PatchedWeights::new(base(), "", 0);
    let file = AdapterFile::new(&dict(&[
        ("a.lora_up.weight", vec![1.0, f32::NAN], &[2, 1]),
        ("a.lora_down.weight", vec![1.0; 2], &[1, 2]),
    ]));
    let error = model.with(set(&file, 1.0)).weights().unwrap_err();
    assert!(matches!(error, PatchError::NotFinite { .. }));
    assert!(error.to_string().contains("test.safetensors: `a`"), "{error}");
}

#[test]
fn an_adapter_of_the_wrong_shape_leaves_the_weight() {
    let model = PatchedWeights::new(base(), "", 0);
    for (up, down) in [([3, 1], [1, 3]), ([2, 2], [1, 2]), ([0, 1], [1, 2]), ([2, 0], [0, 2])] {
        let file = AdapterFile::new(&dict(&[
            ("a.lora_up.weight", vec![1.0; up[0] * up[1]], &up),
            ("a.lora_down.weight", vec![1.0; down[0] * down[1]], &down),
        ]));
        let patched = model.with(set(&file, 1.0)).weights().unwrap();
        assert_eq!(patched.get("a.weight").unwrap().to_f32(), [1.0; 4], "{up:?} {down:?}");
    }
}
