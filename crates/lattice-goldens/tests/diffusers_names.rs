//! Names of diffusers folders go where the published conversion tables say.

use std::collections::BTreeMap;
use std::io::Read;

use lattice_goldens::synthetic::Manifest;
use lattice_models::diffusers::{Piece, Plan, autoencoder_kl, flux, sd3, unet};

/// A table of (folder name, single-file name without rows and prefix, operation).
fn table(name: &str) -> Vec<(String, String, String)> {
    let file = std::fs::File::open(Manifest::project_root().join("maps").join(name)).unwrap();
    let mut text = String::new();
    if name.strip_suffix(".gz").is_some() {
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    } else {
        std::io::BufReader::new(file).read_to_string(&mut text).unwrap();
    }
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().unwrap_or_default().to_owned();
            let (theirs, ours, operation) = (next(), next(), next());
            let ours = ours.split('[').next().unwrap_or_default();
            let ours =
                ours.trim_start_matches("model.diffusion_model.").trim_start_matches("first_stage_model.");
            (theirs, ours.to_owned(), operation)
        })
        .collect()
}

fn check(plan: impl Fn(&[String]) -> Plan, map: &str) {
    let rows = table(map);
    let names: Vec<String> = rows.iter().map(|(theirs, ..)| theirs.clone()).collect();
    let mut got = BTreeMap::new();
    for (target, piece) in plan(&names).0 {
        match piece {
            Piece::Copy(name) => drop(got.insert(name, (target, ""))),
            Piece::SwapHalves(name) => drop(got.insert(name, (target, "swap_halves"))),
            Piece::Rows(parts) => {
                for name in parts {
                    got.insert(name, (target.clone(), "rows"));
                }
            }
        }
    }
    for (theirs, ours, operation) in &rows {
        let (target, how) = got.get(theirs).unwrap_or_else(|| panic!("{map}: {theirs} goes nowhere"));
        assert_eq!(target, ours, "{map}: {theirs}");
        // A reshaped pointwise convolution is read as the linear layer it is.
        let wanted = operation.split(' ').next().filter(|o| *o != "reshape").unwrap_or_default();
        assert_eq!(*how, wanted, "{map}: {theirs}");
    }
    assert_eq!(got.len(), rows.len(), "{map}: more names than the table has");
}

#[test]
fn unets() {
    for map in ["sd15_unet", "sd15_inpaint_unet", "sd21_unet", "sdxl_unet", "sdxl_refiner_unet"] {
        check(|names| unet(names.iter().map(String::as_str)), &format!("{map}.tsv.gz"));
    }
}

#[test]
fn autoencoders() {
    for map in ["sd_vae.tsv", "sd3_flux_vae.tsv"] {
        check(|names| autoencoder_kl(names.iter().map(String::as_str)), map);
    }
}

#[test]
fn transformers() {
    for map in ["flux_dev_transformer", "flux_schnell_transformer"] {
        check(|names| flux(names.iter().map(String::as_str)), &format!("{map}.tsv.gz"));
    }
    for map in ["sd3_medium_transformer", "sd35_medium_transformer", "sd35_large_transformer"] {
        check(|names| sd3(names.iter().map(String::as_str)), &format!("{map}.tsv.gz"));
    }
}
