//! The safetensors format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
//!
//! <https://github.com/huggingface/safetensors#format>. The header maps names to `dtype`, `shape` and `data_offsets`
//! (relative to the end of the header); in order of their offsets the ranges follow each other without gap or overlap and
//! fill the file to its end. `__metadata__` maps text to text.

mod read;
mod write;

pub use read::{from_bytes, open};
pub use write::{Entry, write, write_entries, write_to};

/// Longest header that is accepted, as in the format's reference implementation.
const HEADER_LIMIT: u64 = 100_000_000;

/// Key of the text metadata among the tensors.
const METADATA: &str = "__metadata__";
