//! Results kept between prompts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::key::Key;
use crate::{NodeState, Value};

/// How long results are kept.
#[derive(Clone, Default)]
pub enum CacheStrategy {
    /// As long as each successive prompt contains them.
    #[default]
    Classic,
    /// At most that many (those of the current prompt always), least recently used ones go first.
    Lru(usize),
    /// Nothing outlives its last consumer.
    None,
    /// Until memory runs short: then large and old results go first, those of the current prompt last and only after
    /// their last consumer.
    RamPressure {
        /// Memory in bytes at which results start to go.
        budget: u64,
        /// Tells the memory in use, in bytes.
        probe: MemoryProbe,
    },
}

/// Tells how much memory the process uses, in bytes.
pub type MemoryProbe = Arc<dyn Fn() -> u64 + Send + Sync>;

impl CacheStrategy {
    /// Whether the run may let go of a result once its consumers have run.
    pub(crate) fn drops_spent(&self) -> bool {
        matches!(self, Self::None | Self::RamPressure { .. })
    }
}

/// Per output slot the list of values.
pub(crate) type Outputs = Vec<Vec<Value>>;

/// UI output of a node and where it came from, as in the history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UiOutput {
    /// Key to list.
    pub output: Map<String, Json>,
    /// Where it came from.
    pub meta: UiMeta,
}

/// Origin of a UI output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UiMeta {
    /// Node that made it.
    pub node_id: String,
    /// Node shown to the user.
    pub display_node: String,
    /// Where the node stems from.
    pub parent_node: Option<String>,
    /// Outermost original node.
    pub real_node_id: String,
}

/// What is kept of one node.
#[derive(Clone)]
pub(crate) struct Entry {
    pub outputs: Arc<Outputs>,
    pub ui: Option<Arc<UiOutput>>,
    /// Key of the outermost original node: an expansion's results live as long as that node's.
    pub root: Key,
}

struct Stored {
    entry: Entry,
    bytes: u64,
    last_used: u64,
}

/// The stores of an executor.
#[derive(Default)]
pub(crate) struct Cache {
    pub strategy: CacheStrategy,
    entries: HashMap<Key, Stored>,
    states: HashMap<(String, String), (NodeState, String)>,
    /// Number of the current prompt.
    prompt: u64,
    /// What may go under memory pressure, the last first.
    stale: Vec<Key>,
    spent: Vec<Key>,
}

impl Cache {
    pub(crate) fn new(strategy: CacheStrategy) -> Self {
        Self { strategy, ..Self::default() }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self { strategy: self.strategy.clone(), prompt: self.prompt, ..Self::default() };
    }

    /// A new prompt with these keys and (id, class) pairs begins.
    pub(crate) fn begin(&mut self, keys: &HashSet<Key>, nodes: &HashMap<&str, &str>) {
        self.prompt += 1;
        let prompt = self.prompt;
        for stored in self.entries.values_mut().filter(|stored| keys.contains(&stored.entry.root)) {
            stored.last_used = prompt;
        }
        match self.strategy {
            CacheStrategy::Classic => self.entries.retain(|_, stored| stored.last_used == prompt),
            CacheStrategy::None => self.entries.clear(),
            CacheStrategy::Lru(limit) => self.evict_oldest(limit),
            CacheStrategy::RamPressure { .. } => {
                self.spent.clear();
                self.stale =
                    self.entries.iter().filter(|(_, s)| s.last_used != prompt).map(|(key, _)| *key).collect();
                let score = |key: &Key| {
                    self.entries.get(key).map_or(0, |s| s.bytes.saturating_mul(prompt - s.last_used))
                };
                self.stale.sort_by_cached_key(|key| (score(key), *key));
                self.relieve();
            }
        }
        self.states.retain(|(id, class), (_, real)| {
            nodes
                .get(id.as_str())
                .map_or_else(|| id != real && nodes.contains_key(real.as_str()), |c| c == class)
        });
    }

    /// Whole generations go, the oldest first, but never the current one.
    fn evict_oldest(&mut self, limit: usize) {
        let mut generations: Vec<u64> = self.entries.values().map(|s| s.last_used).collect();
        generations.sort_unstable();
        let Some(surplus) = self.entries.len().checked_sub(limit).filter(|&surplus| surplus > 0) else {
            return;
        };
        let newest_to_go = generations[surplus - 1];
        self.entries.retain(|_, s| s.last_used > newest_to_go || s.last_used == self.prompt);
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key).map(|stored| &stored.entry)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn insert(&mut self, key: Key, entry: Entry) {
        if matches!(self.strategy, CacheStrategy::None) {
            return;
        }
        let bytes = entry.outputs.iter().flatten().map(value_bytes).sum();
        self.entries.insert(key, Stored { entry, bytes, last_used: self.prompt });
        self.relieve();
    }

    /// All consumers of a result have run.
    pub(crate) fn spent(&mut self, key: Key) {
        if matches!(self.strategy, CacheStrategy::RamPressure { .. }) {
            self.spent.push(key);
            self.relieve();
        }
    }

    fn relieve(&mut self) {
        let CacheStrategy::RamPressure { budget, probe } = &self.strategy else { return };
        if self.stale.is_empty() && self.spent.is_empty() {
            return;
        }
        // Freed memory need not go back to the system at once, so what was freed is counted instead.
        let mut excess = probe().saturating_sub(*budget);
        while excess > 0 {
            let Some(key) = self.stale.pop().or_else(|| self.spent.pop()) else { return };
            if let Some(stored) = self.entries.remove(&key) {
                excess = excess.saturating_sub(stored.bytes);
            }
        }
    }

    /// The state that a node of that id and class keeps.
    pub(crate) fn state(&mut self, id: &str, class: &str, real: &str) -> NodeState {
        let state = self.states.entry((id.to_owned(), class.to_owned()));
        state.or_insert_with(|| (NodeState::default(), real.to_owned())).0.clone()
    }
}

fn value_bytes(value: &Value) -> u64 {
    match value {
        Value::Object(object) => object.bytes as u64,
        Value::Json(json) => json_bytes(json),
        Value::Blocker(_) => 0,
    }
}

/// Roughly what a literal takes.
fn json_bytes(json: &Json) -> u64 {
    let own = size_of::<Json>() as u64;
    own + match json {
        Json::String(s) => s.len() as u64,
        Json::Array(list) => list.iter().map(json_bytes).sum(),
        Json::Object(map) => map.iter().map(|(key, item)| key.len() as u64 + json_bytes(item)).sum(),
        _ => 0,
    }
}
