//! Every reference case that has an operation holds.

use std::path::{Path, PathBuf};

use lattice_goldens::run::{Verdict, run_folder};

/// Cases whose result hangs on roundings that are not reproduced; each stays listed with what is known of it.
const KNOWN: &[(&str, &str)] = &[(
    "samplers/options/opt_471",
    "adaptive step sizes on a zero-terminal-SNR model; the case is marked ill-conditioned",
)];

/// Groups of cases without an operation.
const NOT_YET: &[&str] = &["api/?"];

#[test]
fn reference_cases() {
    let given = std::env::var_os("LATTICE_GOLDENS").map(PathBuf::from);
    let folder =
        given.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/goldens"));
    let report = run_folder(&folder, |_| true, |_, _| ()).unwrap();
    let known = |failure: &str| KNOWN.iter().any(|(name, _)| failure.starts_with(&format!("{name}:")));
    let failures: Vec<String> = report.failures().filter(|failure| !known(failure)).collect();
    assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
    if given.is_some() {
        return;
    }
    for (name, verdict) in &report.verdicts {
        if let Verdict::Skipped(why) = verdict {
            assert!(NOT_YET.iter().any(|op| why.ends_with(op)), "{name}: {why}");
        }
    }
    // What is listed as known must still fail: else the list is out of date.
    for (name, _) in KNOWN {
        assert!(
            report.failures().any(|f| f.starts_with(&format!("{name}:"))),
            "{name} passes: remove it from the list"
        );
    }
    assert!(report.counts().0 > 3700, "only {} cases ran", report.counts().0);
}
