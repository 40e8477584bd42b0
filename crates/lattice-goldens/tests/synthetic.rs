//! The generator gives the published bytes.

use std::io::Write;

use lattice_goldens::synthetic::Manifest;
use lattice_weights::StoredDType;
use sha2::{Digest, Sha256};

/// Hashes and counts what is written.
#[derive(Default)]
struct HashSink(Sha256, u64);

impl Write for HashSink {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.update(buffer);
        self.1 += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn reduced_files_have_the_published_hashes() {
    let root = Manifest::project_root();
    let table = std::fs::read_to_string(root.join("tiny_sha256.tsv")).unwrap();
    let mut checked = 0;
    for line in table.lines().filter(|l| !l.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[name, tensors, _, f32_bytes, f32_hash, f16_bytes, f16_hash] = columns.as_slice() else {
            panic!("line {line:?} has not seven columns")
        };
        let manifest =
            Manifest::find(&root, &format!("tiny/{name}")).or_else(|_| Manifest::find(&root, name)).unwrap();
        assert_eq!(manifest.tensors.len().to_string(), tensors, "{name}");
        for (dtype, bytes, hash) in
            [(StoredDType::F32, f32_bytes, f32_hash), (StoredDType::F16, f16_bytes, f16_hash)]
        {
            let mut sink = HashSink::default();
            manifest.write_to(&mut sink, 0, dtype).unwrap();
            assert_eq!(sink.1.to_string(), bytes, "{name} {dtype:?} length");
            assert_eq!(format!("{:x}", sink.0.finalize()), hash, "{name} {dtype:?}");
        }
        checked += 1;
    }
    assert!(checked > 80, "only {checked} manifests in the table");
}

#[test]
fn made_files_open() {
    let manifest = Manifest::find(&Manifest::project_root(), "tiny/te_t5xxl").unwrap();
    let dict = manifest.state_dict(3, StoredDType::BF16).unwrap();
    let shapes: Vec<_> = dict.iter().map(|(name, w)| (name.to_owned(), w.dims().to_vec())).collect();
    let wanted: Vec<_> = manifest.tensors.clone().into_iter().collect();
    assert_eq!(shapes, wanted);
    assert!(dict.iter().all(|(_, w)| w.dtype() == StoredDType::BF16));
    assert_eq!(dict.metadata()["lattice.seed"], "3");
}
