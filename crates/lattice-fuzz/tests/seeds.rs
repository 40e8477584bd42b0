//! Every reader survives its seeds (`fuzz/seeds`), and simple changes of them, without a fuzzer.

use std::panic::catch_unwind;
use std::path::PathBuf;

use lattice_fuzz::{TARGETS, Target};

/// Changed copies of each seed; `LATTICE_FUZZ_CHANGES` asks for another number.
const CHANGES: usize = 150;
/// Bytes of which so much is changed: what lies behind is mostly payload.
const LARGEST: usize = 1 << 16;

fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

/// SplitMix64: the changes are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    /// Bytes that are often at a boundary.
    fn byte(&mut self) -> u8 {
        const ODD: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b']', b'(', b'9', b'-', b'\n'];
        if self.below(2) == 0 { ODD[self.below(ODD.len())] } else { self.below(256) as u8 }
    }
}

fn changed(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(data.len().min(LARGEST));
        match random.below(6) {
            0 => data.truncate(at),
            1 => {
                let byte = random.byte();
                data.insert(at.min(data.len()), byte);
            }
            2 => {
                let end = (at + random.below(16)).min(data.len());
                data.drain(at.min(end)..end);
            }
            3 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                data.splice(at..at, piece.iter().copied());
            }
            4 => {
                // Numbers of four and eight bytes, lengths and offsets among them.
                let (width, byte) = (4 << random.below(2), random.byte());
                data.iter_mut().skip(at).take(width).for_each(|b| *b = byte);
            }
            _ => {
                let byte = random.byte();
                if let Some(b) = data.get_mut(at) {
                    *b = byte;
                }
            }
        }
    }
    data
}

fn survives(target: &Target, from: &str, data: &[u8]) {
    let run = target.run;
    if catch_unwind(|| run(data)).is_err() {
        let path = std::env::temp_dir().join(format!("lattice-fuzz-{}", target.name));
        let kept = std::fs::write(&path, data).map(|()| path.display().to_string());
        panic!("{} fails on a change of the seed {from}, kept as {kept:?}", target.name);
    }
}

/// A test per target, so that they run side by side.
macro_rules! seeds_survive {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let target = TARGETS.iter().find(|target| target.name == stringify!($name)).unwrap();
                let seeds = seeds(target);
                assert!(!seeds.is_empty(), "no seeds");
                let changes = std::env::var("LATTICE_FUZZ_CHANGES").ok().and_then(|n| n.parse().ok());
                let mut random = Random(1);
                for (name, seed) in &seeds {
                    survives(target, name, seed);
                    for _ in 0..changes.unwrap_or(CHANGES) {
                        let other = &seeds[random.below(seeds.len())].1;
                        survives(target, name, &changed(&mut random, seed, other));
                    }
                }
            }
        )*

        #[test]
        fn every_target_is_tested() {
            assert_eq!(TARGETS.map(|target| target.name).as_slice(), [$(stringify!($name)),*]);
        }
    };
}

seeds_survive! {
    safetensors pickle gguf diffusers_index adapter picture_metadata picture prompt workflow prompt_text client_message
}

/// Targets, their binaries and their folders belong together.
#[test]
fn every_target_has_a_binary() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(fuzz.join(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    targets.sort_unstable();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is missing in fuzz/Cargo.toml");
    }
}
