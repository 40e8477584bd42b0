//! Reads `extra_model_paths.yaml`: where else model files lie.
//!
//! Each top-level section holds `kind: folders` entries (several folders on lines of their own), relative to the
//! section's `base_path`; `is_default` puts a section's folders before the built-in ones.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_yaml_ng::Value;

/// One further folder for a kind of model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPath {
    /// `checkpoints`, `loras`, ...
    pub(crate) kind: String,
    /// The folder.
    pub(crate) path: PathBuf,
    /// Searched before the built-in folders.
    pub(crate) first: bool,
}

/// The folders of a file, in order.
pub(crate) fn read(file: &Path) -> Result<Vec<ModelPath>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let beside = file.parent().unwrap_or(Path::new("."));
    parse(&text, beside).with_context(|| format!("in {}", file.display()))
}

fn parse(text: &str, beside: &Path) -> Result<Vec<ModelPath>> {
    let sections: Value = serde_yaml_ng::from_str(text)?;
    let mut found = Vec::new();
    let Value::Mapping(sections) = sections else {
        return if sections.is_null() { Ok(found) } else { bail!("expected sections such as `comfyui:`") };
    };
    for (name, section) in &sections {
        let name = name.as_str().unwrap_or("?");
        let fields = match section {
            Value::Null => continue,
            Value::Mapping(fields) => fields,
            _ => bail!("section `{name}` must hold `kind: folder` entries"),
        };
        let base = fields
            .get("base_path")
            .and_then(Value::as_str)
            .map_or_else(|| beside.to_owned(), |base| beside.join(home(base)));
        let first = fields.get("is_default").and_then(Value::as_bool).unwrap_or(false);
        for (kind, folders) in fields {
            let Some(kind) = kind.as_str().filter(|k| !matches!(*k, "base_path" | "is_default")) else {
                continue;
            };
            let Some(folders) = folders.as_str() else { bail!("`{name}.{kind}` must be a folder name") };
            for folder in folders.lines().map(str::trim).filter(|l| !l.is_empty()) {
                found.push(ModelPath { kind: kind.to_owned(), path: base.join(home(folder)), first });
            }
        }
    }
    Ok(found)
}

/// `~/x` below the home folder.
fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_kinds_and_several_folders() {
        let text = "a:\n  base_path: ui\n  is_default: true\n  checkpoints: models/ckpt\n  text_encoders: |\n    te\n    /abs/clip\nb:\n  loras: l\nempty:\n";
        let got = parse(text, Path::new("/x")).unwrap();
        let want = [
            ("checkpoints", "/x/ui/models/ckpt", true),
            ("text_encoders", "/x/ui/te", true),
            ("text_encoders", "/abs/clip", true),
            ("loras", "/x/l", false),
        ];
        assert_eq!(
            got,
            want.map(|(kind, path, first)| ModelPath { kind: kind.into(), path: path.into(), first })
        );
    }

    #[test]
    fn wrong_shapes_are_errors() {
        assert!(parse("- a", Path::new("")).is_err());
        assert!(parse("a: 3", Path::new("")).unwrap_err().to_string().contains("`a`"));
        assert!(parse("a:\n  loras: [x]", Path::new("")).unwrap_err().to_string().contains("a.loras"));
        assert!(parse("", Path::new("")).unwrap().is_empty());
    }
}
