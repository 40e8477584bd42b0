//! Rust values out of the graph's values.

use std::any::Any;
use std::sync::Arc;

use lattice_graph::{InputKind, Value};
use serde_json::Value as Json;

/// A value was not of the type that the node takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {found}")]
pub struct Mismatch {
    /// What the node takes.
    pub expected: String,
    /// What came.
    pub found: String,
}

impl Mismatch {
    /// Expected something else than `value`.
    pub fn new(expected: impl Into<String>, value: &Value) -> Self {
        let found = match value {
            Value::Json(json) => described(json),
            Value::Object(object) => object.type_name.to_owned(),
            Value::Blocker(_) => "a blocker".to_owned(),
        };
        Self { expected: expected.into(), found }
    }
}

/// A literal for people, long ones by their kind only.
fn described(json: &Json) -> String {
    match json {
        Json::Null => "nothing".into(),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
        Json::String(text) if text.chars().count() > 40 => "a text".into(),
        short => short.to_string(),
    }
}

/// Types that a node can take as an input.
pub trait FromInput: Sized {
    /// Type that the input declares, where no attribute says otherwise.
    fn kind() -> InputKind;

    /// Takes the value.
    fn from_input(value: Value) -> Result<Self, Mismatch>;
}

/// The node library's own types, which pass through the graph as they are. Cloning must be cheap: tensors are shared.
pub trait GraphType: Any + Clone + Send + Sync {
    /// Type name in specs: `IMAGE`.
    const NAME: &'static str;

    /// Memory that the value keeps alive, for caches that evict by size.
    fn bytes(&self) -> usize {
        0
    }

    /// The value as the graph passes it on.
    fn into_value(self) -> Value {
        Value::object(Self::NAME, self.bytes(), self)
    }
}

impl<T: GraphType> FromInput for T {
    fn kind() -> InputKind {
        InputKind::Type(T::NAME.into())
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        let data = value.downcast::<T>().ok_or_else(|| Mismatch::new(T::NAME, &value))?;
        drop(value);
        Ok(Arc::unwrap_or_clone(data))
    }
}

/// Anything (`*`).
impl FromInput for Value {
    fn kind() -> InputKind {
        InputKind::Type("*".into())
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

/// A whole number. Whole floats and booleans pass, as they do in Python.
fn integer(value: &Value) -> Option<i128> {
    match value.as_json()? {
        Json::Bool(b) => Some(i128::from(*b)),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Some(i.into()),
            (_, Some(u), _) => Some(u.into()),
            // Beyond 2^100 no node has a use for the number, and `as` would saturate anyway.
            (.., Some(f)) if f.fract() == 0.0 && f.abs() < 2f64.powi(100) => Some(f as i128),
            _ => None,
        },
        _ => None,
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl FromInput for $int {
            fn kind() -> InputKind {
                InputKind::Type("INT".into())
            }

            fn from_input(value: Value) -> Result<Self, Mismatch> {
                let number = integer(&value).ok_or_else(|| Mismatch::new("INT", &value))?;
                number.try_into().map_err(|_| {
                    Mismatch::new(format!("a whole number from {} to {}", <$int>::MIN, <$int>::MAX), &value)
                })
            }
        }
    )*};
}
integers!(i32, i64, u32, u64, usize);

impl FromInput for f64 {
    fn kind() -> InputKind {
        InputKind::Type("FLOAT".into())
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        let number = match value.as_json() {
            Some(Json::Bool(b)) => Some(f64::from(u8::from(*b))),
            Some(Json::Number(n)) => n.as_f64(),
            _ => None,
        };
        number.ok_or_else(|| Mismatch::new("FLOAT", &value))
    }
}

impl FromInput for f32 {
    fn kind() -> InputKind {
        f64::kind()
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        f64::from_input(value).map(|number| number as f32)
    }
}

impl FromInput for bool {
    fn kind() -> InputKind {
        InputKind::Type("BOOLEAN".into())
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        match value.as_json() {
            Some(Json::Bool(b)) => Ok(*b),
            Some(Json::Number(n)) => Ok(n.as_f64() != Some(0.0)),
            _ => Err(Mismatch::new("BOOLEAN", &value)),
        }
    }
}

impl FromInput for String {
    fn kind() -> InputKind {
        InputKind::Type("STRING".into())
    }

    fn from_input(value: Value) -> Result<Self, Mismatch> {
        match value {
            Value::Json(Json::String(text)) => Ok(text),
            other => Err(Mismatch::new("STRING", &other)),
        }
    }
}

/// An enum as a list of choices; made by `#[derive(Choice)]`.
pub trait Choice: Sized {
    /// The texts, in the order shown.
    const NAMES: &'static [&'static str];

    /// The variant of a text.
    fn from_name(name: &str) -> Option<Self>;
}

/// [`FromInput::from_input`] of a [`Choice`].
pub fn choice_from_input<T: Choice>(value: &Value) -> Result<T, Mismatch> {
    let name = value.as_json().and_then(Json::as_str);
    name.and_then(T::from_name).ok_or_else(|| Mismatch::new(format!("one of {}", T::NAMES.join(", ")), value))
}
