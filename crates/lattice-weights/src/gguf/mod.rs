//! The GGUF format: a table of typed metadata, a table of tensors, and their bytes, which stay as they are - quantised blocks included.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little endian. Sizes are listed innermost axis
//! first; offsets count from the first aligned byte after the tables.

mod write;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_kernels::quant::BlockType;
use lattice_kernels::{StoredDType, Weight};

use crate::StateDict;
use crate::cursor::Cursor;
use crate::error::{Cause, FileError, display};

pub(crate) use write::number_of;
pub use write::write_entries;

/// First bytes of a file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Where converters keep the shape of a tensor that they reshaped so that its rows fill blocks.
const ORIGINAL_SHAPE: &str = "comfy.gguf.orig_shape.";
/// Arrays longer than this (vocabularies) are not kept as text.
const ARRAY_LIMIT: u64 = 64;
/// More axes than any format writes.
const AXES_LIMIT: u32 = 8;

/// Opens a GGUF file by mapping it.
///
/// # Errors
/// Names the file and, where one is at fault, the tensor.
pub fn open(path: &Path) -> Result<StateDict, FileError> {
    from_bytes(&display(path), crate::map::map(path)?)
}

/// As [`open`] over bytes already in memory; `name` stands for the file in messages.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(name: &str, bytes: Bytes) -> Result<StateDict, FileError> {
    let fail = |cause: Cause| cause.of(name);
    let (metadata, infos, data_start) = tables(&bytes).map_err(fail)?;
    let mut order: Vec<usize> = (0..infos.len()).collect();
    order.sort_by_key(|&i| infos[i].offset);
    let present = (bytes.len() as u64).saturating_sub(data_start);
    let mut previous = 0;
    for index in order {
        let info = &infos[index];
        let end = info.check(previous, present).map_err(|cause| cause.at(name, &info.name))?;
        previous = end;
    }
    let mut tensors = IndexMap::with_capacity(infos.len());
    for info in infos {
        let weight =
            info.weight(&bytes, data_start, &metadata).map_err(|cause| cause.at(name, &info.name))?;
        if tensors.insert(info.name.clone(), weight).is_some() {
            return Err(Cause::Duplicate.at(name, &info.name));
        }
    }
    Ok(StateDict::new(name, tensors, metadata))
}

/// One line of the tensor table.
struct Info {
    name: String,
    /// Outermost axis first.
    shape: Vec<u64>,
    dtype: u32,
    offset: u64,
}

impl Info {
    fn dtype(&self) -> Result<StoredDType, Cause> {
        dtype_of(self.dtype).ok_or_else(|| Cause::DType { dtype: format!("GGML type {}", self.dtype) })
    }

    fn byte_len(&self) -> Result<u64, Cause> {
        let dtype = self.dtype()?;
        let elements = self.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        elements
            .and_then(|n| usize::try_from(n).ok())
            .and_then(|n| dtype.byte_len(n))
            .map(|n| n as u64)
            .ok_or_else(|| Cause::Shape { shape: self.shape.clone() })
    }

    /// The end of the tensor's bytes, which must begin behind the previous tensor and lie inside the file.
    fn check(&self, previous: u64, present: u64) -> Result<u64, Cause> {
        let end = self.offset.saturating_add(self.byte_len()?);
        if self.offset < previous {
            return Err(Cause::Range { begin: self.offset, end, previous });
        }
        if end > present {
            return Err(Cause::Truncated { what: "its data", needed: end, present });
        }
        Ok(end)
    }

