//! Workflows that programs fill in by names: which input of which node a request's field goes to.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::files::{FileError, Folder, inside};

/// Folder of templates among a user's files.
const FOLDER: &str = "image_templates";

/// Ending of their names.
const ENDING: &str = ".json";

/// The template of requests that name none.
pub(crate) const DEFAULT: &str = "default";

/// A workflow, and what goes where in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Template {
    /// What it makes, for people.
    #[serde(default, rename = "description")]
    _description: String,
    /// The prompt in API format, as editors export it.
    prompt: Map<String, Json>,
    /// Inputs by the fields of requests that they receive.
    bindings: IndexMap<String, Inputs>,
}

/// `NODE.INPUT`, or several of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Inputs {
    One(String),
    Several(Vec<String>),
}

impl Inputs {
    fn each(&self) -> impl Iterator<Item = &str> {
        let inputs = match self {
            Self::One(input) => std::slice::from_ref(input),
            Self::Several(inputs) => inputs,
        };
        inputs.iter().map(String::as_str)
    }
}

/// Why there is no template of a name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("there is no template {0}")]
    Unknown(String),
    #[error("the template {name}: {reason}")]
    Broken { name: String, reason: String },
    #[error(transparent)]
    File(#[from] FileError),
}

type Result<T> = std::result::Result<T, TemplateError>;

impl Template {
    fn parse(name: &str, text: &[u8]) -> Result<Self> {
        let broken = |reason: String| TemplateError::Broken { name: name.to_owned(), reason };
        let template: Self = serde_json::from_slice(text).map_err(|e| broken(e.to_string()))?;
        if !template.binds("prompt") {
            return Err(broken("no input is bound to `prompt`".into()));
        }
        for (field, inputs) in &template.bindings {
            for input in inputs.each() {
                let missing =
                    || broken(format!("{field} is bound to `{input}`, and the prompt has no such node"));
                template.node(input).ok_or_else(missing)?;
            }
        }
        Ok(template)
    }

    /// The node and the input that `NODE.INPUT` names.
    fn node<'a>(&self, input: &'a str) -> Option<(&'a str, &'a str)> {
        let (node, input) = input.split_once('.')?;
        self.prompt.get(node)?.get("inputs")?.as_object()?;
        Some((node, input))
    }

    /// Whether a field goes anywhere.
    pub(crate) fn binds(&self, field: &str) -> bool {
        self.bindings.contains_key(field)
    }

    /// All the fields that go somewhere.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.bindings.keys().map(String::as_str)
    }

    /// The field that an input receives.
    pub(crate) fn field_of(&self, node: &str, input: &str) -> Option<&str> {
        let found = self
            .bindings
            .iter()
            .find(|(_, inputs)| inputs.each().any(|bound| bound.split_once('.') == Some((node, input))));
        found.map(|(field, _)| field.as_str())
    }

    /// Puts a value wherever a field goes.
    pub(crate) fn set(&mut self, field: &str, value: &Json) {
        let Some(inputs) = self.bindings.get(field) else { return };
        for (node, input) in inputs.each().filter_map(|input| input.split_once('.')) {
            if let Some(inputs) = self.prompt.get_mut(node).and_then(|node| node["inputs"].as_object_mut()) {
                inputs.insert(input.to_owned(), value.clone());
            }
        }
    }

    /// The filled-in prompt.
    pub(crate) fn into_prompt(self) -> Json {
        Json::Object(self.prompt)
    }
}

/// The templates of one user, and the one that comes with the program.
pub(crate) struct Templates {
    /// None if the user has no files yet.
    folder: Option<Folder>,
    builtin: Option<&'static str>,
}

impl Templates {
    /// Those below a user's folder (None: there is none yet).
    pub(crate) fn open(user: Option<&Folder>, builtin: Option<&'static str>) -> Result<Self> {
        let folder = match user.map(|user| user.below(Path::new(FOLDER))) {
            Some(Err(FileError::Absent)) | None => None,
            Some(folder) => Some(folder?),
        };
        Ok(Self { folder, builtin })
    }

