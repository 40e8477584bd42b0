//! `lattice serve` under load: how fast it starts, what it needs when idle, how long a prompt takes, how many it takes
//! in a second, and what many clients cost.
//!
//! `cargo bench -p lattice-cli --bench serve -- [PART...]`; the parts are the functions of `PARTS`, all without any.

mod client;
mod parts;
mod server;

use std::time::{Duration, Instant};

/// What can be measured.
const PARTS: [(&str, fn()); 6] = [
    ("start", parts::start),
    ("latency", parts::latency),
    ("chain", parts::chain),
    ("throughput", parts::throughput),
    ("crowd", parts::crowd),
    ("history", parts::history),
];

fn main() {
    // Cargo passes options of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            part();
        }
    }
}

/// How long something takes.
fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = f();
    (result, start.elapsed())
}

/// Prints median and extremes of some times.
fn report(what: &str, mut times: Vec<Duration>, target: &str) {
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    let last = times.len() - 1;
    let (median, late) = (ms(last / 2), ms(last * 95 / 100));
    println!("{what}: median {median:.2} ms, 95 % within {late:.2} ms, longest {:.2} ms{target}", ms(last));
}