    fn weight(
        &self,
        bytes: &Bytes,
        start: u64,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Weight, Cause> {
        let range = match self.byte_len()? as usize {
            // The data may begin behind the end of a file that has none.
            0 => Bytes::new(),
            length => {
                let begin = (start + self.offset) as usize;
                bytes.slice(begin..begin + length)
            }
        };
        let shape: Vec<usize> = self.shape.iter().map(|&d| d as usize).collect();
        let weight =
            Weight::new(self.dtype()?, shape, range, None).map_err(|e| Cause::malformed("tensor", e))?;
        let original = metadata.get(&format!("{ORIGINAL_SHAPE}{}", self.name));
        let original = original.and_then(|text| serde_json::from_str::<Vec<usize>>(text).ok());
        // A shape that does not fit (or would cut blocks) is no reason to refuse the tensor.
        Ok(original.and_then(|shape| weight.reshape(shape).ok()).unwrap_or(weight))
    }
}

/// Metadata, tensor table, and where the data begins.
fn tables(bytes: &Bytes) -> Result<(BTreeMap<String, String>, Vec<Info>, u64), Cause> {
    if bytes.is_empty() {
        return Err(Cause::Empty);
    }
    let mut cursor = Cursor::new(bytes, 0);
    if cursor.array("the magic number")? != MAGIC {
        return Err(Cause::malformed("header", "the magic number GGUF is missing"));
    }
    let version = cursor.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Cause::malformed("header", format!("version {version} is not supported (2 and 3 are)")));
    }
    let tensors = cursor.u64("the tensor count")?;
    let pairs = cursor.u64("the metadata count")?;
    // The shortest entries take 13 and 24 bytes; a count that cannot be is refused before anything is allocated.
    let most = cursor.remaining() as u64;
    if pairs > most / 13 || tensors > most / 24 {
        let detail = format!("{tensors} tensors and {pairs} metadata entries do not fit {most} bytes");
        return Err(Cause::malformed("header", detail));
    }
    let mut metadata = BTreeMap::new();
    let mut alignment = 32u64;
    for _ in 0..pairs {
        let key = text(&mut cursor)?;
        let kind = cursor.u32("metadata")?;
        let value = value(&mut cursor, kind, 0)?;
        if key == "general.alignment" {
            alignment = value
                .parse()
                .ok()
                .filter(|a: &u64| a.is_power_of_two())
                .ok_or_else(|| Cause::malformed("metadata", format!("general.alignment is {value}")))?;
        }
        metadata.insert(key, value);
    }
    let infos = (0..tensors).map(|_| info(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
    let start = (cursor.position() as u64)
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| Cause::malformed("metadata", "general.alignment is too large"))?;
    Ok((metadata, infos, start))
}

fn info(cursor: &mut Cursor<'_>) -> Result<Info, Cause> {
    let what = "the tensor table";
    let name = text(cursor)?;
    let axes = cursor.u32(what)?;
    if axes > AXES_LIMIT {
        return Err(Cause::malformed("tensor table", format!("`{name}` has {axes} axes")));
    }
    let mut shape = (0..axes).map(|_| cursor.u64(what)).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    Ok(Info { name, shape, dtype: cursor.u32(what)?, offset: cursor.u64(what)? })
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, Cause> {
    let length = cursor.u64("a text's length")?;
    let bytes = cursor.take(length, "a text")?;
    String::from_utf8(bytes.to_vec()).map_err(|e| Cause::malformed("text", e))
}

/// A metadata value as text: texts as they are, numbers in decimal, short arrays as JSON.
fn value(cursor: &mut Cursor<'_>, kind: u32, depth: u32) -> Result<String, Cause> {
    let what = "metadata";
    Ok(match kind {
        0 => u8::from_le_bytes(cursor.array(what)?).to_string(),
        1 => i8::from_le_bytes(cursor.array(what)?).to_string(),
        2 => u16::from_le_bytes(cursor.array(what)?).to_string(),
        3 => i16::from_le_bytes(cursor.array(what)?).to_string(),
        4 => cursor.u32(what)?.to_string(),
        5 => i32::from_le_bytes(cursor.array(what)?).to_string(),
        6 => f32::from_le_bytes(cursor.array(what)?).to_string(),
        7 => (cursor.array::<1>(what)? != [0]).to_string(),
        8 => text(cursor)?,
        9 => {
            if depth > 3 {
                return Err(Cause::malformed(what, "arrays are nested too deeply"));
            }
            let kind = cursor.u32(what)?;
            let length = cursor.u64(what)?;
            // Even an empty text takes bytes, so a lying length ends at the end of the file.
            let mut items = Vec::new();
            for _ in 0..length {
                let item = value(cursor, kind, depth + 1)?;
                if length <= ARRAY_LIMIT {
                    items.push(if kind == 8 { serde_json::Value::from(item).to_string() } else { item });
                }
            }
            if length <= ARRAY_LIMIT { format!("[{}]", items.join(",")) } else { format!("{length} values") }
        }
        10 => cursor.u64(what)?.to_string(),
        11 => i64::from_le_bytes(cursor.array(what)?).to_string(),
        12 => f64::from_le_bytes(cursor.array(what)?).to_string(),
        other => return Err(Cause::malformed(what, format!("unknown value type {other}"))),
    })
}

fn dtype_of(number: u32) -> Option<StoredDType> {
    use StoredDType as D;
    Some(match number {
        0 => D::F32,
        1 => D::F16,
        2 => D::Block(BlockType::Q4_0),
        3 => D::Block(BlockType::Q4_1),
        6 => D::Block(BlockType::Q5_0),
        7 => D::Block(BlockType::Q5_1),
        8 => D::Block(BlockType::Q8_0),
        10 => D::Block(BlockType::Q2K),
        11 => D::Block(BlockType::Q3K),
        12 => D::Block(BlockType::Q4K),
        13 => D::Block(BlockType::Q5K),
        14 => D::Block(BlockType::Q6K),
        24 => D::I8,
        25 => D::I16,
        26 => D::I32,
        27 => D::I64,
        28 => D::F64,
        30 => D::BF16,
        _ => return None,
    })
}