    /// Their names.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let entries = self.folder.as_ref().map(|folder| folder.walk(true)).transpose()?.unwrap_or_default();
        let files = entries.iter().filter(|entry| !entry.is_folder);
        let mut names: Vec<String> =
            files.filter_map(|entry| entry.path.strip_suffix(ENDING)).map(str::to_owned).collect();
        if self.builtin.is_some() && !names.iter().any(|name| name == DEFAULT) {
            names.insert(0, DEFAULT.to_owned());
        }
        Ok(names)
    }

    /// One of them.
    pub(crate) fn get(&self, name: &str) -> Result<Template> {
        let unknown = || TemplateError::Unknown(name.to_owned());
        let file = inside(&format!("{name}{ENDING}")).filter(|_| !name.is_empty()).ok_or_else(unknown)?;
        match self.read(&file)? {
            Some(text) => Template::parse(name, &text),
            None if name == DEFAULT => Template::parse(name, self.builtin.ok_or_else(unknown)?.as_bytes()),
            None => Err(unknown()),
        }
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>> {
        match self.folder.as_ref().map(|folder| folder.read(file)) {
            Some(Ok(text)) => Ok(Some(text)),
            None | Some(Err(FileError::Absent | FileError::Outside | FileError::NoFile)) => Ok(None),
            Some(Err(e)) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = r#"{
        "prompt": {"1": {"class_type": "A", "inputs": {"text": ""}}, "2": {"class_type": "B", "inputs": {}}},
        "bindings": {"prompt": ["1.text", "2.text"], "seed": "2.seed"}
    }"#;

    #[test]
    fn fields_go_where_they_are_bound() {
        let mut template = Template::parse("t", TEXT.as_bytes()).unwrap();
        template.set("prompt", &json!("a cat"));
        template.set("seed", &json!(5));
        template.set("steps", &json!(5));
        assert_eq!(template.field_of("2", "seed"), Some("seed"));
        assert_eq!(template.field_of("1", "seed"), None);
        let prompt = template.into_prompt();
        assert_eq!(prompt["1"]["inputs"], json!({"text": "a cat"}));
        assert_eq!(prompt["2"]["inputs"], json!({"text": "a cat", "seed": 5}));
    }

    #[test]
    fn broken_templates_say_what_is_wrong() {
        for (text, expected) in [
            ("{", "EOF"),
            (r#"{"prompt": {}}"#, "bindings"),
            (r#"{"prompt": {}, "bindings": {}}"#, "no input is bound to `prompt`"),
            (r#"{"prompt": {}, "bindings": {"prompt": "1.text"}}"#, "no such node"),
            (r#"{"prompt": {"1": 5}, "bindings": {"prompt": "1.text"}}"#, "no such node"),
            (r#"{"prompt": {"1": {"inputs": {}}}, "bindings": {"prompt": "1"}}"#, "no such node"),
        ] {
            let error = Template::parse("t", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn files_replace_what_is_built_in() {
        let user = tempfile::tempdir().unwrap();
        let open = |user: &Path| Templates::open(Some(&Folder::open(user).unwrap()), Some(TEXT)).unwrap();
        assert_eq!(open(user.path()).names().unwrap(), ["default"]);
        assert!(open(user.path()).get("default").unwrap().binds("seed"));
        let folder = user.path().join(FOLDER);
        std::fs::create_dir_all(folder.join("studio")).unwrap();
        std::fs::write(folder.join("default.json"), TEXT.replace("seed", "noise")).unwrap();
        std::fs::write(folder.join("studio/fast.json"), TEXT).unwrap();
        std::fs::write(folder.join("note.txt"), "").unwrap();
        let templates = open(user.path());
        assert_eq!(templates.names().unwrap(), ["default", "studio/fast"]);
        assert!(templates.get("default").unwrap().binds("noise"));
        assert!(templates.get("studio/fast").unwrap().binds("seed"));
        for name in ["", "none", "../default", "/etc/passwd", "studio", "a\0"] {
            assert!(matches!(templates.get(name), Err(TemplateError::Unknown(_))), "{name:?}");
        }
    }
}
