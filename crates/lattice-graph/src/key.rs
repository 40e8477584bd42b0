//! Cache keys: what decides a node's result, as a hash.
//!
//! The key of a node covers its class, what it depends on beside its inputs, its literals, and for each link the key of
//! the source and the slot, in the order of input names. Ids, titles and the order of nodes are not part of it. Keys of
//! sources stand for all ancestors, so a key costs as much as the node has inputs, however deep the graph is. Two
//! prompts that differ only in whether equal nodes are one node or several have the same keys.

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::Value;

/// Identifies a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key([u8; 32]);

/// Makes a key; parts are told apart by a tag and, where they vary, a length.
pub(crate) struct KeyBuilder(Sha256);

/// A part that matches nothing, not even itself later.
pub(crate) struct NeverEqual;

impl KeyBuilder {
    pub(crate) fn new(class: &str) -> Self {
        let mut builder = Self(Sha256::new());
        builder.text(b'c', class);
        builder
    }

    /// A key like no other; `nonce` must not come twice.
    pub(crate) fn unique(nonce: u64) -> Key {
        let mut hasher = Sha256::new();
        hasher.update(b"unique");
        hasher.update(nonce.to_le_bytes());
        Key(hasher.finalize().into())
    }

    fn text(&mut self, tag: u8, text: &str) {
        self.0.update([tag]);
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    pub(crate) fn id(&mut self, id: &str) {
        self.text(b'i', id);
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.text(b'n', name);
    }

    pub(crate) fn key(&mut self, key: &Key, slot: usize) {
        self.0.update([b'k']);
        self.0.update(key.0);
        self.0.update((slot as u64).to_le_bytes());
    }

    pub(crate) fn value(&mut self, value: &Value) -> Result<(), NeverEqual> {
        match value {
            Value::Json(json) => self.json(json),
            Value::Object(_) | Value::Blocker(_) => Err(NeverEqual),
        }
    }

    /// Values that are equal (`1`, `1.0` and `true` are) hash the same.
    pub(crate) fn json(&mut self, json: &Json) -> Result<(), NeverEqual> {
        match json {
            Json::Null => self.0.update([b'0']),
            Json::Bool(b) => self.integer(i128::from(*b)),
            Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), ..) => self.integer(i128::from(i)),
                (None, Some(u), _) => self.integer(i128::from(u)),
                // Whole numbers of that size are exact in 128 bits.
                (.., Some(f)) if f.fract() == 0.0 && f.abs() < 1e38 => self.integer(f as i128),
                (.., Some(f)) if f.is_finite() => {
                    self.0.update([b'f']);
                    self.0.update(f.to_bits().to_le_bytes());
                }
                _ => return Err(NeverEqual),
            },
            Json::String(s) => self.text(b's', s),
            Json::Array(list) => {
                self.0.update([b'[']);
                self.0.update((list.len() as u64).to_le_bytes());
                for item in list {
                    self.json(item)?;
                }
            }
            Json::Object(map) => {
                self.0.update([b'{']);
                self.0.update((map.len() as u64).to_le_bytes());
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_unstable_by_key(|&(key, _)| key);
                for (key, item) in entries {
                    self.text(b'n', key);
                    self.json(item)?;
                }
            }
        }
        Ok(())
    }

    fn integer(&mut self, i: i128) {
        self.0.update([b'd']);
        self.0.update(i.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}
