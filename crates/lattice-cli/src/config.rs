//! Settings: `lattice.dhall`, its schema and its defaults.
//!
//! A settings file is any Dhall expression that yields a record with some of the fields of [`Config`]; fields it leaves
//! out keep their defaults. Dhall reports its own syntax and type errors with the place; what is well typed but no
//! setting of ours is found here and pointed at by line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_dhall::{SimpleType, SimpleValue, StaticType};

/// The default settings as a commented Dhall file; `lattice config` prints it.
pub(crate) const DEFAULT_DHALL: &str = include_str!("../default.dhall");

/// Name of the settings file in the base folder.
pub(crate) const FILE_NAME: &str = "lattice.dhall";

/// Settings of the program.
#[derive(Clone, Debug, PartialEq, Deserialize, StaticType)]
#[serde(deny_unknown_fields)]
#[allow(
    non_snake_case,
    reason = "field names are those of the Dhall record, which StaticType takes from here"
)]
pub(crate) struct Config {
    pub(crate) baseDir: String,
    pub(crate) outputDir: Option<String>,
    pub(crate) inputDir: Option<String>,
    pub(crate) tempDir: Option<String>,
    pub(crate) userDir: Option<String>,
    pub(crate) extraModelPaths: Vec<String>,
    pub(crate) threads: Option<u64>,
    pub(crate) cache: Cache,
    pub(crate) preview: Preview,
    pub(crate) metadata: bool,
    pub(crate) log: String,
}

/// Which results are kept between prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, StaticType)]
pub(crate) enum Cache {
    Classic,
    Lru(u64),
    Off,
    RamPressure(u64),
}

/// How pictures are made while sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, StaticType, clap::ValueEnum)]
pub(crate) enum Preview {
    #[value(name = "none")]
    Off,
    Auto,
    Latent2rgb,
    Taesd,
}

impl Config {
    /// The settings of a file; fields that it leaves out keep their defaults.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        // Parsed from the file, not the text, so that its relative imports resolve.
        let value = serde_dhall::from_file(path)
            .parse::<SimpleValue>()
            .with_context(|| format!("{} is not a valid settings file", path.display()))?;
        Self::overlay(&text, value).with_context(|| format!("in {}", path.display()))
    }

    /// The file named, else `lattice.dhall` in `base`, else the defaults.
    pub(crate) fn find(named: Option<&Path>, base: &Path) -> Result<Self> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let path = base.join(FILE_NAME);
        if path.exists() { Self::read(&path) } else { Ok(Self::default()) }
    }

    fn overlay(text: &str, value: SimpleValue) -> Result<Self> {
        let SimpleValue::Record(given) = value else {
            bail!("the settings must be a record: {{ threads = Some 2 }}")
        };
        let SimpleType::Record(schema) = Self::static_type() else { bail!("the schema is no record") };
        for (name, value) in &given {
            let Some(ty) = schema.get(name) else {
                let near = schema.keys().min_by_key(|k| distance(k, name));
                let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                bail!("{}`{name}` is not a setting{hint}", place(text, name))
            };
            if !fits(value, ty) {
                bail!("{}`{name}` must be {}", place(text, name), describe(ty))
            }
        }
        let SimpleValue::Record(mut fields) = defaults()? else { bail!("the defaults are no record") };
        fields.extend(given);
        Ok(serde_dhall::from_simple_value(SimpleValue::Record(fields))?)
    }

    /// Folder `named`, or the default one below the base folder.
    pub(crate) fn folder(&self, named: Option<&String>, default: &str) -> PathBuf {
        named.map_or_else(|| Path::new(&self.baseDir).join(default), PathBuf::from)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            baseDir: ".".into(),
            outputDir: None,
            inputDir: None,
            tempDir: None,
            userDir: None,
            extraModelPaths: Vec::new(),
            threads: None,
            cache: Cache::Classic,
            preview: Preview::Off,
            metadata: true,
            log: "warn".into(),
        }
    }
}

fn defaults() -> Result<SimpleValue> {
    Ok(serde_dhall::from_str(DEFAULT_DHALL).parse::<SimpleValue>()?)
}

