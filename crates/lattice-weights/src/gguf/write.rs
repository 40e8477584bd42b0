//! Writing: the tables first, then each tensor's bytes as they come, in constant memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use lattice_kernels::StoredDType;
use lattice_kernels::quant::BlockType;

use super::{MAGIC, ORIGINAL_SHAPE};
use crate::error::{Cause, FileError, display};
use crate::map::AtomicFile;
use crate::safetensors::Entry;

/// Where tensors begin: at multiples of this.
const ALIGNMENT: u64 = 32;
/// Version of the format.
const VERSION: u32 = 3;
/// Version of the block types' layouts.
const QUANTIZATION_VERSION: u32 = 2;
/// More axes than the GGML library has.
const MOST_AXES: usize = 4;

/// Metadata that the writer states itself.
const OWN_KEYS: [&str; 3] = ["general.alignment", "general.quantization_version", "general.file_type"];

/// The number of a storage type in the format; `None` if the format does not know it.
pub(crate) fn number_of(dtype: StoredDType) -> Option<u32> {
    use StoredDType as D;
    Some(match dtype {
        D::F32 => 0,
        D::F16 => 1,
        D::Block(BlockType::Q4_0) => 2,
        D::Block(BlockType::Q4_1) => 3,
        D::Block(BlockType::Q5_0) => 6,
        D::Block(BlockType::Q5_1) => 7,
        D::Block(BlockType::Q8_0) => 8,
        D::Block(BlockType::Q2K) => 10,
        D::Block(BlockType::Q3K) => 11,
        D::Block(BlockType::Q4K) => 12,
        D::Block(BlockType::Q5K) => 13,
        D::Block(BlockType::Q6K) => 14,
        D::I8 => 24,
        D::I16 => 25,
        D::I32 => 26,
        D::I64 => 27,
        D::F64 => 28,
        D::BF16 => 30,
        D::F8E4M3 | D::F8E5M2 | D::U64 | D::U32 | D::U16 | D::U8 | D::Bool => return None,
    })
}

/// Writes tensors in the order given, with text metadata; `fill(i, out)` writes the little-endian bytes of entry `i`. The file appears under
/// its name only when it is complete and synced.
///
/// # Errors
/// Names the file and the tensor at fault; the target is then as it was before.
pub fn write_entries(
    path: &Path,
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
    mut fill: impl FnMut(usize, &mut dyn Write) -> std::io::Result<()>,
) -> Result<(), FileError> {
    let file = display(path);
    let io = |e: std::io::Error| Cause::Io(e).of(&file);
    let (tables, lengths) = tables(&file, entries, metadata)?;
    let mut out = AtomicFile::create(path).map_err(io)?;
    out.write_all(&tables).map_err(io)?;
    for (index, (entry, &length)) in entries.iter().zip(&lengths).enumerate() {
        fill(index, &mut out).map_err(|e| Cause::Io(e).at(&file, &entry.name))?;
        let padding = length.next_multiple_of(ALIGNMENT) - length;
        out.write_all(&[0; ALIGNMENT as usize][..padding as usize]).map_err(io)?;
    }
    out.commit().map_err(io)
}

/// Everything before the data, padded, and the length of each tensor.
fn tables(
    file: &str,
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<u64>), FileError> {
    let shapes: Vec<(String, &[usize])> = entries
        .iter()
        .filter(|e| e.shape.len() > MOST_AXES)
        .map(|e| (format!("{ORIGINAL_SHAPE}{}", e.name), e.shape.as_slice()))
        .collect();
    let texts: Vec<(&String, &String)> = metadata
        .iter()
        .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()) && !key.starts_with(ORIGINAL_SHAPE))
        .collect();
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    out.extend((texts.len() as u64 + shapes.len() as u64 + 1).to_le_bytes());
    for (key, value) in texts {
        text(&mut out, key);
        out.extend(8u32.to_le_bytes());
        text(&mut out, value);
    }
    for (key, shape) in shapes {
        text(&mut out, &key);
        // An array of i32.
        out.extend([9u32, 5].iter().flat_map(|n| n.to_le_bytes()));
        out.extend((shape.len() as u64).to_le_bytes());
        out.extend(shape.iter().flat_map(|&n| (n as i32).to_le_bytes()));
    }
    text(&mut out, "general.quantization_version");
    out.extend([4u32, QUANTIZATION_VERSION].iter().flat_map(|n| n.to_le_bytes()));
    let (mut offset, mut lengths) = (0u64, Vec::with_capacity(entries.len()));
    let mut names = std::collections::HashSet::with_capacity(entries.len());
    for entry in entries {
        let fail = |cause: Cause| cause.at(file, &entry.name);
        if !names.insert(&entry.name) {
            return Err(fail(Cause::Duplicate));
        }
        let number = number_of(entry.dtype)
            .ok_or_else(|| fail(Cause::DType { dtype: format!("{} in a GGUF file", entry.dtype) }))?;
        let length = entry.byte_len().map_err(fail)?;
        let shape = axes(&entry.shape);
        text(&mut out, &entry.name);
        out.extend((shape.len() as u32).to_le_bytes());
        out.extend(shape.iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
        out.extend(number.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset = length
            .checked_next_multiple_of(ALIGNMENT)
            .and_then(|length| offset.checked_add(length))
            .ok_or_else(|| fail(Cause::Shape { shape: entry.shape.iter().map(|&d| d as u64).collect() }))?;
        lengths.push(length);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok((out, lengths))
}

/// A shape with as many axes as the format allows: outer ones are joined, a single number is a row of one.
fn axes(shape: &[usize]) -> Vec<usize> {
    match shape {
        [] => vec![1],
        [.., last] if shape.len() > MOST_AXES => {
            vec![shape[..shape.len() - 1].iter().product(), *last]
        }
        other => other.to_vec(),
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
