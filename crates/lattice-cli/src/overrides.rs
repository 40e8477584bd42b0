//! `--set NODE.INPUT=VALUE` and `--seed N`: changes to a prompt before it is validated.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value as Json};

use crate::config::distance;

/// Inputs that `--seed` sets.
const SEED_INPUTS: [&str; 2] = ["seed", "noise_seed"];

/// One parsed `--set`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Override {
    node: String,
    input: String,
    value: Json,
}

impl std::str::FromStr for Override {
    type Err = anyhow::Error;

    /// `NODE.INPUT=VALUE`; VALUE is JSON if it parses as such, else text. NODE may itself contain dots and colons.
    fn from_str(text: &str) -> Result<Self> {
        let (target, value) = text.split_once('=').context("expected NODE.INPUT=VALUE")?;
        let (node, input) = target.rsplit_once('.').context("expected NODE.INPUT=VALUE")?;
        if node.is_empty() || input.is_empty() {
            bail!("expected NODE.INPUT=VALUE")
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Json::from(value));
        Ok(Self { node: node.to_owned(), input: input.to_owned(), value })
    }
}

impl Override {
    /// Sets the input in the prompt. NODE is an id, or else a title or class name that only one node has.
    pub(crate) fn apply(&self, prompt: &mut Map<String, Json>) -> Result<()> {
        let id = self.find(prompt)?;
        let inputs = prompt
            .get_mut(&id)
            .and_then(|n| n.get_mut("inputs"))
            .and_then(Json::as_object_mut)
            .with_context(|| format!("node {id} has no inputs"))?;
        if !inputs.contains_key(&self.input) {
            let names: Vec<&str> = inputs.keys().map(String::as_str).collect();
            let near = names.iter().min_by_key(|n| distance(n, &self.input));
            if let Some(near) = near.filter(|n| distance(n, &self.input) <= 2) {
                bail!("node {id} has no input `{}`; did you mean `{near}`?", self.input)
            }
        }
        // A list given as a value is not a link: links are what the workflow is for.
        let value = match &self.value {
            Json::Array(items) => serde_json::json!({ "__value__": items }),
            other => other.clone(),
        };
        inputs.insert(self.input.clone(), value);
        Ok(())
    }

    fn find(&self, prompt: &Map<String, Json>) -> Result<String> {
        if prompt.contains_key(&self.node) {
            return Ok(self.node.clone());
        }
        let named = |get: fn(&Json) -> &Json| -> Vec<String> {
            let same = |n: &Json| get(n).as_str() == Some(self.node.as_str());
            prompt.iter().filter(|(_, n)| same(n)).map(|(id, _)| id.clone()).collect()
        };
        let mut found = named(|n| &n["_meta"]["title"]);
        if found.is_empty() {
            found = named(|n| &n["class_type"]);
        }
        match found.as_slice() {
            [id] => Ok(id.clone()),
            [] => {
                bail!("--set {}: no node has this id, title or class; nodes are {}", self.node, list(prompt))
            }
            ids => bail!("--set {}: several nodes fit ({}); use an id", self.node, ids.join(", ")),
        }
    }
}

fn list(prompt: &Map<String, Json>) -> String {
    let entry = |(id, n): (&String, &Json)| format!("{id} ({})", n["class_type"].as_str().unwrap_or("?"));
    prompt.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// Sets every literal seed of the prompt.
///
/// # Errors
/// If the prompt has none.
pub(crate) fn set_seed(prompt: &mut Map<String, Json>, seed: u64) -> Result<()> {
    let mut count = 0;
    for inputs in prompt.values_mut().filter_map(|n| n.get_mut("inputs")).filter_map(Json::as_object_mut) {
        for name in SEED_INPUTS {
            if let Some(value) = inputs.get_mut(name).filter(|v| !v.is_array()) {
                *value = seed.into();
                count += 1;
            }
        }
    }
    if count == 0 {
        bail!("--seed: no node of this workflow has a seed")
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prompt() -> Map<String, Json> {
        let p = json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 5, "cfg": 7.0, "model": ["4", 0]}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a"}, "_meta": {"title": "Positive"}},
            "7:1": {"class_type": "CLIPTextEncode", "inputs": {"text": "b"}, "_meta": {"title": "Negative"}},
        });
        p.as_object().unwrap().clone()
    }

    fn set(text: &str) -> Result<Map<String, Json>> {
        let mut p = prompt();
        text.parse::<Override>()?.apply(&mut p)?;
        Ok(p)
    }

    #[test]
    fn a_node_is_found_by_id_title_or_class() {
        assert_eq!(set("3.cfg=4.5").unwrap()["3"]["inputs"]["cfg"], 4.5);
        assert_eq!(set("Positive.text=a=b").unwrap()["6"]["inputs"]["text"], "a=b");
        assert_eq!(set("KSampler.seed=18446744073709551615").unwrap()["3"]["inputs"]["seed"], u64::MAX);
        assert_eq!(set("7:1.text=\"12\"").unwrap()["7:1"]["inputs"]["text"], "12");
    }

    #[test]
    fn wrong_targets_say_what_is_there() {
        assert!(set("CLIPTextEncode.text=x").unwrap_err().to_string().contains("6, 7:1"));
        assert!(set("9.text=x").unwrap_err().to_string().contains("3 (KSampler)"));
        assert!(set("3.cgf=1").unwrap_err().to_string().contains("did you mean `cfg`"));
        assert!(set("nothing").is_err());
    }

    #[test]
    fn lists_become_literals() {
        assert_eq!(set("6.text=[1,2]").unwrap()["6"]["inputs"]["text"], json!({"__value__": [1, 2]}));
    }

    #[test]
    fn seed_sets_every_literal_seed() {
        let mut p = prompt();
        set_seed(&mut p, 42).unwrap();
        assert_eq!(p["3"]["inputs"]["seed"], 42);
        p.remove("3");
        assert!(set_seed(&mut p, 42).is_err());
    }
}
