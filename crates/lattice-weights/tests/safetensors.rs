//! Reading and writing safetensors: what goes in comes out, and every lie of a header is named.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_weights::{Cause, FileError, StateDict, StoredDType, Weight, safetensors};

/// A file from its header text and data length.
fn file(header: &str, data: usize) -> Bytes {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes.into()
}

fn read(header: &str, data: usize) -> Result<StateDict, FileError> {
    safetensors::from_bytes("model.safetensors", file(header, data))
}

#[test]
fn tensors_metadata_and_order_are_read_without_copying() {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},"empty":{"dtype":"I64","shape":[0,3],"data_offsets":[12,12]}}   "#;
    let bytes = file(header, 12);
    let dict = safetensors::from_bytes("m", bytes.clone()).unwrap();
    assert_eq!(dict.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["b", "a", "empty"]);
    assert_eq!(dict.metadata()["format"], "pt");
    let a = dict.get("a").unwrap();
    assert_eq!((a.dtype(), a.dims()), (StoredDType::F16, &[1usize, 2][..]));
    assert!(bytes.as_ptr_range().contains(&a.bytes().as_ptr()), "the bytes are those of the file");
}

#[test]
fn lying_headers_are_named() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"x.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let cases: Vec<(String, usize, &str)> = vec![
        (entry("F32", "[2]", "[0,8]"), 7, "truncated"),
        (entry("F32", "[2]", "[0,8]"), 9, "1 bytes after the last tensor"),
        (entry("F32", "[3]", "[0,8]"), 8, "needs 12 bytes"),
        (entry("F16", "[2]", "[0,8]"), 8, "needs 4 bytes"),
        (entry("F32", "[2]", "[4,12]"), 12, "do not follow"),
        (entry("F32", "[2]", "[8,0]"), 8, "do not follow"),
        (entry("F32", "[4611686018427387904,4]", "[0,8]"), 8, "impossible"),
        (entry("F32", "[-1]", "[0,8]"), 8, "malformed header entry"),
        (entry("F32", "2", "[0,8]"), 8, "malformed header entry"),
        (entry("C64", "[1]", "[0,8]"), 8, "element type C64"),
        (entry("Q4_0", "[32]", "[0,18]"), 18, "element type Q4_0"),
        (r#"{"x.weight":{"dtype":"F32","shape":[2]}}"#.into(), 8, "data_offsets"),
        (r#"{"x.weight":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x.weight":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#.into(), 2, "twice"),
        (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"x.weight":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#.into(), 6, "do not follow"),
        (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"x.weight":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#.into(), 9, "do not follow"),
        (r#"{"__metadata__":{"x.weight":3}}"#.into(), 0, "__metadata__"),
        ("[]".into(), 0, "malformed header"),
        ("{} {}".into(), 0, "malformed header"),
        ("{\"x.weight".into(), 0, "malformed header"),
    ];
    for (header, data, wanted) in cases {
        let message = read(&header, data).unwrap_err().to_string();
        assert!(message.contains(wanted), "{header}: {message}");
        assert!(message.starts_with("model.safetensors"), "{message}");
        if header.contains("dtype") {
            let named = message.contains("`x.weight`") || message.contains("after the last");
            assert!(named, "the tensor is not named: {message}");
        }
    }
}

#[test]
fn header_lengths_are_checked_before_anything_is_allocated() {
    let open = |bytes: &[u8]| safetensors::from_bytes("m", Bytes::copy_from_slice(bytes)).unwrap_err().cause;
    assert!(matches!(open(&[]), Cause::Empty));
    assert!(matches!(open(&[1, 2, 3]), Cause::Truncated { .. }));
    assert!(matches!(open(&u64::MAX.to_le_bytes()), Cause::HeaderTooLong { .. }));
    assert!(matches!(open(&50_000_000u64.to_le_bytes()), Cause::Truncated { .. }));
    let mut invalid = 4u64.to_le_bytes().to_vec();
    invalid.extend([b'{', 0xff, 0xfe, b'}']);
    assert!(matches!(open(&invalid), Cause::Malformed { what: "header", .. }));
}

#[test]
fn folders_missing_and_empty_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(safetensors::open(folder.path()).unwrap_err().cause, Cause::Directory));
    let missing = safetensors::open(&folder.path().join("missing.safetensors")).unwrap_err();
    assert!(matches!(missing.cause, Cause::Io(_)) && missing.to_string().contains("missing.safetensors"));
    let empty = folder.path().join("empty.safetensors");
    std::fs::write(&empty, []).unwrap();
    assert!(matches!(safetensors::open(&empty).unwrap_err().cause, Cause::Empty));
}

fn sample() -> StateDict {
    let weight = |dtype, shape: &[usize], seed: u8| {
        let n = shape.iter().product::<usize>() * StoredDType::size(dtype);
        let bytes: Vec<u8> = (0..n).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        Weight::new(dtype, shape, bytes.into(), None).unwrap()
    };
    let mut tensors = IndexMap::new();
    tensors.insert("b.weight".to_owned(), weight(StoredDType::BF16, &[3, 5], 1));
    tensors.insert("a.weight".to_owned(), weight(StoredDType::F32, &[2, 2], 2));
    tensors.insert("flag".to_owned(), weight(StoredDType::Bool, &[], 3));
    tensors.insert("ids".to_owned(), weight(StoredDType::I64, &[4], 4));
    StateDict::new("sample", tensors, BTreeMap::from([("author".to_owned(), "Jürgen \"q\"".to_owned())]))
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    std::fs::write(&path, "an older file").unwrap();
    let dict = sample();
    safetensors::write(&path, &dict).unwrap();
    let back = safetensors::open(&path).unwrap();
    assert_eq!(back.metadata(), dict.metadata());
    assert_eq!(back.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["ids", "a.weight", "b.weight", "flag"]);
    for (name, weight) in dict.iter() {
        let other = back.get(name).unwrap();
        assert_eq!(
            (weight.dtype(), weight.dims(), weight.bytes()),
            (other.dtype(), other.dims(), other.bytes())
        );
        let address = other.bytes().as_ptr() as usize;
        assert!(address.is_multiple_of(weight.dtype().size()), "{name} is aligned");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    std::fs::write(&path, "precious").unwrap();
    let entry = |name: &str| safetensors::Entry { name: name.into(), dtype: StoredDType::U8, shape: vec![4] };
    let short =
        safetensors::write_entries(&path, &[entry("x")], &BTreeMap::new(), |_, out| out.write_all(b"abc"));
    assert!(short.unwrap_err().to_string().contains("`x`"));
    let twice = safetensors::write_entries(&path, &[entry("x"), entry("x")], &BTreeMap::new(), |_, out| {
        out.write_all(b"abcd")
    });
    assert!(matches!(twice.unwrap_err().cause, Cause::Duplicate));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn scales_of_8_bit_weights_are_resolved_and_written_back() {
    let header = r#"{"scaled_fp8":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[0,0]},"l.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"l.scale_weight":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},"l.scale_input":{"dtype":"F32","shape":[],"data_offsets":[6,10]}}"#;
    let mut bytes = file(header, 0).to_vec();
    bytes.extend([0x38, 0xb8]); // 1, -1
    bytes.extend(0.25f32.to_le_bytes());
    bytes.extend(3f32.to_le_bytes());
    let dict = safetensors::from_bytes("m", bytes.into()).unwrap();
    assert_eq!(dict.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["scaled_fp8", "l.weight"]);
    assert_eq!(dict.get("l.weight").unwrap().to_f32(), [0.25, -0.25]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scaled.safetensors");
    safetensors::write(&path, &dict).unwrap();
    let back = safetensors::open(&path).unwrap();
    assert_eq!(back.get("l.weight").unwrap().to_f32(), [0.25, -0.25]);
    assert_eq!(back.len(), 2);
}

#[test]
fn a_scale_per_row_is_refused_by_name() {
    let header = r#"{"l.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"l.scale_weight":{"dtype":"F32","shape":[2],"data_offsets":[2,10]}}"#;
    let message = read(header, 10).unwrap_err().to_string();
    assert!(message.contains("`l.weight`") && message.contains("scale_weight"), "{message}");
}

/// Opening depends on the header, not on the 8 GB behind it (a sparse file; the bound leaves room for slow disks).
#[test]
fn opening_a_huge_file_reads_only_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.safetensors");
    let count = 2500u64;
    let each = 1280 * 1280 * 2;
    let entries: Vec<String> = (0..count)
        .map(|i| {
            let (begin, end) = (i * each, (i + 1) * each);
            format!(r#""model.diffusion_model.block.{i}.attn.to_q.weight":{{"dtype":"F16","shape":[1280,1280],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut out = std::fs::File::create(&path).unwrap();
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    out.set_len(8 + header.len() as u64 + count * each).unwrap();
    let start = Instant::now();
    let dict = safetensors::open(&path).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(dict.len(), count as usize);
    assert!(elapsed < Duration::from_millis(500), "took {elapsed:?}");
}
