//! `lattice-goldens FOLDER [FILTER]`: runs the reference cases of a folder, printing the worst error of each.

use std::path::PathBuf;
use std::process::ExitCode;

use lattice_goldens::run::{Verdict, run_folder};

fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let Some(folder) = args.next().map(PathBuf::from) else {
        eprintln!(
            "usage: lattice-goldens FOLDER [FILTER]\nFILTER: only cases whose set/case name contains it"
        );
        return Ok(ExitCode::from(2));
    };
    let filter = args.next().unwrap_or_default().to_string_lossy().into_owned();
    let report = run_folder(
        &folder,
        |name| name.contains(&filter),
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
