//! Times whole networks of a checkpoint for the side-by-side runner (`bench/peers`): reads a case per line
//! (`network dtype warmup runs sizes...`), prints per line the seconds of each run and a few values of the result, with
//! which the runner makes sure that both sides computed the same.

use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{Device, Tensor};
use lattice_models::network::NetworkInput;
use lattice_models::{Checkpoint, ForwardOptions, TextInput, TextOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error>;

/// Reproducible values in -1..1, the same as the runner's.
fn values(dims: &[usize]) -> Result<Tensor, Error> {
    let mut state = 1u32;
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}

/// One forward pass. Sizes are those of the result's batch and map, or of the text.
fn forward(checkpoint: &Checkpoint, network: &str, sizes: &[usize]) -> Result<Tensor, Error> {
    match (network, sizes) {
        ("unet", &[batch, side]) => {
            let mut input = NetworkInput::new(
                values(&[batch, 4, side, side])?,
                Tensor::full(501f32, batch, &Device::Cpu)?,
            );
            input.context = Some(values(&[batch, 77, 768])?);
            Ok(checkpoint.diffusion.network.forward(&input, &ForwardOptions::default())?)
        }
        ("vae_decode", &[batch, side]) => {
            let part = checkpoint.vae.as_ref().ok_or("the checkpoint has no VAE")?;
            Ok(part.vae.decode(&values(&[batch, 4, side, side])?)?)
        }
        ("clip", &[batch, tokens]) => {
            let part = checkpoint.text_encoders.first().ok_or("the checkpoint has no text encoder")?;
            let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 601 % 49_000).collect();
            let options = TextOptions { layer: 1, final_norm: true };
            Ok(part.encoder.encode(&TextInput::from_ids(&vec![ids; batch]), options)?.states)
        }
        _ => Err(format!("unknown network {network} of sizes {sizes:?}").into()),
    }
}

/// A few values spread over the result.
fn sample(result: &Tensor) -> Result<Vec<f32>, Error> {
    let all = result.flatten_all()?.to_vec1::<f32>()?;
    Ok((0..16).map(|i| all[i * (all.len() - 1) / 15]).collect())
}

fn main() -> Result<(), Error> {
    lattice_kernels::keep_freed_memory();
    let file = std::env::args().nth(1).ok_or("usage: networks CHECKPOINT < CASES")?;
    let checkpoint = Checkpoint::load(&lattice_weights::open_any(file.as_ref())?)?;
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [network, _dtype, warmup, runs, sizes @ ..] = words.as_slice() else {
            return Err(format!("cannot read the case {line:?}").into());
        };
        let sizes = sizes.iter().map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
        for _ in 0..warmup.parse::<usize>()? {
            forward(&checkpoint, network, &sizes)?;
        }
        let (mut times, mut sampled) = (vec![], vec![]);
        for _ in 0..runs.parse::<usize>()? {
            let start = Instant::now();
            // As the program does. An error must be one that can be sent between threads.
            let run = || forward(&checkpoint, network, &sizes).map_err(|error| error.to_string());
            let result = lattice_kernels::on_pool(run)?;
            times.push(start.elapsed().as_secs_f64());
            sampled = sample(&result)?;
        }
        writeln!(out, r#"{{"times": {times:?}, "sample": {sampled:?}}}"#)?;
        out.flush()?;
    }
    Ok(())
}
