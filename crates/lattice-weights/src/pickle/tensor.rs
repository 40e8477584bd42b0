//! Tensors as pickles describe them: a window into a storage.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lattice_kernels::{StoredDType, Weight};

use crate::error::Cause;

/// A storage by key, and the element type its class tells.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) key: Arc<str>,
    pub(super) dtype: StoredDType,
}

/// A strided view of a storage.
#[derive(Clone, Debug)]
pub(super) struct TensorView {
    pub(super) storage: Storage,
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

impl TensorView {
    /// The weight: a slice of the storage if it is contiguous, else a gathered copy, whose bytes are taken from `budget`.
    pub(super) fn load(
        &self,
        storages: &HashMap<String, Bytes>,
        budget: &mut usize,
    ) -> Result<Weight, Cause> {
        let Storage { key, dtype } = &self.storage;
        let bytes = storages
            .get(&**key)
            .ok_or_else(|| Cause::malformed("tensor", format!("its storage {key} is not in the file")))?;
        let impossible =
            || Cause::Shape { shape: self.shape.iter().map(|&d| u64::try_from(d).unwrap_or(0)).collect() };
        let sizes = |list: &[i64]| list.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>();
        let (shape, strides) = sizes(&self.shape).zip(sizes(&self.strides)).ok_or_else(impossible)?;
        let offset = usize::try_from(self.offset).map_err(|_| impossible())?;
        if shape.len() != strides.len() {
            return Err(Cause::malformed("tensor", "it has not one stride per axis"));
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(impossible)?;
        let available = bytes.len() / dtype.size();
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |n, (&d, &s)| n.checked_add(d.saturating_sub(1).checked_mul(s)?));
        if count > 0 && last.is_none_or(|last| last >= available) {
            return Err(Cause::Size {
                shape: shape.iter().map(|&d| d as u64).collect(),
                dtype: dtype.name(),
                needed: last
                    .map_or(u64::MAX, |n| (n as u64).saturating_add(1))
                    .saturating_mul(dtype.size() as u64),
                present: bytes.len() as u64,
            });
        }
        let data = if count == 0 {
            Bytes::new()
        } else if is_contiguous(&shape, &strides) {
            bytes.slice(offset * dtype.size()..(offset + count) * dtype.size())
        } else {
            // A view that repeats elements could be of any size; real ones (transposed weights) are no larger than their storage.
            if count > available {
                return Err(impossible());
            }
            *budget = budget.checked_sub(count * dtype.size()).ok_or_else(|| {
                Cause::malformed("tensor", "the file's views repeat its storages too often")
            })?;
            gather(bytes, dtype.size(), offset, &shape, &strides)
        };
        Weight::new(*dtype, shape, data, None).map_err(|e| Cause::malformed("tensor", e))
    }
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(&d, &s)| {
        let fits = d == 1 || s == expected;
        expected *= d;
        fits
    })
}

/// Copies a view element by element; the last element was checked to lie inside the storage.
fn gather(bytes: &[u8], size: usize, offset: usize, shape: &[usize], strides: &[usize]) -> Bytes {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut position = offset;
    for _ in 0..count {
        out.extend_from_slice(&bytes[position * size..(position + 1) * size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            position += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            position -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out.into()
}
