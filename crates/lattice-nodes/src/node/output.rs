//! The graph's values out of results.

use lattice_graph::{InputKind, NodeError, NodeOutput, OutputSpec, Slot, Value};
use serde_json::{Map, Value as Json};

use super::GraphType;

/// Types that can fill a result slot.
pub trait IntoSlot {
    /// Type name that the slot declares.
    const TYPE: &'static str;
    /// Whether a call yields a list for the slot.
    const IS_LIST: bool = false;

    /// The slot's content.
    fn into_slot(self) -> Slot;
}

impl<T: GraphType> IntoSlot for T {
    const TYPE: &'static str = T::NAME;

    fn into_slot(self) -> Slot {
        Slot::One(self.into_value())
    }
}

/// A part that may be missing goes on as null; whoever uses it reports it.
impl<T: GraphType> IntoSlot for Option<T> {
    const TYPE: &'static str = T::NAME;

    fn into_slot(self) -> Slot {
        Slot::One(self.map_or(Value::NULL, GraphType::into_value))
    }
}

impl IntoSlot for Value {
    const TYPE: &'static str = "*";

    fn into_slot(self) -> Slot {
        Slot::One(self)
    }
}

macro_rules! literals {
    ($($ty:ty => $name:literal),* $(,)?) => {$(
        impl IntoSlot for $ty {
            const TYPE: &'static str = $name;

            fn into_slot(self) -> Slot {
                Slot::One(self.into())
            }
        }
    )*};
}
literals!(i64 => "INT", u64 => "INT", usize => "INT", f64 => "FLOAT", bool => "BOOLEAN", String => "STRING");

/// A list slot.
impl<T: IntoSlot> IntoSlot for Vec<T> {
    const TYPE: &'static str = T::TYPE;
    const IS_LIST: bool = true;

    fn into_slot(self) -> Slot {
        let values = self.into_iter().flat_map(|item| match item.into_slot() {
            Slot::One(value) => vec![value],
            Slot::Many(values) => values,
            Slot::Link(..) => Vec::new(),
        });
        Slot::Many(values.collect())
    }
}

/// UI output: what clients show beside the node and in the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ui(pub Map<String, Json>);

impl Ui {
    /// One key with its list.
    pub fn new(key: &str, list: Vec<Json>) -> Self {
        Self(Map::from_iter([(key.to_owned(), list.into())]))
    }

    /// With one more key.
    #[must_use]
    pub fn and(mut self, key: &str, list: Vec<Json>) -> Self {
        self.0.insert(key.to_owned(), list.into());
        self
    }
}

/// Results and UI output.
#[derive(Clone, Debug)]
pub struct WithUi<T>(pub T, pub Ui);

/// What a node function yields when it succeeds.
pub trait Outputs {
    /// Type name and listness of the slots.
    fn slots() -> Vec<(&'static str, bool)>;

    /// As the engine takes it.
    fn into_output(self) -> NodeOutput;
}

impl<T: IntoSlot> Outputs for T {
    fn slots() -> Vec<(&'static str, bool)> {
        vec![(T::TYPE, T::IS_LIST)]
    }

    fn into_output(self) -> NodeOutput {
        NodeOutput { slots: vec![self.into_slot()], ..NodeOutput::default() }
    }
}

macro_rules! tuples {
    ($($($name:ident)*;)*) => {$(
        impl<$($name: IntoSlot),*> Outputs for ($($name,)*) {
            fn slots() -> Vec<(&'static str, bool)> {
                vec![$(($name::TYPE, $name::IS_LIST)),*]
            }

            #[allow(non_snake_case)] // the letters of the types name their values
            fn into_output(self) -> NodeOutput {
                let ($($name,)*) = self;
                NodeOutput { slots: vec![$($name.into_slot()),*], ..NodeOutput::default() }
            }
        }
    )*};
}
tuples! {
    ;
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
}

impl Outputs for Ui {
    fn slots() -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn into_output(self) -> NodeOutput {
        NodeOutput::ui(self.0)
    }
}

impl<T: Outputs> Outputs for WithUi<T> {
    fn slots() -> Vec<(&'static str, bool)> {
        T::slots()
    }

    fn into_output(self) -> NodeOutput {
        NodeOutput { ui: Some(self.1.0), ..self.0.into_output() }
    }
}

/// The class declares its slots with `output_types`.
impl Outputs for NodeOutput {
    fn slots() -> Vec<(&'static str, bool)> {
        Vec::new()
    }

    fn into_output(self) -> NodeOutput {
        self
    }
}

/// What a node function returns: outputs, or a result of them.
pub trait NodeResult {
    /// The success.
    type Outputs: Outputs;

    /// As a result.
    fn into_result(self) -> Result<Self::Outputs, NodeError>;
}

impl<T: Outputs> NodeResult for T {
    type Outputs = T;

    fn into_result(self) -> Result<T, NodeError> {
        Ok(self)
    }
}

impl<T: Outputs, E: Into<NodeError>> NodeResult for Result<T, E> {
    type Outputs = T;

    fn into_result(self) -> Result<T, NodeError> {
        self.map_err(Into::into)
    }
}

/// What the engine gets of a returned value.
pub fn finish(result: impl NodeResult) -> Result<NodeOutput, NodeError> {
    result.into_result().map(Outputs::into_output)
}

/// Slots of a function's return type; `names` and `types` replace those that the type tells.
pub fn output_specs<R: NodeResult>(names: &[&str], types: &[&str]) -> Vec<OutputSpec> {
    let told = R::Outputs::slots();
    let slots = (0..told.len().max(types.len())).map(|i| {
        let (told_type, is_list) = told.get(i).copied().unwrap_or(("*", false));
        let kind = types.get(i).copied().unwrap_or(told_type);
        let name = names.get(i).copied().unwrap_or(kind).to_owned();
        OutputSpec { kind: InputKind::Type(kind.to_owned()), name, is_list }
    });
    slots.collect()
}
