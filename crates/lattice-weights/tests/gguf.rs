//! GGUF files built byte by byte.

use lattice_weights::{Cause, FileError, StateDict, gguf};

struct Tensor<'a> {
    name: &'a str,
    /// Innermost axis first, as in the file.
    sizes: &'a [u64],
    kind: u32,
    offset: u64,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn file(metadata: &[(&str, u32, Vec<u8>)], tensors: &[Tensor<'_>], data: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, kind, value) in metadata {
        text(&mut out, key);
        out.extend(kind.to_le_bytes());
        out.extend(value);
    }
    for tensor in tensors {
        text(&mut out, tensor.name);
        out.extend((tensor.sizes.len() as u32).to_le_bytes());
        out.extend(tensor.sizes.iter().flat_map(|s| s.to_le_bytes()));
        out.extend(tensor.kind.to_le_bytes());
        out.extend(tensor.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

fn open(bytes: Vec<u8>) -> Result<StateDict, FileError> {
    gguf::from_bytes("model.gguf", bytes.into())
}

/// 64 elements of Q8_0: factor 0.5 in the first block, 1 in the second.
fn q8() -> Vec<u8> {
    let block = |factor: [u8; 2]| factor.into_iter().chain((0..32).map(|i| i as u8)).collect::<Vec<u8>>();
    [block([0, 0x38]), block([0, 0x3c])].concat()
}

#[test]
fn blocks_stay_as_stored() {
    let mut data = q8();
    data.resize(96, 0);
    data.extend(2.5f32.to_le_bytes());
    let mut name = Vec::new();
    text(&mut name, "flux");
    let mut shape = 5u32.to_le_bytes().to_vec();
    shape.extend(3u64.to_le_bytes());
    shape.extend([1i32, 1, 1].iter().flat_map(|v| v.to_le_bytes()));
    let bytes = file(
        &[("general.architecture", 8, name), ("comfy.gguf.orig_shape.b", 9, shape)],
        &[
            Tensor { name: "a.weight", sizes: &[32, 2], kind: 8, offset: 0 },
            Tensor { name: "b", sizes: &[1], kind: 0, offset: 96 },
        ],
        &data,
    );
    let dict = open(bytes).unwrap();
    assert_eq!(dict.metadata()["general.architecture"], "flux");
    let a = dict.get("a.weight").unwrap();
    assert_eq!((a.dims(), a.dtype().name(), a.bytes().len()), (&[2usize, 32][..], "Q8_0", 68));
    let values = a.to_f32();
    assert_eq!((values[31], values[32], values[33]), (15.5, 0.0, 1.0));
    assert_eq!(a.narrow_rows(1, 1).unwrap().to_f32(), values[32..]);
    assert_eq!(dict.get("b").unwrap().dims(), [1, 1, 1]);
}

#[test]
fn lies_are_named() {
    let one = |sizes: &[u64], kind, offset| {
        open(file(&[], &[Tensor { name: "x.weight", sizes, kind, offset }], &q8())).unwrap_err()
    };
    for (sizes, kind, offset) in [
        (&[32u64, 3][..], 8, 0),
        (&[33], 8, 0),
        (&[16, 4], 8, 0),
        (&[64], 8, 32),
        (&[64], 8, u64::MAX),
        (&[u64::MAX, 32], 8, 0),
        (&[1 << 40, 1 << 40], 0, 0),
        (&[32], 99, 0),
        (&[32], 16, 0),
    ] {
        let error = one(sizes, kind, offset);
        assert_eq!(error.tensor.as_deref(), Some("x.weight"), "{error}");
    }
    let twice = |second: &str, offset| {
        let tensor = |name, offset| Tensor { name, sizes: &[32], kind: 8, offset };
        open(file(&[], &[tensor("x", 0), tensor(second, offset)], &q8())).unwrap_err().cause
    };
    assert!(matches!(twice("y", 32), Cause::Range { .. }));
    assert!(matches!(twice("x", 34), Cause::Duplicate));
}

#[test]
fn tensors_without_elements_need_no_data() {
    let mut whole = file(&[], &[Tensor { name: "x", sizes: &[0], kind: 0, offset: 0 }], &[]);
    // Without the bytes that would align the data.
    whole.truncate(whole.len() - 1);
    assert_eq!(open(whole).unwrap().get("x").unwrap().dims(), [0]);
}

#[test]
fn lying_counts_allocate_nothing() {
    let head = |tensors: u64, pairs: u64, version: u32| {
        let mut out = b"GGUF".to_vec();
        out.extend(version.to_le_bytes());
        out.extend(tensors.to_le_bytes());
        out.extend(pairs.to_le_bytes());
        open(out).unwrap_err()
    };
    for (tensors, pairs, version) in [(u64::MAX, 0, 3), (0, u64::MAX, 3), (1, 0, 3), (0, 0, 1), (0, 0, 9)] {
        assert!(matches!(head(tensors, pairs, version).cause, Cause::Malformed { .. }));
    }
    let mut array = 8u32.to_le_bytes().to_vec();
    array.extend(u64::MAX.to_le_bytes());
    assert!(open(file(&[("k", 9, array)], &[], &[])).is_err());
    let nested: Vec<u8> = (0..50).flat_map(|_| [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).collect();
    assert!(open(file(&[("k", 9, nested)], &[], &[])).is_err());
    assert!(open(file(&[("general.alignment", 4, vec![3, 0, 0, 0])], &[], &[])).is_err());
}

#[test]
fn cut_anywhere_they_are_errors() {
    let whole = file(
        &[("general.alignment", 4, vec![32, 0, 0, 0])],
        &[Tensor { name: "x", sizes: &[64], kind: 8, offset: 0 }],
        &q8(),
    );
    assert!(open(whole.clone()).is_ok());
    for length in 0..whole.len() {
        assert!(open(whole[..length].to_vec()).is_err(), "cut to {length}");
    }
}
