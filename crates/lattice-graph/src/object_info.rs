//! A [`NodeSpec`] read back from the /object_info entry of a class (the other way is [`NodeSpec::object_info`]).

use serde_json::{Map, Value as Json};

use crate::{Choices, InputKind, InputSpec, NodeSpec, OutputSpec};

/// An /object_info entry that declares no node class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node class {class:?}: {problem}")]
pub struct ObjectInfoError {
    /// Key of the entry.
    pub class: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Keys of an entry that have a field of their own in [`NodeSpec`].
const OWN_KEYS: [&str; 11] = [
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "name",
    "display_name",
    "description",
    "python_module",
    "category",
    "output_node",
];

impl NodeSpec {
    /// The declaration that an /object_info entry describes. What the entry does not tell (`input_is_list`,
    /// `not_idempotent`, `is_async`) is left at its default, so such a spec serves conversion and display, not
    /// execution.
    ///
    /// # Errors
    /// If the entry is not an object or an input is not `[type, options?]`.
    pub fn from_object_info(class: &str, entry: &Json) -> Result<Self, ObjectInfoError> {
        let bad = |problem: String| ObjectInfoError { class: class.to_owned(), problem };
        let entry = entry.as_object().ok_or_else(|| bad("the entry is not an object".into()))?;
        let text = |key: &str| entry.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let mut spec = Self {
            name: class.to_owned(),
            display_name: entry.get("display_name").and_then(Json::as_str).map(str::to_owned),
            description: text("description"),
            category: text("category"),
            module: text("python_module"),
            output_node: entry.get("output_node").and_then(Json::as_bool).unwrap_or(false),
            outputs: outputs(entry).map_err(bad)?,
            ..Self::default()
        };
        for (section, optional) in [("required", false), ("optional", true)] {
            for (name, declaration) in ordered(entry, section) {
                spec.inputs.push(
                    input(&name, declaration, optional)
                        .ok_or_else(|| bad(format!("input {name:?} is not [type, options]")))?,
                );
            }
        }
        for (name, kind) in ordered(entry, "hidden") {
            let kind = kind.as_str().or_else(|| kind.get(0)?.as_str()).unwrap_or_default();
            spec.hidden.push((name, kind.to_owned()));
        }
        spec.extra = entry
            .iter()
            .filter(|(key, _)| !OWN_KEYS.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Ok(spec)
    }
}

/// The entries of a section of `input`, in the order of `input_order`, then those it leaves out.
fn ordered<'a>(entry: &'a Map<String, Json>, section: &str) -> Vec<(String, &'a Json)> {
    let Some(fields) = entry.get("input").and_then(|i| i.get(section)).and_then(Json::as_object) else {
        return Vec::new();
    };
    let order = entry.get("input_order").and_then(|o| o.get(section)).and_then(Json::as_array);
    let mut names: indexmap::IndexSet<&str> = order
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .filter(|name| fields.contains_key(*name))
        .collect();
    names.extend(fields.keys().map(String::as_str));
    names.into_iter().filter_map(|name| Some((name.to_owned(), fields.get(name)?))).collect()
}

fn input(name: &str, declaration: &Json, optional: bool) -> Option<InputSpec> {
    let declaration = declaration.as_array()?;
    let mut options = declaration.get(1).and_then(Json::as_object).cloned();
    let kind = match kind_of(declaration.first()?)? {
        // A combo without a list of choices asks a route for them: clients' business.
        InputKind::Type(t) if t == "COMBO" => {
            match options.as_mut().and_then(|o| o.shift_remove("options")) {
                Some(Json::Array(choices)) => InputKind::Combo(Choices::Fixed(choices)),
                _ => InputKind::Type(t),
            }
        }
        kind => kind,
    };
    Some(InputSpec { name: name.to_owned(), kind, optional, options })
}

fn kind_of(json: &Json) -> Option<InputKind> {
    match json {
        Json::String(t) => Some(InputKind::Type(t.clone())),
        Json::Array(list) => Some(InputKind::Choices(Choices::Fixed(list.clone()))),
        _ => None,
    }
}

fn outputs(entry: &Map<String, Json>) -> Result<Vec<OutputSpec>, String> {
    let list = |key: &str| entry.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let (names, is_list) = (list("output_name"), list("output_is_list"));
    let output = |(slot, kind): (usize, &Json)| {
        let kind = kind_of(kind).ok_or_else(|| format!("output {slot} has no type"))?;
        let name = match (names.get(slot).and_then(Json::as_str), &kind) {
            (Some(name), _) => name.to_owned(),
            (None, InputKind::Type(t)) => t.clone(),
            (None, InputKind::Choices(_) | InputKind::Combo(_)) => "COMBO".to_owned(),
        };
        let is_list = is_list.get(slot).and_then(Json::as_bool).unwrap_or(false);
        Ok(OutputSpec { kind, name, is_list })
    };
    list("output").iter().enumerate().map(output).collect()
}
