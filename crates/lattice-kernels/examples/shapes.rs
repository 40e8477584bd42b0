//! Times single operations for the side-by-side runner (`bench/peers`): reads a case per line, prints a JSON answer
//! per line with the seconds of each run.

#[path = "../benches/cases/mod.rs"]
mod cases;

use std::io::{BufRead, Write};
use std::time::Instant;

use candle_core::{Result, bail};
use cases::{Case, Run, build};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A line of input, `op dtype warmup runs dims...`: the case and how often to run it.
fn parse(line: &str) -> Option<(Case, [usize; 2])> {
    let mut words = line.split_whitespace();
    let op = words.next()?.to_owned();
    let dtype = words.next()?.to_owned();
    let mut numbers = words.map(str::parse);
    let warmup = numbers.next()?.ok()?;
    let runs = numbers.next()?.ok()?;
    let dims = numbers.collect::<std::result::Result<_, _>>().ok()?;
    Some((Case { op, dtype, dims }, [warmup, runs]))
}

fn main() -> Result<()> {
    lattice_kernels::keep_freed_memory();
    let mut out = std::io::stdout().lock();
    let mut held: Option<(Case, Run)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let Some((case, [warmup, runs])) = parse(&line) else { bail!("cannot read the case {line:?}") };
        if held.as_ref().is_none_or(|(held, _)| *held != case) {
            let run = build(&case)?;
            held = Some((case, run));
        }
        let Some((_, run)) = &held else { continue };
        // All runs on the pool, where networks run.
        let times = lattice_kernels::on_pool(|| -> Result<Vec<String>> {
            for _ in 0..warmup {
                run()?;
            }
            let timed = |_| {
                let start = Instant::now();
                run()?;
                Ok(start.elapsed().as_secs_f64().to_string())
            };
            (0..runs).map(timed).collect()
        })?;
        writeln!(out, r#"{{"times": [{}]}}"#, times.join(", "))?;
        out.flush()?;
    }
    Ok(())
}
