//! Conversions between formats and storage types.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use lattice_weights::convert::{Output, Summary, convert};
use lattice_weights::{BlockType, FileError, StateDict, StoredDType, Weight, open_any};

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A matrix, one whose rows fill no block, a convolution, a vector, a scalar, integers.
fn model() -> StateDict {
    let f32s = |shape: &[usize], seed| Weight::from_f32(values(shape.iter().product(), seed), shape).unwrap();
    let ids: Vec<u8> = (0..6i64).flat_map(i64::to_le_bytes).collect();
    let tensors = IndexMap::from([
        ("a.weight".to_owned(), f32s(&[6, 512], 1)),
        ("b.weight".to_owned(), f32s(&[5, 30], 2)),
        ("c.weight".to_owned(), f32s(&[4, 3, 3, 3], 3)),
        ("d.weight".to_owned(), f32s(&[2, 2, 2, 2, 32], 6)),
        ("a.bias".to_owned(), f32s(&[512], 4)),
        ("scale".to_owned(), f32s(&[], 5)),
        ("ids".to_owned(), Weight::new(StoredDType::I64, 6, ids.into(), None).unwrap()),
    ]);
    StateDict::new("model", tensors, BTreeMap::from([("note".to_owned(), "kept".to_owned())]))
}

fn to(folder: &Path, dict: &StateDict, output: Output, dtype: Option<StoredDType>) -> (StateDict, Summary) {
    let path = folder.join(if output == Output::Gguf { "out.gguf" } else { "out.safetensors" });
    let mut seen = 0;
    let summary = convert(dict, &path, output, dtype, BTreeMap::new(), |bytes| seen += bytes).unwrap();
    assert!(seen >= dict.iter().map(|(_, w)| w.bytes().len() as u64).sum::<u64>());
    (open_any(&path).unwrap(), summary)
}

#[test]
fn without_a_type_nothing_changes_but_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let (gguf, _) = to(folder.path(), &model, Output::Gguf, None);
    let (back, summary) = to(folder.path(), &gguf, Output::Safetensors, None);
    assert_eq!(summary.tensors, BTreeMap::from([("F32", 6), ("I64", 1)]));
    for dict in [&gguf, &back] {
        assert_eq!(dict.metadata()["note"], "kept");
        assert_eq!(dict.len(), model.len());
        for (name, weight) in model.iter() {
            let again = dict.get(name).unwrap();
            assert_eq!(again.dtype(), weight.dtype(), "{name}");
            assert_eq!(again.bytes(), weight.bytes(), "{name}");
            // A scalar is a row of one in GGUF files.
            let shape = if weight.dims().is_empty() { &[1][..] } else { weight.dims() };
            assert_eq!(again.dims(), shape, "{name}");
        }
    }
}

#[test]
fn plain_types_round_to_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    for (dtype, steps) in [
        (StoredDType::F16, 2048.0),
        (StoredDType::BF16, 256.0),
        (StoredDType::F8E4M3, 16.0),
        (StoredDType::F8E5M2, 8.0),
        (StoredDType::F32, 1e9),
    ] {
        let (made, _) = to(folder.path(), &model, Output::Safetensors, Some(dtype));
        assert_eq!(made.get("a.weight").unwrap().dtype(), dtype);
        assert_eq!(made.get("ids").unwrap().dtype(), StoredDType::I64);
        let bias = made.get("a.bias").unwrap().dtype();
        assert!(bias.size() >= 2, "vectors keep at least 16 bits, not {bias}");
        for (got, want) in
            made.get("a.weight").unwrap().to_f32().iter().zip(model.get("a.weight").unwrap().to_f32())
        {
            assert!((got - want).abs() <= want.abs().max(0.02) / steps, "{dtype}: {got} for {want}");
        }
    }
}

#[test]
fn blocks_are_those_of_the_ggml_library() {
    let folder = tempfile::tempdir().unwrap();
    let model = model();
    let matrix = model.get("a.weight").unwrap();
    for (block, ggml) in [
        (BlockType::Q4_0, GgmlDType::Q4_0),
        (BlockType::Q4_1, GgmlDType::Q4_1),
        (BlockType::Q5_0, GgmlDType::Q5_0),
        (BlockType::Q5_1, GgmlDType::Q5_1),
        (BlockType::Q8_0, GgmlDType::Q8_0),
        (BlockType::Q2K, GgmlDType::Q2K),
        (BlockType::Q3K, GgmlDType::Q3K),
        (BlockType::Q4K, GgmlDType::Q4K),
        (BlockType::Q5K, GgmlDType::Q5K),
        (BlockType::Q6K, GgmlDType::Q6K),
    ] {
        let (made, _) = to(folder.path(), &model, Output::Gguf, Some(StoredDType::Block(block)));
        let quantized = made.get("a.weight").unwrap();
        assert_eq!(quantized.dtype(), StoredDType::Block(block));
        let whole = Tensor::from_vec(matrix.to_f32(), (6, 512), &Device::Cpu).unwrap();
        let reference = QTensor::quantize(&whole, ggml).unwrap();
        assert_eq!(&quantized.bytes()[..], &reference.data().unwrap()[..], "{block:?}");
        // What fills no blocks is stored as halves; vectors stay as they are.
        assert_eq!(made.get("b.weight").unwrap().dtype(), StoredDType::F16);
        assert_eq!(made.get("c.weight").unwrap().dtype(), StoredDType::F16);
        assert_eq!(made.get("a.bias").unwrap().dtype(), StoredDType::F32);
        // Blocks have no place in a safetensors file.
        let (plain, _) = to(folder.path(), &made, Output::Safetensors, None);
        assert_eq!(plain.get("a.weight").unwrap().dtype(), StoredDType::F16);
    }
}

#[test]
fn scales_stay_where_the_type_stays_and_are_worked_in_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..64).collect();
    let scaled = Weight::new(StoredDType::F8E4M3, (2, 32), bytes.into(), Some(0.5)).unwrap();
    let dict =
        StateDict::new("scaled", IndexMap::from([("a.weight".to_owned(), scaled.clone())]), BTreeMap::new());
    let (same, _) = to(folder.path(), &dict, Output::Safetensors, None);
    assert_eq!(same.get("a.weight").unwrap().scale(), Some(0.5));
    let (halves, _) = to(folder.path(), &same, Output::Safetensors, Some(StoredDType::F16));
    assert_eq!(halves.len(), 1, "no marker is left");
    assert_eq!(halves.get("a.weight").unwrap().to_f32(), scaled.to_f32());
    let (gguf, _) = to(folder.path(), &same, Output::Gguf, None);
    assert_eq!(gguf.get("a.weight").unwrap().to_f32(), scaled.to_f32());
}

#[test]
fn values_that_a_type_cannot_hold_are_refused_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |value: f32, output, dtype| -> FileError {
        let mut values = vec![0.5; 64];
        values[40] = value;
        let weight = Weight::from_f32(values, (2, 32)).unwrap();
        let dict = StateDict::new("m", IndexMap::from([("x.weight".to_owned(), weight)]), BTreeMap::new());
        let path = folder.path().join("out.model");
        convert(&dict, &path, output, Some(dtype), BTreeMap::new(), |_| ()).unwrap_err()
    };
    for error in [
        refused(500.0, Output::Safetensors, StoredDType::F8E4M3),
        refused(f32::NAN, Output::Safetensors, StoredDType::F8E5M2),
        refused(f32::INFINITY, Output::Gguf, StoredDType::Block(BlockType::Q4_0)),
    ] {
        let text = error.to_string();
        assert!(text.contains("out.model: tensor `x.weight`: holds "), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
