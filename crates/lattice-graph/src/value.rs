//! What travels along links.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// One value on a link.
#[derive(Clone, Debug)]
pub enum Value {
    /// A literal or a primitive result: number, text, boolean, list, null.
    Json(serde_json::Value),
    /// Anything else; the engine passes it on and counts its bytes.
    Object(Object),
    /// Stops whoever would consume it.
    Blocker(Blocker),
}

impl Value {
    /// Wraps a node library's own type.
    pub fn object<T: Any + Send + Sync>(type_name: &'static str, bytes: usize, data: T) -> Self {
        Self::Object(Object { type_name, bytes, data: Arc::new(data) })
    }

    /// The node library's own type, if it is one of that type.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match self {
            Self::Object(o) => o.data.clone().downcast().ok(),
            _ => None,
        }
    }

    /// The literal, if it is one.
    pub fn as_json(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Json(v) => Some(v),
            _ => None,
        }
    }

    /// Null: also what a missing input looks like.
    pub const NULL: Self = Self::Json(serde_json::Value::Null);
}

impl<T: Into<serde_json::Value>> From<T> for Value {
    fn from(v: T) -> Self {
        Self::Json(v.into())
    }
}

/// An opaque value with the name and size the engine needs for checks and caches.
#[derive(Clone)]
pub struct Object {
    /// Graph type, such as `IMAGE`.
    pub type_name: &'static str,
    /// Memory it keeps alive, for caches that evict by size.
    pub bytes: usize,
    /// The value itself.
    pub data: Arc<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} {} bytes>", self.type_name, self.bytes)
    }
}

/// A value that blocks its consumers, with an optional message for the first of them to report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocker {
    /// Reported once as an error; without it the block is silent.
    pub message: Option<String>,
}

/// What the host program lends to nodes (folders, devices, model caches), by type.
#[derive(Clone, Default)]
pub struct Extensions(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Extensions {
    /// Adds a service; replaces one of the same type.
    pub fn insert<T: Any + Send + Sync>(&mut self, service: T) {
        self.insert_shared(Arc::new(service));
    }

    /// Adds a service that is shared with others.
    pub fn insert_shared<T: Any + Send + Sync>(&mut self, service: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), service);
    }

    /// The service of that type, if the host lends it.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|s| s.downcast().ok())
    }
}
