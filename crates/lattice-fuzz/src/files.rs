//! Model files, adapters and pictures.

use std::collections::BTreeMap;

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_media::{Limits, decode, metadata};
use lattice_models::detect::{TextPart, VaePart};
use lattice_models::sd_unet::Gligen;
use lattice_models::{Checkpoint, ControlNetwork, Hypernetwork};
use lattice_weights::adapters::{AdapterFile, KeyTable};
use lattice_weights::patcher::{PatchSet, PatchedWeights};
use lattice_weights::{Cause, FileError, StateDict, StoredDType, Weight, folder};

/// A header and what is behind it.
pub(crate) fn safetensors(data: &[u8]) {
    read_whole(lattice_weights::safetensors::from_bytes("fuzz", Bytes::copy_from_slice(data)));
}

/// PyTorch's zip archives and bare pickles.
pub(crate) fn pickle(data: &[u8]) {
    read_whole(lattice_weights::pickle::from_bytes("fuzz", Bytes::copy_from_slice(data)));
}

/// GGUF, with its blocks widened.
pub(crate) fn gguf(data: &[u8]) {
    read_whole(lattice_weights::gguf::from_bytes("fuzz", Bytes::copy_from_slice(data)));
}

/// What follows the opening of a file: every element is read, and it is told what it is.
fn read_whole(file: Result<StateDict, FileError>) {
    let Ok(dict) = file else { return };
    // Empty tensors of any number of rows are valid; what is read is bounded by the file.
    let _ = dict.first_not_finite();
    let _ = (Checkpoint::load(&dict).is_ok(), VaePart::load(&dict).is_ok(), TextPart::load(&dict).is_ok());
    let _ = (ControlNetwork::load(&dict).is_ok(), Gligen::load(&dict).is_ok());
    let _ = Hypernetwork::load(&dict).is_ok();
    let _ = AdapterFile::new(&dict).len();
}

/// The index of a sharded folder, over shards that hold two tensors.
pub(crate) fn diffusers_index(data: &[u8]) {
    let shard = weights([("a.weight", vec![2, 2]), ("b", vec![3])]);
    let dict = folder::from_index("fuzz", data, |file| match file {
        "missing.safetensors" => Err(FileError { file: file.to_owned(), tensor: None, cause: Cause::Empty }),
        _ => Ok(shard.clone()),
    });
    if let Ok(dict) = dict {
        assert!(dict.iter().all(|(name, _)| shard.contains(name)), "tensors of no shard");
    }
}

/// An adapter's tensors, a line each (`NAME SIZE SIZE ...`), put on small networks of both kinds of names.
pub(crate) fn adapter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.lines().take(64).filter_map(|line| {
        let mut words = line.split(' ');
        let name = words.next()?;
        let shape: Option<Vec<usize>> = words.map(|size| size.parse().ok()).collect();
        let shape = shape
            .filter(|s| s.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n <= 256))?;
        Some((name, shape))
    });
    let file = AdapterFile::new(&weights(lines));
    for base in [unet(), transformer()] {
        let network = KeyTable::network(&base);
        let text = KeyTable::text_encoder("clip_l", &["clip_l", "clip_g"], &base);
        let unmatched = file.unmatched(&[&network, &text]);
        assert!(unmatched.matched <= file.len());
        let patched = PatchedWeights::new(base, "diffusion_model.", 0);
        for table in [network, text] {
            let _ = patched.with(PatchSet::new(file.patches(&table), 0.5).into()).weights();
        }
    }
}

fn unet() -> StateDict {
    weights([
        ("input_blocks.0.0.weight", vec![4, 2, 3, 3]),
        ("input_blocks.0.0.bias", vec![4]),
        ("input_blocks.1.1.proj_in.weight", vec![4, 4]),
        ("input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight", vec![4, 4]),
        ("input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight", vec![4, 4]),
        ("input_blocks.1.1.transformer_blocks.0.norm1.weight", vec![4]),
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", vec![4, 4]),
    ])
}

fn transformer() -> StateDict {
    weights([
        ("img_in.weight", vec![4, 4]),
        ("double_blocks.0.img_attn.qkv.weight", vec![12, 4]),
        ("double_blocks.0.img_attn.proj.weight", vec![4, 4]),
        ("double_blocks.0.img_attn.norm.query_norm.scale", vec![4]),
        ("single_blocks.0.linear1.weight", vec![28, 4]),
        ("final_layer.adaLN_modulation.1.weight", vec![8, 4]),
    ])
}

/// A dict of f32 tensors of ones.
fn weights<'a>(tensors: impl IntoIterator<Item = (&'a str, Vec<usize>)>) -> StateDict {
    let tensors = tensors.into_iter().filter_map(|(name, shape)| {
        let count: usize = shape.iter().product();
        Some((name.to_owned(), Weight::from_f32(vec![1.0; count], shape).ok()?))
    });
    let tensors: IndexMap<String, Weight> = tensors.collect();
    debug_assert!(tensors.values().all(|w| w.dtype() == StoredDType::F32));
    StateDict::new("fuzz", tensors, BTreeMap::new())
}

/// Texts in PNG and WEBP files.
pub(crate) fn picture_metadata(data: &[u8]) {
    let texts = metadata::read(data);
    let bytes: usize = texts.iter().map(|(key, text)| key.len() + text.len()).sum();
    // A byte of Latin-1 takes up to two, one that is no UTF-8 three; compressed texts are 64 MiB at most.
    assert!(bytes <= 3 * (data.len() + (64 << 20)), "{bytes} bytes of text");
}

/// Pictures themselves, of a size that a fuzzer can afford.
pub(crate) fn picture(data: &[u8]) {
    let limits = Limits { side: 512, pixels: 1 << 16, total_pixels: 1 << 18 };
    if let Ok(decoded) = decode::decode(data, limits) {
        for frame in &decoded.frames {
            assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
        }
    }
}
