//! `lattice models` and `lattice nodes`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use lattice_nodes::services::{ModelFile, services};

use crate::config::distance;
use crate::host::Host;

/// Prints the model files by kind, with their sizes.
pub(crate) fn models(host: &Host, kind: Option<&str>) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let folders = &host.folders;
    if let Some(kind) = kind
        && folders.search_paths(kind).is_none()
    {
        let kinds: Vec<&str> = folders.kinds().collect();
        bail!("there is no kind of models named `{kind}`; kinds are {}", kinds.join(", "))
    }
    let kinds: Vec<&str> = kind.map_or_else(|| folders.kinds().collect(), |kind| vec![kind]);
    for kind in kinds {
        let names = folders.list(kind);
        if names.is_empty() {
            continue;
        }
        writeln!(out, "{kind}")?;
        for name in names {
            let size = match folders.find(kind, &name) {
                Ok(ModelFile::Path(path)) => {
                    std::fs::metadata(path).map(|m| size(m.len())).unwrap_or_default()
                }
                Ok(ModelFile::Builtin { bytes, .. }) => {
                    format!("{} (part of the program)", size(bytes.len() as u64))
                }
                Err(_) => String::new(),
            };
            writeln!(out, "  {name}  {size}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
    } else {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}

/// Prints the nodes by category, their coverage of the reference's library, or one declaration.
pub(crate) fn nodes(host: &Host, coverage: bool, class: Option<&str>) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let registry = lattice_nodes::registry();
    if let Some(class) = class {
        let extensions = services(host.folders.clone(), host.settings());
        if registry.get(class).is_none() {
            let near = registry.iter().map(|(name, _)| name).min_by_key(|name| distance(name, class));
            bail!("there is no node `{class}`; did you mean `{}`?", near.unwrap_or_default())
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&registry.object_info_of(class, &extensions))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if coverage {
        let (mut present, mut all) = (0, 0);
        for (category, nodes) in lattice_nodes::coverage() {
            let total = nodes.present.len() + nodes.missing.len();
            writeln!(out, "{category}: {} of {total}", nodes.present.len())?;
            if !nodes.missing.is_empty() {
                writeln!(out, "  missing: {}", nodes.missing.join(", "))?;
            }
            present += nodes.present.len();
            all += total;
        }
        writeln!(out, "{present} of {all} nodes")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut classes: Vec<_> =
        registry.iter().map(|(name, node)| (node.spec().category.clone(), name)).collect();
    classes.sort();
    let mut last = None;
    for (category, name) in classes {
        if last.as_ref() != Some(&category) {
            writeln!(out, "{category}")?;
            last = Some(category);
        }
        writeln!(out, "  {name}")?;
    }
    Ok(ExitCode::SUCCESS)
}
