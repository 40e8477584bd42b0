//! Times the patching of all weights of a file by an adapter, for the side-by-side runner (`bench/peers`): reads a case per line
//! (`operation dtype warmup runs sizes...`, of which only warm-up and runs count), prints per line the seconds of each run and a few
//! values of the result, with which the runner makes sure that both sides computed the same.

use std::io::{BufRead, Write};
use std::time::Instant;

use lattice_weights::adapters::{AdapterFile, KeyTable, Target};
use lattice_weights::patcher::{PatchSet, PatchedWeights};
use lattice_weights::{StateDict, open_any};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error>;

/// The patched weights of a model of which nothing is patched yet.
fn patched(base: &StateDict, file: &AdapterFile, table: &KeyTable) -> Result<StateDict, Error> {
    let model = PatchedWeights::new(base.clone(), "", 0);
    Ok(model.with(PatchSet::new(file.patches(table), 0.75).into()).weights()?)
}

/// A few values spread over the first and the last weight.
fn sample(weights: &StateDict) -> Vec<f32> {
    let ends = [weights.iter().next(), weights.iter().last()].into_iter().flatten();
    ends.flat_map(|(_, weight)| {
        let all = weight.to_f32();
        (0..8).map(|i| all[i * (all.len() - 1) / 7]).collect::<Vec<_>>()
    })
    .collect()
}

fn main() -> Result<(), Error> {
    lattice_kernels::keep_freed_memory();
    let files: Vec<String> = std::env::args().skip(1).collect();
    let [weights, adapter] = files.as_slice() else {
        return Err("usage: adapters WEIGHTS LORA < CASES".into());
    };
    let base = open_any(weights.as_ref())?;
    let file = AdapterFile::new(&open_any(adapter.as_ref())?);
    let target = |tensor: &str| Target { tensor: tensor.to_owned(), slice: None, swap_halves: false };
    let named = base.iter().map(|(name, _)| (name.trim_end_matches(".weight").to_owned(), target(name)));
    let table = KeyTable::from_targets(named);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_operation, _dtype, warmup, runs, ..] = words.as_slice() else {
            return Err(format!("cannot read the case {line:?}").into());
        };
        for _ in 0..warmup.parse::<usize>()? {
            patched(&base, &file, &table)?;
        }
        let (mut times, mut sampled) = (vec![], vec![]);
        for _ in 0..runs.parse::<usize>()? {
            let start = Instant::now();
            let result = patched(&base, &file, &table)?;
            times.push(start.elapsed().as_secs_f64());
            sampled = sample(&result);
        }
        writeln!(out, r#"{{"times": {times:?}, "sample": {sampled:?}}}"#)?;
        out.flush()?;
    }
    Ok(())
}
