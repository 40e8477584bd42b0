//! Model files in another format or storage type. Tensors go through one by one, a piece at a time: memory does not grow with
//! the file.

use std::collections::BTreeMap;
use std::path::Path;

use lattice_kernels::{StoredDType, Weight};

use crate::error::FileError;
use crate::recode::recode;
use crate::safetensors::Entry;
use crate::{StateDict, gguf, safetensors, scaled_fp8};

/// Formats that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `.safetensors`.
    Safetensors,
    /// `.gguf`.
    Gguf,
}

/// What a conversion made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of tensors in each storage type.
    pub tensors: BTreeMap<&'static str, usize>,
    /// Bytes of tensor data.
    pub bytes: u64,
}

/// Writes a state dict as a new file. `dtype` is the storage type of matrices: where there is none, each keeps its own if the format
/// knows it. Norms, biases and other vectors never get a coarser type than 16 bits, nor do tensors whose rows are no whole number of
/// blocks; integers stay. `metadata` comes on top of the file's own; `progress` hears of every tensor done, with its bytes.
///
/// # Errors
/// Names the file and the tensor: values that a coarse type cannot hold, a system that refuses. The target is then as it was.
pub fn convert(
    dict: &StateDict,
    path: &Path,
    output: Output,
    dtype: Option<StoredDType>,
    metadata: BTreeMap<String, String>,
    mut progress: impl FnMut(u64),
) -> Result<Summary, FileError> {
    let mut all = dict.metadata().clone();
    all.extend(metadata);
    let target = |weight: &Weight| target(weight, output, dtype);
    // Scales stay beside weights that stay as they are, and are multiplied in elsewhere.
    let keeps_scales = dict.iter().any(|(_, w)| w.scale().is_some() && target(w) == w.dtype());
    let tensors: Vec<(String, Weight, StoredDType)> =
        scaled_fp8::split_where(dict, |w| target(w) == w.dtype())
            .into_iter()
            .filter(|(name, _)| keeps_scales || !scaled_fp8::is_marker(name))
            .map(|(name, weight)| {
                let dtype = target(&weight);
                (name, weight, dtype)
            })
            .collect();
    let entries: Vec<Entry> = tensors
        .iter()
        .map(|(name, w, dtype)| Entry { name: name.clone(), dtype: *dtype, shape: w.dims().to_vec() })
        .collect();
    let mut summary = Summary::default();
    for entry in &entries {
        *summary.tensors.entry(entry.dtype.name()).or_default() += 1;
        summary.bytes += entry.dtype.byte_len(entry.shape.iter().product()).unwrap_or(0) as u64;
    }
    let fill = |index: usize, out: &mut dyn std::io::Write| {
        let (_, weight, dtype) = &tensors[index];
        recode(weight, *dtype, out)?;
        progress(weight.bytes().len() as u64);
        Ok(())
    };
    match output {
        Output::Safetensors => safetensors::write_entries(path, &entries, &all, fill)?,
        Output::Gguf => gguf::write_entries(path, &entries, &all, fill)?,
    }
    Ok(summary)
}

/// The storage type that a tensor gets.
fn target(weight: &Weight, output: Output, wanted: Option<StoredDType>) -> StoredDType {
    use StoredDType as D;
    let own = weight.dtype();
    let fits = |dtype: D| match output {
        Output::Safetensors => !matches!(dtype, D::Block(_)),
        Output::Gguf => gguf::number_of(dtype).is_some(),
    };
    if !own.is_float() {
        return match own {
            _ if fits(own) => own,
            D::Bool | D::U8 => D::I16,
            D::U16 => D::I32,
            _ => D::I64,
        };
    }
    // What a tensor gets that cannot have what was asked for: its own type if that is a plain one, else halves.
    let fallback = if matches!(own, D::F64 | D::F32 | D::F16 | D::BF16) { own } else { D::F16 };
    let Some(wanted) = wanted else { return if fits(own) { own } else { fallback } };
    let coarse = matches!(wanted, D::Block(_) | D::F8E4M3 | D::F8E5M2);
    let is_matrix = weight.dims().iter().filter(|&&n| n > 1).count() >= 2;
    let whole_blocks = weight.dims().last().is_some_and(|row| row.is_multiple_of(wanted.block_len()));
    match (coarse, is_matrix && whole_blocks) {
        (false, _) | (true, true) => wanted,
        (true, false) if is_matrix => D::F16,
        (true, false) => fallback,
    }
}
