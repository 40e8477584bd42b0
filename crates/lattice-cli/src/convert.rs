//! `lattice convert`: a model file in another format or storage type.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use lattice_models::detect::{DiffusionPart, Family};
use lattice_weights::convert::{Output, convert};
use lattice_weights::{StateDict, StoredDType, open_any};

use crate::listing::size;

#[derive(clap::Args)]
pub(crate) struct ConvertArgs {
    /// Model file of any format, or a diffusers folder.
    input: PathBuf,
    /// File to make; its ending says the format: .safetensors or .gguf.
    output: PathBuf,
    /// Storage type of matrices: f32, f16, bf16, f8_e4m3, f8_e5m2; in GGUF files also q8_0, q4_0, q4_1, q5_0, q5_1, q2_k to q6_k
    /// [default: each tensor's own, where the format has it].
    #[arg(long, value_parser = storage_type)]
    dtype: Option<StoredDType>,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

/// Types that can be asked for.
const DTYPES: [StoredDType; 15] = {
    use StoredDType as D;
    use lattice_weights::BlockType as B;
    [
        D::F32,
        D::F16,
        D::BF16,
        D::F8E4M3,
        D::F8E5M2,
        D::Block(B::Q8_0),
        D::Block(B::Q4_0),
        D::Block(B::Q4_1),
        D::Block(B::Q5_0),
        D::Block(B::Q5_1),
        D::Block(B::Q2K),
        D::Block(B::Q3K),
        D::Block(B::Q4K),
        D::Block(B::Q5K),
        D::Block(B::Q6K),
    ]
};

fn storage_type(text: &str) -> Result<StoredDType, String> {
    let found = DTYPES.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let names: Vec<String> = DTYPES.iter().map(|dtype| dtype.name().to_lowercase()).collect();
        format!("known types are {}", names.join(", "))
    })
}

pub(crate) fn run(args: &ConvertArgs) -> Result<ExitCode> {
    let output = match args.output.extension().and_then(|e| e.to_str()) {
        Some(e) if e.eq_ignore_ascii_case("safetensors") => Output::Safetensors,
        Some(e) if e.eq_ignore_ascii_case("gguf") => Output::Gguf,
        _ => bail!("{}: only .safetensors and .gguf files can be made", args.output.display()),
    };
    if let (Some(dtype @ StoredDType::Block(_)), Output::Safetensors) = (args.dtype, output) {
        bail!("{dtype} blocks can be stored in .gguf files only");
    }
    if let (Some(dtype @ (StoredDType::F8E4M3 | StoredDType::F8E5M2)), Output::Gguf) = (args.dtype, output) {
        bail!("{dtype} can be stored in .safetensors files only");
    }
    if args.output.exists() && !args.force {
        bail!("{} exists; --force replaces it", args.output.display());
    }
    let dict = open_any(&args.input)?;
    let total: u64 = dict.iter().map(|(_, weight)| weight.bytes().len() as u64).sum();
    let bar = ProgressBar::new(total).with_style(
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let metadata = if output == Output::Gguf { architecture(&dict) } else { BTreeMap::new() };
    let made = convert(&dict, &args.output, output, args.dtype, metadata, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let summary = made?;
    let types: Vec<String> =
        summary.tensors.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
    println!(
        "{}: {} to {}; tensors: {}",
        args.output.display(),
        size(total),
        size(summary.bytes),
        types.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

/// GGUF files say what they hold; readers of diffusion models know these names.
fn architecture(dict: &StateDict) -> BTreeMap<String, String> {
    let name = DiffusionPart::load(dict).ok().and_then(|part| match part.spec.family {
        Family::Sd1 => Some("sd1"),
        Family::Sdxl => Some("sdxl"),
        Family::Sd3 => Some("sd3"),
        Family::Flux | Family::FluxSchnell => Some("flux"),
        _ => None,
    });
    name.map(|name| ("general.architecture".to_owned(), name.to_owned())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_types_by_name() {
        assert_eq!(storage_type("F16"), Ok(StoredDType::F16));
        assert_eq!(storage_type("q4_k").unwrap().name(), "Q4_K");
        assert!(storage_type("int3").unwrap_err().contains("f8_e4m3"));
    }
}
