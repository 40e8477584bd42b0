//! PyTorch files built byte by byte: both layouts, views, and what must be refused.

use std::fmt::Write as _;

use bytes::Bytes;
use lattice_weights::{Cause, FileError, StateDict, StoredDType, pickle};

/// A pickle in the text opcodes of protocol 0 and 2, enough for torch's shapes.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let length = (text.len() as u32).to_le_bytes();
        self.raw(b"X").raw(&length).raw(text.as_bytes())
    }

    fn int(self, value: i32) -> Self {
        self.raw(b"J").raw(&value.to_le_bytes())
    }

    fn global(self, module: &str, name: &str) -> Self {
        let mut line = String::new();
        write!(line, "c{module}\n{name}\n").unwrap();
        self.raw(line.as_bytes())
    }

    fn ints(self, values: &[i32]) -> Self {
        values.iter().fold(self.raw(b"("), |p, &v| p.int(v)).raw(b"t")
    }

    /// A tensor over storage `key`.
    fn tensor(self, class: &str, key: &str, offset: i32, shape: &[i32], strides: &[i32]) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", class)
            .text(key)
            .text("cpu")
            .int(0)
            .raw(b"tQ")
            .int(offset)
            .ints(shape)
            .ints(strides)
            .raw(&[0x89])
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }

    fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

/// A dictionary of one entry per tensor.
fn dict(entries: &[(&str, &str, &str, i32, &[i32], &[i32])]) -> Vec<u8> {
    let mut p = Pickle::new().raw(b"}(");
    for (name, class, key, offset, shape, strides) in entries {
        p = p.text(name).tensor(class, key, *offset, shape, strides);
    }
    p.raw(b"u").stop()
}

/// An uncompressed zip archive.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let offset = out.len() as u32;
        let sizes = [(data.len() as u32).to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        out.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        out.extend(&sizes);
        out.extend(name_length);
        out.extend([0, 0]);
        out.extend(name.as_bytes());
        out.extend(*data);
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend(&sizes);
        directory.extend(name_length);
        directory.extend([0; 12]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count);
    out.extend(count);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    zip(&[("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", storage), ("m/version", b"3\n")])
}

fn open(bytes: Vec<u8>) -> Result<StateDict, FileError> {
    pickle::from_bytes("model.ckpt", bytes.into())
}

