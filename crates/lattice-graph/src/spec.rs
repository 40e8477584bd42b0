//! What a node declares: inputs, widgets, outputs. From it come validation and the /object_info entry.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::Extensions;

/// Declaration of a node class.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// `class_type` in prompts.
    pub name: String,
    /// Title in editors.
    pub display_name: String,
    /// What it does, for people.
    pub description: String,
    /// Menu path, `/` between levels.
    pub category: String,
    /// `python_module` of the reference (`nodes`, `comfy_extras.nodes_mask`, ...), which clients display and filter by.
    pub module: String,
    /// Inputs in the order of `input_order`: required ones first, then optional.
    pub inputs: Vec<InputSpec>,
    /// Hidden inputs: (name, `PROMPT` | `EXTRA_PNGINFO` | `UNIQUE_ID` | `DYNPROMPT` | ...).
    pub hidden: Vec<(String, String)>,
    /// Outputs in slot order.
    pub outputs: Vec<OutputSpec>,
    /// Whether it is a reason to run a prompt (saves, previews).
    pub output_node: bool,
    /// Called once with all inputs as lists.
    pub input_is_list: bool,
    /// Never share a result between two nodes of this class.
    pub not_idempotent: bool,
    /// Runs as a task beside other nodes.
    pub is_async: bool,
    /// Further fields of the /object_info entry (`deprecated`, `experimental`, `output_tooltips`, `api_node`), in order.
    pub extra: Map<String, Json>,
}

/// One input.
#[derive(Clone, Debug)]
pub struct InputSpec {
    /// Name in the prompt's `inputs`.
    pub name: String,
    /// Type or list of choices.
    pub kind: InputKind,
    /// Whether a prompt may leave it out.
    pub optional: bool,
    /// Options object exactly as /object_info shows it (default, min, max, step, tooltip, lazy, forceInput, ...);
    /// None where the entry has no options object at all.
    pub options: Option<Map<String, Json>>,
}

/// Type of an input.
#[derive(Clone, Debug)]
pub enum InputKind {
    /// A type name: `MODEL`, `INT`, `*`, `INT,FLOAT`, `COMBO` (newer style: choices in the options, not checked).
    Type(String),
    /// Older-style list of choices, membership-tested.
    Choices(Choices),
}

/// Where a list of choices comes from.
#[derive(Clone)]
pub enum Choices {
    /// Always the same.
    Fixed(Vec<Json>),
    /// Asked each time (files in a folder).
    Dynamic(Arc<dyn Fn(&Extensions) -> Vec<Json> + Send + Sync>),
}

impl std::fmt::Debug for Choices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(v) => write!(f, "Fixed({v:?})"),
            Self::Dynamic(_) => write!(f, "Dynamic"),
        }
    }
}

impl Choices {
    /// The list as it is now.
    pub fn list(&self, extensions: &Extensions) -> Vec<Json> {
        match self {
            Self::Fixed(v) => v.clone(),
            Self::Dynamic(f) => f(extensions),
        }
    }
}

/// One output slot.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    /// Type name (or choices list type, which the reference writes as a list).
    pub kind: InputKind,
    /// Shown name.
    pub name: String,
    /// Each call yields a list for this slot.
    pub is_list: bool,
}

impl InputSpec {
    /// An option by name.
    pub fn option(&self, name: &str) -> Option<&Json> {
        self.options.as_ref()?.get(name)
    }

    /// Whether its source runs only on demand.
    pub fn is_lazy(&self) -> bool {
        self.option("lazy").and_then(Json::as_bool).unwrap_or(false)
    }

    /// Whether the node gets the link itself instead of its value.
    pub fn is_raw_link(&self) -> bool {
        self.option("rawLink").and_then(Json::as_bool).unwrap_or(false)
    }
}

impl NodeSpec {
    /// An input by name.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// The /object_info entry, field for field as the reference prints it.
    pub fn object_info(&self, extensions: &Extensions) -> Json {
        let kind = |k: &InputKind| match k {
            InputKind::Type(t) => Json::from(t.as_str()),
            InputKind::Choices(c) => Json::Array(c.list(extensions)),
        };
        let group = |optional: bool| -> (Map<String, Json>, Vec<Json>) {
            let inputs = self.inputs.iter().filter(|i| i.optional == optional);
            inputs
                .map(|i| {
                    let mut entry = vec![kind(&i.kind)];
                    entry.extend(i.options.clone().map(Json::Object));
                    ((i.name.clone(), Json::Array(entry)), Json::from(i.name.as_str()))
                })
                .unzip()
        };
        let (mut input, mut order) = (Map::new(), Map::new());
        let mut put = |key: &str, (fields, names): (Map<String, Json>, Vec<Json>), always: bool| {
            if always || !fields.is_empty() {
                input.insert(key.to_owned(), fields.into());
                order.insert(key.to_owned(), names.into());
            }
        };
        put("required", group(false), true);
        put("optional", group(true), false);
        let hidden = self.hidden.iter().map(|(n, t)| (n.clone(), Json::from(t.as_str()))).collect();
        put("hidden", (hidden, self.hidden.iter().map(|(n, _)| Json::from(n.as_str())).collect()), false);
        let mut info = Map::new();
        info.insert("input".into(), input.into());
        info.insert("input_order".into(), order.into());
        info.insert("output".into(), self.outputs.iter().map(|o| kind(&o.kind)).collect());
        info.insert("output_is_list".into(), self.outputs.iter().map(|o| Json::from(o.is_list)).collect());
        info.insert("output_name".into(), self.outputs.iter().map(|o| Json::from(o.name.as_str())).collect());
        info.insert("name".into(), self.name.as_str().into());
        info.insert("display_name".into(), self.display_name.as_str().into());
        info.insert("description".into(), self.description.as_str().into());
        info.insert("python_module".into(), self.module.as_str().into());
        info.insert("category".into(), self.category.as_str().into());
        info.insert("output_node".into(), self.output_node.into());
        info.extend(self.extra.clone());
        Json::Object(info)
    }
}
