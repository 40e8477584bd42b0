//! Runs every case of a folder and sums up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{Case, Outcome, Set, ops};

/// What became of one case.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// All checks within tolerance; the worst ratio of error to tolerance.
    Passed(f64),
    /// What was wrong.
    Failed(String),
    /// Why it was not run.
    Skipped(String),
}

/// Verdicts of a folder, in order.
#[derive(Debug, Default)]
pub struct Report {
    /// (set/case, verdict).
    pub verdicts: Vec<(String, Verdict)>,
}

impl Report {
    /// (passed, failed, skipped).
    pub fn counts(&self) -> (usize, usize, usize) {
        self.verdicts.iter().fold((0, 0, 0), |(p, f, s), (_, v)| match v {
            Verdict::Passed(_) => (p + 1, f, s),
            Verdict::Failed(_) => (p, f + 1, s),
            Verdict::Skipped(_) => (p, f, s + 1),
        })
    }

    /// Failed cases with their reasons.
    pub fn failures(&self) -> impl Iterator<Item = String> + '_ {
        self.verdicts.iter().filter_map(|(name, v)| match v {
            Verdict::Failed(why) => Some(format!("{name}: {why}")),
            _ => None,
        })
    }
}

/// All index files of a folder and its sub-folders, sorted.
pub fn indexes(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut stack = vec![folder.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs every case whose `set/case` name passes the filter, calling `each` after every one.
pub fn run_folder(
    folder: &Path,
    filter: impl Fn(&str) -> bool,
    mut each: impl FnMut(&str, &Verdict),
) -> Result<Report> {
    let mut report = Report::default();
    for path in indexes(folder)? {
        let set = Set::open(folder, &path)?;
        for case in set.cases() {
            let name = format!("{}/{}", set.name, case.id());
            if !filter(&name) {
                continue;
            }
            let verdict = run_case(&case);
            each(&name, &verdict);
            report.verdicts.push((name, verdict));
        }
    }
    Ok(report)
}

/// Runs one case; a panic is a failure of that case alone.
pub fn run_case(case: &Case<'_>) -> Verdict {
    let key = (case.set.topic.as_str(), case.operation());
    let Some((_, _, run)) = ops::table().find(|(topic, op, _)| (*topic, *op) == key) else {
        return Verdict::Skipped(format!("no operation {}/{}", key.0, key.1));
    };
    match catch_unwind(AssertUnwindSafe(|| run(case))) {
        Ok(Ok(Outcome::Ran(checks))) if checks.is_empty() => Verdict::Failed("nothing was compared".into()),
        Ok(Ok(Outcome::Ran(checks))) => {
            let bad: Vec<String> = checks
                .iter()
                .filter(|c| !c.passed())
                .map(|c| format!("{} error {:.3e} ({:.2} of tolerance)", c.name, c.error, c.ratio))
                .collect();
            if bad.is_empty() {
                Verdict::Passed(checks.iter().map(|c| c.ratio).fold(0.0, f64::max))
            } else {
                Verdict::Failed(bad.join("; "))
            }
        }
        Ok(Ok(Outcome::Skipped(why))) => Verdict::Skipped(why),
        Ok(Err(e)) => Verdict::Failed(format!("{e:#}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Verdict::Failed(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}
