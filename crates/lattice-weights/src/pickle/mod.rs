//! PyTorch's own files (`.ckpt`, `.pt`, `.pth`, `.bin`): a pickle that describes tensors, and their storages.
//!
//! The pickle is read by a machine that can only build plain data ([`vm`]); it has no way to call anything. Names of
//! Python objects outside a short list are errors. Both layouts of `torch.save` are read: the zip archive (since 1.6), whose
//! uncompressed entries stay mapped, and the older run of pickles followed by the storages.

mod tensor;
mod vm;
mod zip;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use lattice_kernels::{StoredDType, Weight};

use crate::StateDict;
use crate::cursor::Cursor;
use crate::error::{Cause, FileError, display};
use vm::{Machine, Value};

/// First bytes of a zip archive.
pub(crate) const ZIP_MAGIC: [u8; 4] = *b"PK\x03\x04";
/// The number that opens a file of the older layout, as pickled: protocol 2, a 10-byte integer, the end.
pub(crate) const LEGACY_MAGIC: [u8; 15] =
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
/// Nested dictionaries and lists are joined by dots down to here.
const DEPTH_LIMIT: usize = 6;
/// Values looked at while collecting tensors; far beyond any real file, it bounds shared structures that unfold without end.
const VISIT_LIMIT: usize = 1_000_000;
/// Longest name of a tensor; a long text can be part of the names of any number of them.
const NAME_LIMIT: usize = 1024;
/// Bytes of texts beside the weights; what is beyond is left out.
const METADATA_LIMIT: usize = 16 << 20;
/// Strided views are copied; in all they may take so many times the file's length, since any number of them can share a storage.
const COPY_FACTOR: usize = 4;

/// Opens a PyTorch file of either layout by mapping it.
///
/// # Errors
/// Names the file, and the tensor or the forbidden global at fault.
pub fn open(path: &Path) -> Result<StateDict, FileError> {
    from_bytes(&display(path), crate::map::map(path)?)
}

/// As [`open`] over bytes already in memory; `name` stands for the file in messages.
///
/// # Errors
/// As [`open`].
pub fn from_bytes(name: &str, bytes: Bytes) -> Result<StateDict, FileError> {
    let bytes_in_file = bytes.len();
    let (machine, root, storages) = if bytes.is_empty() {
        return Err(Cause::Empty.of(name));
    } else if bytes.starts_with(&ZIP_MAGIC) {
        archive(&bytes).map_err(|c| c.of(name))?
    } else {
        legacy(&bytes).map_err(|c| c.of(name))?
    };
    let mut collected = Collected {
        tensors: IndexMap::new(),
        metadata: BTreeMap::new(),
        visited: 0,
        copy_budget: bytes_in_file.saturating_mul(COPY_FACTOR),
    };
    collected.metadata(&machine, &root);
    let chosen = choose(&machine, &root);
    collected.walk(name, &machine, &chosen, "", 0, &storages)?;
    if collected.tensors.is_empty() {
        return Err(Cause::malformed("pickle", "it holds no tensors").of(name));
    }
    Ok(StateDict::new(name, collected.tensors, collected.metadata))
}

type Opened = (Machine, Value, HashMap<String, Bytes>);

/// The layout since PyTorch 1.6: `NAME/data.pkl` and one entry `NAME/data/KEY` per storage.
fn archive(bytes: &Bytes) -> Result<Opened, Cause> {
    let entries = zip::entries(bytes)?;
    let (pickle_name, pickle) = entries
        .iter()
        .find(|(name, _)| name.ends_with("/data.pkl") || *name == "data.pkl")
        .ok_or_else(|| Cause::malformed("archive", "there is no data.pkl; this is not a PyTorch file"))?;
    let folder = pickle_name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    if let Some(order) = entries.get(&format!("{folder}byteorder"))
        && order.as_ref() != b"little"
    {
        return Err(Cause::malformed("archive", "it was written on a big-endian machine"));
    }
    let mut machine = Machine::default();
    let (root, _) = machine.run(pickle, 0)?;
    let prefix = format!("{folder}data/");
    let storages = entries
        .iter()
        .filter_map(|(name, bytes)| Some((name.strip_prefix(&prefix)?.to_owned(), bytes.clone())))
        .collect();
    Ok((machine, root, storages))
}