#[test]
fn shared_strided_and_scalar_views_of_one_storage() {
    let storage = floats(&[0., 1., 2., 3., 4., 5.]);
    let pickle = dict(&[
        ("whole", "FloatStorage", "0", 0, &[2, 3], &[3, 1]),
        ("transposed", "FloatStorage", "0", 0, &[3, 2], &[1, 3]),
        ("row", "FloatStorage", "0", 3, &[3], &[1]),
        ("one", "FloatStorage", "0", 5, &[], &[]),
        ("none", "FloatStorage", "0", 0, &[0, 3], &[3, 1]),
    ]);
    let bytes = Bytes::from(archive(&pickle, &storage));
    let dict = pickle::from_bytes("m", bytes.clone()).unwrap();
    let values = |name: &str| dict.get(name).unwrap().to_f32();
    assert_eq!(values("whole"), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(values("transposed"), [0., 3., 1., 4., 2., 5.]);
    assert_eq!((values("row"), values("one"), values("none")), (vec![3., 4., 5.], vec![5.], vec![]));
    for name in ["whole", "row"] {
        let address = dict.get(name).unwrap().bytes().as_ptr();
        assert!(bytes.as_ptr_range().contains(&address), "{name} is not copied");
    }
}

#[test]
fn state_dicts_are_found_below_their_usual_keys() {
    let inner = |p: Pickle| p.raw(b"}(").text("w").tensor("HalfStorage", "0", 0, &[2], &[1]).raw(b"u");
    let steps = Pickle::new().raw(b"}(").text("global_step").int(7).text("state_dict");
    let dict = open(archive(&inner(steps).raw(b"u").stop(), &[0, 0x3c, 0, 0xbc])).unwrap();
    assert_eq!(dict.get("w").unwrap().dtype(), StoredDType::F16);
    assert_eq!(dict.get("w").unwrap().to_f32(), [1.0, -1.0]);
    assert_eq!(dict.metadata()["global_step"], "7");
    let single = Pickle::new().raw(b"}(").text("params_ema");
    assert!(open(archive(&inner(single).raw(b"u").stop(), &[0; 4])).unwrap().contains("w"));
    // Text embeddings keep theirs a level down among other things.
    let embedding = Pickle::new().raw(b"}(").text("name").text("cat").text("string_to_param");
    assert!(
        open(archive(&inner(embedding).raw(b"u").stop(), &[0; 4])).unwrap().contains("string_to_param.w")
    );
}

fn legacy(pickle: &[u8], storage: &[u8], count: u64) -> Vec<u8> {
    let mut out = vec![0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    out.extend(Pickle::new().raw(b"M\xe9\x03").stop());
    out.extend(Pickle::new().raw(b"}").stop());
    out.extend(pickle);
    out.extend(Pickle::new().raw(b"](").text("0").raw(b"e").stop());
    out.extend(count.to_le_bytes());
    out.extend(storage);
    out
}

#[test]
fn the_older_layout_is_read() {
    let pickle = dict(&[("w", "FloatStorage", "0", 1, &[2], &[1])]);
    let dict = open(legacy(&pickle, &floats(&[1., 2., 3.]), 3)).unwrap();
    assert_eq!(dict.get("w").unwrap().to_f32(), [2.0, 3.0]);
    let error = open(legacy(&pickle, &floats(&[1., 2.]), 3)).unwrap_err();
    assert!(matches!(error.cause, Cause::Truncated { .. }), "{error}");
}

#[test]
fn hostile_pickles_are_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("__builtin__", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("numpy", "load"),
        ("runpy", "_run_code"),
    ] {
        let call = Pickle::new().global(module, name).raw(b"(").text("echo owned").raw(b"tR").stop();
        let error = open(archive(&call, &[])).unwrap_err();
        assert!(
            matches!(&error.cause, Cause::ForbiddenGlobal { global } if *global == format!("{module}.{name}"))
        );
        assert!(error.to_string().starts_with("model.ckpt"), "{error}");
        let stacked = Pickle::new().text(module).text(name).raw(&[0x93]).stop();
        assert!(matches!(open(archive(&stacked, &[])).unwrap_err().cause, Cause::ForbiddenGlobal { .. }));
    }
}

#[test]
fn lying_pickles_are_refused() {
    let view = |class: &str, offset, shape: &[i32], strides: &[i32]| {
        open(archive(&dict(&[("x.weight", class, "0", offset, shape, strides)]), &[0; 16]))
    };
    for (class, offset, shape, strides) in [
        ("FloatStorage", 0, &[5][..], &[1][..]),
        ("FloatStorage", 4, &[1], &[1]),
        ("FloatStorage", -1, &[1], &[1]),
        ("FloatStorage", 0, &[-1], &[1]),
        ("FloatStorage", 0, &[2], &[i32::MAX]),
        ("FloatStorage", 0, &[i32::MAX, i32::MAX, i32::MAX, 2], &[0, 0, 0, 0]),
        ("FloatStorage", 0, &[i32::MAX], &[0]),
        ("FloatStorage", 0, &[2, 2], &[1]),
        ("DoubleStorage", 0, &[4], &[1]),
    ] {
        let error = view(class, offset, shape, strides).unwrap_err();
        assert_eq!(error.tensor.as_deref(), Some("x.weight"), "{error}");
    }
    let missing = open(archive(&dict(&[("x", "FloatStorage", "9", 0, &[1], &[1])]), &[0; 4])).unwrap_err();
    assert!(missing.to_string().contains("storage 9"), "{missing}");
    for bytes in [
        Pickle::new().raw(b"t").stop(),
        Pickle::new().raw(b"R").stop(),
        Pickle::new().raw(b"h\x07").stop(),
        Pickle::new().raw(b"(K\x01d").stop(),
        Pickle::new().raw(b"i").stop(),
        Pickle::new().raw(b"X\xff\xff\xff\xff").stop(),
        Pickle::new().raw(b"X\x01\0\0\0\xff").stop(),
        Pickle::new().int(3).stop(),
        Pickle::new().0,
        Vec::new(),
    ] {
        let error = open(archive(&bytes, &[])).unwrap_err();
        assert!(matches!(error.cause, Cause::Malformed { .. } | Cause::Truncated { .. }), "{error}");
    }
}

/// A list inside itself, and dictionaries that double at each level.
#[test]
fn structures_without_end_are_bounded() {
    let cycle = Pickle::new().raw(b"}q\x00(").text("me").raw(b"h\x00").raw(b"u").stop();
    assert!(open(archive(&cycle, &[])).is_err());
    let mut bomb = Pickle::new().raw(b"}q\x00");
    for level in 0..200u8 {
        bomb = bomb.raw(b"}q").raw(&[level + 1]).raw(b"(");
        for i in 0..30 {
            bomb = bomb.int(i).raw(b"h").raw(&[level]);
        }
        bomb = bomb.raw(b"u");
    }
    let error = open(archive(&bomb.stop(), &[])).unwrap_err();
    assert!(error.to_string().contains("refers to itself"), "{error}");
}

/// Small files that would become gigabytes: views that copy one storage again and again, a long text in many names, a list copied by
/// many calls, shapes of thousands of axes.
#[test]
fn small_files_stay_small() {
    let transposed = [("x", "ByteStorage", "0", 0, &[40, 100][..], &[1, 40][..])];
    let once = dict(&transposed);
    assert!(open(archive(&once, &[0; 4000])).is_ok());
    let names: Vec<String> = (0..40).map(|i| i.to_string()).collect();
    let [(_, class, key, offset, shape, strides)] = transposed;
    let views: Vec<_> =
        names.iter().map(|name| (name.as_str(), class, key, offset, shape, strides)).collect();
    let error = open(archive(&dict(&views), &[0; 4000])).unwrap_err();
    assert!(error.to_string().contains("too often"), "{error}");

    let long = "n".repeat(2000);
    let error = open(archive(&dict(&[(&long, "FloatStorage", "0", 0, &[1], &[1])]), &[0; 4])).unwrap_err();
    assert!(error.to_string().contains("name is too long"), "{error}");

    let pairs = (0..5000).fold(Pickle::new().raw(b"]q\x00("), |p, i| p.int(i).int(i).raw(b"\x86"));
    let pairs = pairs.raw(b"e0").global("collections", "OrderedDict").raw(b"q\x010");
    let calls = (0..5000).fold(pairs, |p, _| p.raw(b"h\x01h\x00\x85R0"));
    let error = open(archive(&calls.raw(b"N").stop(), &[])).unwrap_err();
    assert!(error.to_string().contains("copies its lists"), "{error}");

    let axes = vec![1; 100];
    let error = open(archive(&dict(&[("x", "FloatStorage", "0", 0, &axes, &axes)]), &[0; 4])).unwrap_err();
    assert!(error.to_string().contains("incomplete"), "{error}");
}

#[test]
fn cut_anywhere_they_are_errors() {
    let pickle = dict(&[("w", "FloatStorage", "0", 0, &[2, 3], &[3, 1])]);
    for whole in [archive(&pickle, &[1; 24]), legacy(&pickle, &[1; 24], 6)] {
        assert!(open(whole.clone()).is_ok());
        for length in 0..whole.len() {
            assert!(open(whole[..length].to_vec()).is_err(), "cut to {length}");
        }
    }
}

#[test]
fn lists_name_their_tensors_by_place() {
    // As hypernetworks are stored: a number, and below it a list of two dictionaries.
    let mut p = Pickle::new().raw(b"}(").int(64).raw(b"](");
    for key in ["0", "0"] {
        p = p.raw(b"}(").text("linear.0.weight").tensor("FloatStorage", key, 0, &[2], &[1]).raw(b"u");
    }
    let pickle = p.raw(b"e").text("step").int(7).raw(b"u").stop();
    let file = archive(&pickle, &floats(&[1.0, 2.0]));
    let dict = lattice_weights::pickle::from_bytes("list.pt", Bytes::from(file)).unwrap();
    let names: Vec<&str> = dict.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["64.0.linear.0.weight", "64.1.linear.0.weight"]);
    assert_eq!(dict.metadata()["step"], "7");
}
