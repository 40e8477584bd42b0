//! What a node declares: inputs, widgets, outputs. From it come validation and the /object_info entry.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::Extensions;

/// Declaration of a node class.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent facts, each with its own field in /object_info
pub struct NodeSpec {
    /// `class_type` in prompts.
    pub name: String,
    /// Title in editors; without one they show the name.
    pub display_name: Option<String>,
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
    /// A type name: `MODEL`, `INT`, `*`, `INT,FLOAT`.
    Type(String),
    /// Newer-style list of choices: type `COMBO`, the list among the options as `options`; never membership-tested.
    Combo(Choices),
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
    /// The `[type, options]` pair as /object_info shows it; only `[type]` where there is no options object.
    pub fn entry(&self, extensions: &Extensions) -> Json {
        let mut entry = vec![self.kind.name(extensions)];
        match (&self.kind, &self.options) {
            (InputKind::Combo(choices), options) => {
                let mut options = options.clone().unwrap_or_default();
                options.insert("options".into(), choices.list(extensions).into());
                entry.push(options.into());
            }
            (_, options) => entry.extend(options.clone().map(Json::Object)),
        }
        Json::Array(entry)
    }

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

impl InputKind {
    /// What /object_info shows as the type: a name, or the list of choices.
    pub fn name(&self, extensions: &Extensions) -> Json {
        match self {
            Self::Type(t) => t.as_str().into(),
            Self::Combo(_) => "COMBO".into(),
            Self::Choices(c) => c.list(extensions).into(),
        }
    }
}

impl NodeSpec {
    /// An input by name.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// Whether the class asks for that hidden input (`PROMPT`, `UNIQUE_ID`, ...).
    pub fn wants_hidden(&self, kind: &str) -> bool {
        self.hidden.iter().any(|(_, k)| k == kind)
    }

    /// Title shown for a node without one of its own: the display name, else the class name.
    pub fn title(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }

    /// The /object_info entry, field for field as the reference prints it.
    pub fn object_info(&self, extensions: &Extensions) -> Json {
        let group = |optional: bool| -> (Map<String, Json>, Vec<Json>) {
            let inputs = self.inputs.iter().filter(|i| i.optional == optional);
            inputs.map(|i| ((i.name.clone(), i.entry(extensions)), Json::from(i.name.as_str()))).unzip()
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
        // Classes of the newer style always say whether they call a paid service, and write hidden types as lists.
        let newer = self.extra.contains_key("api_node");
        let hidden_type = |t: &str| if newer { Json::from(vec![t]) } else { Json::from(t) };
        let hidden = self.hidden.iter().map(|(n, t)| (n.clone(), hidden_type(t))).collect();
        put("hidden", (hidden, self.hidden.iter().map(|(n, _)| Json::from(n.as_str())).collect()), false);
        let mut info = Map::new();
        info.insert("input".into(), input.into());
        info.insert("input_order".into(), order.into());
        info.insert("output".into(), self.outputs.iter().map(|o| o.kind.name(extensions)).collect());
        info.insert("output_is_list".into(), self.outputs.iter().map(|o| Json::from(o.is_list)).collect());
        info.insert("output_name".into(), self.outputs.iter().map(|o| Json::from(o.name.as_str())).collect());
        info.insert("name".into(), self.name.as_str().into());
        info.insert("display_name".into(), self.display_name.clone().into());
        info.insert("description".into(), self.description.as_str().into());
        info.insert("python_module".into(), self.module.as_str().into());
        info.insert("category".into(), self.category.as_str().into());
        info.insert("output_node".into(), self.output_node.into());
        info.extend(self.extra.clone());
        Json::Object(info)
    }
}
