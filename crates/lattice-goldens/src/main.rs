//! Development tool: runs reference cases, and makes the model files they are computed on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lattice_goldens::run::{Verdict, run_folder};
use lattice_goldens::synthetic::Manifest;
use lattice_weights::StoredDType;

const USAGE: &str = "usage:
  lattice-goldens FOLDER [FILTER]
      runs the reference cases of a folder whose set/case name contains FILTER, printing the worst error of each
  lattice-goldens make MANIFEST OUT [--seed N] [--dtype F32|F16|BF16|F8_E4M3] [--sparse] [--manifests FOLDER]
      writes the model file of a manifest (a path, or a name such as tiny/sd15 or sd15); --sparse writes only the header
      and leaves the tensors a hole of zeros";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", manifest, out, options @ ..] => make(manifest, Path::new(out), options),
        ["make", ..] | [] => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
        [folder] => run(Path::new(folder), ""),
        [folder, filter, ..] => run(Path::new(folder), filter),
    }
}

fn run(folder: &Path, filter: &str) -> Result<ExitCode> {
    let report = run_folder(
        folder,
        |name| name.contains(filter),
        |name, verdict| match verdict {
            Verdict::Passed(ratio) => println!("ok    {name}  {ratio:.3} of tolerance"),
            Verdict::Failed(why) => println!("FAIL  {name}  {why}"),
            Verdict::Skipped(why) => println!("skip  {name}  {why}"),
        },
    )?;
    let (passed, failed, skipped) = report.counts();
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make(manifest: &str, out: &Path, options: &[&str]) -> Result<ExitCode> {
    let (mut seed, mut dtype, mut sparse) = (0, StoredDType::F32, false);
    let mut root = PathBuf::from("testdata/manifests");
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        let mut value = || options.next().with_context(|| format!("{option} needs a value\n{USAGE}"));
        match option {
            "--seed" => seed = value()?.parse()?,
            "--dtype" => {
                let name = value()?;
                dtype = match *name {
                    "F32" => StoredDType::F32,
                    "F16" => StoredDType::F16,
                    "BF16" => StoredDType::BF16,
                    "F8_E4M3" => StoredDType::F8E4M3,
                    _ => bail!("unknown dtype {name}\n{USAGE}"),
                };
            }
            "--sparse" => sparse = true,
            "--manifests" => root = value()?.into(),
            _ => bail!("unknown option {option}\n{USAGE}"),
        }
    }
    let manifest = if Path::new(manifest).is_file() {
        Manifest::read(Path::new(manifest))?
    } else {
        Manifest::find(&root, manifest)?
    };
    if sparse {
        manifest.write_sparse(out, seed, dtype)?;
    } else {
        manifest.write(out, seed, dtype)?;
    }
    println!("{}: {} tensors", out.display(), manifest.tensors.len());
    Ok(ExitCode::SUCCESS)
}