/// The older layout: pickles of a magic number, a version, system facts, the object and the storages' keys; then each
/// storage with its length.
fn legacy(bytes: &Bytes) -> Result<Opened, Cause> {
    if !bytes.starts_with(&LEGACY_MAGIC) {
        return Err(Cause::malformed("pickle", "neither of PyTorch's file layouts"));
    }
    let mut position = LEGACY_MAGIC.len();
    for _ in 0..2 {
        (_, position) = Machine::default().run(bytes, position)?;
    }
    let mut machine = Machine::default();
    let (root, position) = machine.run(bytes, position)?;
    let mut key_machine = Machine::default();
    let (keys, position) = key_machine.run(bytes, position)?;
    let mut cursor = Cursor::new(bytes, position);
    let mut storages = HashMap::new();
    for key in key_machine.items(&keys) {
        let Some(key) = key.text() else {
            return Err(Cause::malformed("pickle", "a storage key is no text"));
        };
        let length = cursor.u64("a storage's length")?;
        let dtype = machine.storage_dtype(&key);
        let size = dtype.map_or(1, StoredDType::size) as u64;
        let begin = cursor.position();
        cursor.take(length.saturating_mul(size), "a storage")?;
        storages.insert(key.to_string(), bytes.slice(begin..cursor.position()));
    }
    Ok((machine, root, storages))
}

/// The dictionary that holds the weights: below `state_dict`, `params_ema` or `params`, below a single key, or the whole.
fn choose(machine: &Machine, root: &Value) -> Value {
    let pairs = machine.pairs(root);
    let is_dict = |v: &&Value| !machine.pairs(v).is_empty();
    for name in ["state_dict", "params_ema", "params"] {
        let found = pairs.iter().find(|(k, _)| k.text().as_deref() == Some(name)).map(|(_, v)| v);
        if let Some(value) = found.filter(is_dict) {
            return value.clone();
        }
    }
    match pairs {
        [(_, only)] if is_dict(&only) => only.clone(),
        _ => root.clone(),
    }
}

struct Collected {
    tensors: IndexMap<String, Weight>,
    metadata: BTreeMap<String, String>,
    visited: usize,
    /// Bytes that strided views may still be copied to.
    copy_budget: usize,
}

impl Collected {
    /// Single numbers and texts beside the weights (steps, epochs, names).
    fn metadata(&mut self, machine: &Machine, root: &Value) {
        let mut budget = METADATA_LIMIT;
        for (key, value) in machine.pairs(root) {
            if let (Some(key), Some(text)) = (key.text(), value.scalar()) {
                let Some(left) = budget.checked_sub(key.len() + text.len()) else { return };
                budget = left;
                self.metadata.insert(key.to_string(), text.to_string());
            }
        }
    }

    fn walk(
        &mut self,
        file: &str,
        machine: &Machine,
        value: &Value,
        path: &str,
        depth: usize,
        storages: &HashMap<String, Bytes>,
    ) -> Result<(), FileError> {
        self.visited += 1;
        if self.visited > VISIT_LIMIT {
            return Err(Cause::malformed("pickle", "it refers to itself too often").of(file));
        }
        if let Some(tensor) = machine.tensor(value) {
            let weight =
                tensor.load(storages, &mut self.copy_budget).map_err(|cause| cause.at(file, path))?;
            self.tensors.insert(path.to_owned(), weight);
        } else if depth < DEPTH_LIMIT {
            for (key, value) in machine.pairs(value) {
                let Some(key) = key.text().or_else(|| key.scalar()) else { continue };
                let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                if path.len() > NAME_LIMIT {
                    return Err(Cause::malformed("pickle", "a name is too long").of(file));
                }
                self.walk(file, machine, value, &path, depth + 1, storages)?;
            }
            // Lists name what they hold by its place.
            for (i, value) in machine.items(value).iter().enumerate() {
                let path = if path.is_empty() { i.to_string() } else { format!("{path}.{i}") };
                if path.len() > NAME_LIMIT {
                    return Err(Cause::malformed("pickle", "a name is too long").of(file));
                }
                self.walk(file, machine, value, &path, depth + 1, storages)?;
            }
        }
        Ok(())
    }
}
