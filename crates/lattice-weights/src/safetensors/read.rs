//! Reading: the header is parsed and checked in full, the tensors' bytes are never touched.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_kernels::{StoredDType, Weight};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{HEADER_LIMIT, METADATA};
use crate::StateDict;
use crate::error::{Cause, FileError, display};
use crate::scaled_fp8;

/// Opens a safetensors file by mapping it: the time taken depends on the header's size only.
///
/// Scales of scaled-fp8 files become part of the weights they belong to.
///
/// # Errors
/// Names the file and, where one is at fault, the tensor.
pub fn open(path: &Path) -> Result<StateDict, FileError> {
    from_bytes(&display(path), crate::map::map(path)?)
}

/// As [`open`] over bytes already in memory (or mapped); `name` stands for the file in messages.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(name: &str, bytes: Bytes) -> Result<StateDict, FileError> {
    let present = bytes.len() as u64;
    if present == 0 {
        return Err(Cause::Empty.of(name));
    }
    let Some((length, _)) = bytes.split_first_chunk::<8>() else {
        return Err(Cause::Truncated { what: "the header length", needed: 8, present }.of(name));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT {
        return Err(Cause::HeaderTooLong { length, limit: HEADER_LIMIT }.of(name));
    }
    let needed = 8 + length;
    if needed > present {
        return Err(Cause::Truncated { what: "the header", needed, present }.of(name));
    }
    let (header, data) = (bytes.slice(8..needed as usize), bytes.slice(needed as usize..));
    let header = Header::parse(name, &header)?;
    check_layout(name, &header.tensors, data.len() as u64)?;
    let mut tensors = IndexMap::with_capacity(header.tensors.len());
    for (tensor, entry) in header.tensors {
        // Both ends were checked to lie inside the data.
        let range = entry.data_offsets.0 as usize..entry.data_offsets.1 as usize;
        let shape: Vec<usize> = entry.shape.iter().map(|&d| d as usize).collect();
        let weight = dtype_of(&entry.dtype)
            .ok_or_else(|| Cause::DType { dtype: entry.dtype.into_owned() })
            .and_then(|dtype| {
                Weight::new(dtype, shape, data.slice(range), None).map_err(|e| Cause::malformed("tensor", e))
            })
            .map_err(|cause| cause.at(name, &tensor))?;
        tensors.insert(tensor, weight);
    }
    scaled_fp8::resolve(StateDict::new(name, tensors, header.metadata))
}

/// One tensor as the header describes it.
#[derive(Deserialize)]
struct TensorEntry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl TensorEntry<'_> {
    /// Bytes that shape and dtype need.
    fn byte_len(&self) -> Result<u64, Cause> {
        let dtype = dtype_of(&self.dtype).ok_or_else(|| Cause::DType { dtype: self.dtype.to_string() })?;
        let bytes = self.shape.iter().try_fold(dtype.size() as u64, |n, &d| n.checked_mul(d));
        // isize::MAX bounds every allocation and slice.
        bytes
            .filter(|&n| isize::try_from(n).is_ok())
            .ok_or_else(|| Cause::Shape { shape: self.shape.clone() })
    }
}

/// Every range must be as long as its shape asks, and the ranges must tile the data section.
fn check_layout(
    file: &str,
    tensors: &IndexMap<String, TensorEntry<'_>>,
    present: u64,
) -> Result<(), FileError> {
    let mut by_offset: Vec<(&String, &TensorEntry<'_>)> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, t)| t.data_offsets);
    let mut previous = 0;
    for (name, entry) in by_offset {
        let (begin, end) = entry.data_offsets;
        let fail = |cause: Cause| cause.at(file, name);
        let needed = entry.byte_len().map_err(fail)?;
        if begin != previous || end < begin {
            return Err(fail(Cause::Range { begin, end, previous }));
        }
        if end - begin != needed {
            let dtype = dtype_of(&entry.dtype).map_or("?", StoredDType::name);
            return Err(fail(Cause::Size {
                shape: entry.shape.clone(),
                dtype,
                needed,
                present: end - begin,
            }));
        }
        if end > present {
            return Err(fail(Cause::Truncated { what: "its data", needed: end, present }));
        }
        previous = end;
    }
    if previous != present {
        return Err(Cause::Surplus { surplus: present - previous }.of(file));
    }
    Ok(())
}

/// The header's content.
struct Header<'a> {
    tensors: IndexMap<String, TensorEntry<'a>>,
    metadata: BTreeMap<String, String>,
}

impl<'a> Header<'a> {
    fn parse(file: &str, bytes: &'a [u8]) -> Result<Self, FileError> {
        let text = std::str::from_utf8(bytes).map_err(|e| Cause::malformed("header", e).of(file))?;
        let mut progress = Progress::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed = HeaderSeed(&mut progress).deserialize(&mut json).and_then(|h| json.end().map(|()| h));
        match (parsed, progress) {
            (Ok(header), _) => Ok(header),
            (Err(_), Progress { duplicate: true, current: Some(tensor) }) => {
                Err(Cause::Duplicate.at(file, &tensor))
            }
            (Err(e), Progress { current: Some(tensor), .. }) => {
                Err(Cause::malformed("header entry", e).at(file, &tensor))
            }
            (Err(e), _) => Err(Cause::malformed("header", e).of(file)),
        }
    }
}

/// Which entry the parser was in when it failed: serde's errors know only line and column.
#[derive(Default)]
struct Progress {
    current: Option<String>,
    duplicate: bool,
}

struct HeaderSeed<'p>(&'p mut Progress);

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = Header<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut header = Header { tensors: IndexMap::new(), metadata: BTreeMap::new() };
        while let Some(name) = map.next_key::<String>()? {
            self.0.current = Some(name.clone());
            if name == METADATA {
                header.metadata = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
            } else if header.tensors.insert(name, map.next_value()?).is_some() {
                self.0.duplicate = true;
                return Err(serde::de::Error::custom("duplicate name"));
            }
            self.0.current = None;
        }
        Ok(header)
    }
}

/// The format's element types; those without a counterpart here (4- and 6-bit floats, complex numbers) are `None`.
pub(super) fn dtype_of(name: &str) -> Option<StoredDType> {
    use StoredDType as D;
    [
        D::F64,
        D::F32,
        D::F16,
        D::BF16,
        D::F8E4M3,
        D::F8E5M2,
        D::I64,
        D::I32,
        D::I16,
        D::I8,
        D::U64,
        D::U32,
        D::U16,
        D::U8,
        D::Bool,
    ]
    .into_iter()
    .find(|d| d.name() == name)
}
