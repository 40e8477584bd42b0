//! Writing: header first, then each tensor's bytes as they come, in constant memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use lattice_kernels::StoredDType;
use serde_json::{Map, Value, json};

use super::{HEADER_LIMIT, METADATA};
use crate::StateDict;
use crate::error::{Cause, FileError, display};
use crate::map::AtomicFile;
use crate::recode::recode;
use crate::scaled_fp8;

/// What the header says of a tensor to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Full name.
    pub name: String,
    /// Element type; block types can be stored in GGUF files only.
    pub dtype: StoredDType,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
}

impl Entry {
    pub(crate) fn byte_len(&self) -> Result<u64, Cause> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        elements
            .and_then(|n| self.dtype.byte_len(n))
            .map(|n| n as u64)
            .ok_or_else(|| Cause::Shape { shape: self.shape.iter().map(|&d| d as u64).collect() })
    }
}

/// Writes a state dict with its metadata, tensors as they are stored; blocks, which the format does not know, as halves.
///
/// Tensors are ordered by element size (largest first) and name as the format's reference implementation orders them, so that
/// every tensor is aligned for its type. The file appears under its name only when it is complete and synced.
///
/// # Errors
/// Names the file and the tensor at fault; the target is then as it was before.
pub fn write(path: &Path, dict: &StateDict) -> Result<(), FileError> {
    let mut out = AtomicFile::create(path).map_err(|e| Cause::Io(e).of(&display(path)))?;
    write_to(&display(path), dict, &mut out)?;
    out.commit().map_err(|e| Cause::Io(e).of(&display(path)))
}

/// As [`write`] into any sink; `file` stands for it in messages.
///
/// # Errors
/// Names the tensor at fault.
pub fn write_to(file: &str, dict: &StateDict, out: &mut dyn Write) -> Result<(), FileError> {
    let stored = |dtype| if matches!(dtype, StoredDType::Block(_)) { StoredDType::F16 } else { dtype };
    let mut tensors = scaled_fp8::split(dict);
    tensors.sort_by(|(a, wa), (b, wb)| {
        rank(stored(wb.dtype())).cmp(&rank(stored(wa.dtype()))).then_with(|| a.cmp(b))
    });
    let entries: Vec<Entry> = tensors
        .iter()
        .map(|(name, w)| Entry { name: name.clone(), dtype: stored(w.dtype()), shape: w.dims().to_vec() })
        .collect();
    entries_to(file, &entries, dict.metadata(), out, |index, out| {
        recode(&tensors[index].1, entries[index].dtype, out)
    })
}

/// Writes tensors in the order given; `fill(i, out)` writes the little-endian bytes of entry `i`.
///
/// # Errors
/// As [`write`]; also if `fill` writes another number of bytes than the entry's shape and type need.
pub fn write_entries(
    path: &Path,
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
    fill: impl FnMut(usize, &mut dyn Write) -> std::io::Result<()>,
) -> Result<(), FileError> {
    let file = display(path);
    let mut out = AtomicFile::create(path).map_err(|e| Cause::Io(e).of(&file))?;
    entries_to(&file, entries, metadata, &mut out, fill)?;
    out.commit().map_err(|e| Cause::Io(e).of(&file))
}

fn entries_to(
    file: &str,
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
    mut out: &mut dyn Write,
    mut fill: impl FnMut(usize, &mut dyn Write) -> std::io::Result<()>,
) -> Result<(), FileError> {
    let io = |e: std::io::Error| Cause::Io(e).of(file);
    let header = header(file, entries, metadata)?;
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    out.write_all(&header).map_err(io)?;
    for (index, entry) in entries.iter().enumerate() {
        let needed = entry.byte_len().map_err(|c| c.at(file, &entry.name))?;
        let mut counted = Counted { inner: &mut out, count: 0 };
        fill(index, &mut counted).map_err(|e| Cause::Io(e).at(file, &entry.name))?;
        if counted.count != needed {
            let shape = entry.shape.iter().map(|&d| d as u64).collect();
            let cause = Cause::Size { shape, dtype: entry.dtype.name(), needed, present: counted.count };
            return Err(cause.at(file, &entry.name));
        }
    }
    Ok(())
}

/// The JSON header, padded with spaces so that the data starts at a multiple of 8.
fn header(file: &str, entries: &[Entry], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, FileError> {
    let mut map = Map::with_capacity(entries.len() + 1);
    if !metadata.is_empty() {
        map.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut begin = 0u64;
    for entry in entries {
        if matches!(entry.dtype, StoredDType::Block(_)) {
            let dtype = format!("{} in a safetensors file", entry.dtype);
            return Err(Cause::DType { dtype }.at(file, &entry.name));
        }
        let length = entry.byte_len().map_err(|c| c.at(file, &entry.name))?;
        let end = begin
            .checked_add(length)
            .ok_or_else(|| Cause::malformed("header", "the file would be too long").of(file))?;
        let value =
            json!({ "dtype": entry.dtype.name(), "shape": entry.shape, "data_offsets": [begin, end] });
        if entry.name == METADATA || map.insert(entry.name.clone(), value).is_some() {
            return Err(Cause::Duplicate.at(file, &entry.name));
        }
        begin = end;
    }
    let mut header = Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = header.len() as u64;
    if length > HEADER_LIMIT {
        return Err(Cause::HeaderTooLong { length, limit: HEADER_LIMIT }.of(file));
    }
    Ok(header)
}

/// Position of a type in the reference implementation's order (its files list high ranks first).
fn rank(dtype: StoredDType) -> u8 {
    match dtype {
        StoredDType::Bool => 0,
        StoredDType::U8 => 1,
        StoredDType::I8 => 2,
        StoredDType::F8E5M2 => 3,
        StoredDType::F8E4M3 => 4,
        StoredDType::I16 => 5,
        StoredDType::U16 => 6,
        StoredDType::F16 => 7,
        StoredDType::BF16 => 8,
        StoredDType::I32 => 9,
        StoredDType::U32 => 10,
        StoredDType::F32 => 11,
        StoredDType::F64 => 12,
        StoredDType::I64 => 13,
        StoredDType::U64 => 14,
        StoredDType::Block(_) => 15,
    }
}

struct Counted<'a, W> {
    inner: &'a mut W,
    count: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