/// Whether a value can be read as that type. A Dhall value carries no type of its own (an empty list or None fits any
/// list or Optional), so this compares structure.
fn fits(value: &SimpleValue, ty: &SimpleType) -> bool {
    use serde_dhall::NumKind;
    match (value, ty) {
        (SimpleValue::Num(n), ty) => matches!(
            (n, ty),
            (NumKind::Bool(_), SimpleType::Bool)
                | (NumKind::Natural(_), SimpleType::Natural)
                | (NumKind::Integer(_), SimpleType::Integer)
                | (NumKind::Double(_), SimpleType::Double)
        ),
        (SimpleValue::Text(_), SimpleType::Text) => true,
        (SimpleValue::Optional(v), SimpleType::Optional(t)) => v.as_ref().is_none_or(|v| fits(v, t)),
        (SimpleValue::List(items), SimpleType::List(t)) => items.iter().all(|v| fits(v, t)),
        (SimpleValue::Record(fields), SimpleType::Record(types)) => {
            fields.len() == types.len()
                && fields.iter().all(|(k, v)| types.get(k).is_some_and(|t| fits(v, t)))
        }
        (SimpleValue::Union(variant, payload), SimpleType::Union(variants)) => {
            variants.get(variant).is_some_and(|t| match (payload, t) {
                (Some(v), Some(t)) => fits(v, t),
                (None, None) => true,
                _ => false,
            })
        }
        _ => false,
    }
}

/// A type as a person would say it.
fn describe(ty: &SimpleType) -> String {
    match ty {
        SimpleType::Bool => "True or False".into(),
        SimpleType::Natural => "a Natural number".into(),
        SimpleType::Integer => "an Integer".into(),
        SimpleType::Double => "a Double".into(),
        SimpleType::Text => "Text in double quotes".into(),
        SimpleType::Optional(t) => format!("`Some` {} or `None`", describe(t)),
        SimpleType::List(t) => format!("a list of which each is {}", describe(t)),
        SimpleType::Record(_) => "a record".into(),
        SimpleType::Union(variants) => {
            let sorted: BTreeMap<_, _> = variants.iter().collect();
            let names = sorted.iter().map(|(name, payload)| match payload {
                Some(t) => format!("{name} : {}", if *t == SimpleType::Natural { "Natural" } else { "..." }),
                None => (*name).clone(),
            });
            format!("one of < {} >", names.collect::<Vec<_>>().join(" | "))
        }
    }
}

/// `line N: ` of the first place that sets a field, if it stands in this file.
fn place(text: &str, field: &str) -> String {
    let sets = |line: &str| {
        let code = line.split("--").next().unwrap_or_default();
        code.match_indices(field).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let whole_word = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == '.'));
            whole_word && code[at + field.len()..].trim_start().starts_with('=')
        })
    };
    text.lines().position(sets).map(|n| format!("line {}: ", n + 1)).unwrap_or_default()
}

/// Edit distance (Levenshtein), for suggestions.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    fn error(text: &str) -> String {
        format!("{:#}", read(text).expect_err("must be refused"))
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        assert_eq!(read(DEFAULT_DHALL).unwrap(), Config::default());
    }

    #[test]
    fn a_file_may_hold_just_what_it_changes() {
        let text = "let n = 2\nin { threads = Some n, cache = < Classic | Lru : Natural | Off | RamPressure : Natural >.Lru 3 }";
        let config = read(text).unwrap();
        assert_eq!((config.threads, config.cache), (Some(2), Cache::Lru(3)));
        assert!(config.metadata);
    }

    #[test]
    fn a_union_may_name_only_the_variant_used() {
        assert_eq!(read("{ preview = < Taesd >.Taesd }").unwrap().preview, Preview::Taesd);
    }

    #[test]
    fn errors_point_at_the_line() {
        let e = error("{ metadata = True\n, thread = Some 2\n}");
        assert!(e.contains("line 2: `thread` is not a setting; did you mean `threads`?"), "{e}");
        let e = error("{ metadata = True\n\n, threads = 2 }");
        assert!(e.contains("line 3: `threads` must be `Some` a Natural number or `None`"), "{e}");
        let e = error("{ cache = < Lru : Text >.Lru \"x\" }");
        assert!(e.contains("one of < Classic | Lru : Natural"), "{e}");
        let e = error("{ metadata = True\n, log = }");
        assert!(e.contains('2'), "{e}");
        assert!(error("[ 1 ]").contains("must be a record"));
    }
}
