//! Every kernel on a few shapes of Stable Diffusion 1.5, its VAE and Flux: `cargo bench -p lattice-kernels`. Beside PyTorch:
//! `bench/peers/compare.sh`.

mod cases;

use std::time::{Duration, Instant};

use cases::{Case, build};
use criterion::Criterion;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Operation, type of the weight, sizes as in `bench/peers/shapes.py`.
const CASES: [(&str, &str, &[usize]); 19] = [
    ("conv", "f32", &[2, 320, 320, 64, 64, 3, 1]),
    ("conv", "f32", &[2, 1280, 1280, 16, 16, 3, 1]),
    ("conv", "f32", &[1, 256, 256, 256, 256, 3, 1]),
    ("conv", "f32", &[2, 320, 4, 64, 64, 3, 1]),
    ("conv", "f32", &[2, 640, 640, 32, 32, 3, 2]),
    ("conv", "f32", &[2, 960, 640, 32, 32, 1, 1]),
    ("attention", "f32", &[1, 8, 4096, 4096, 40]),
    ("attention", "f32", &[1, 1, 4096, 4096, 512]),
    ("attention", "f32", &[2, 8, 4096, 77, 40]),
    ("linear", "f32", &[2048, 640, 640]),
    ("linear", "f16", &[2048, 640, 640]),
    ("linear", "bf16", &[2048, 640, 640]),
    ("linear", "f8", &[2048, 640, 640]),
    ("linear", "f32", &[2, 1280, 1280]),
    ("geglu_linear", "f32", &[2048, 640, 5120]),
    ("gelu_linear", "f32", &[512, 3072, 12288]),
    ("groupnorm_silu", "f32", &[2, 320, 64, 64]),
    ("layernorm", "f32", &[8192, 320]),
    ("geglu", "f32", &[4096, 2560]),
];

fn main() {
    lattice_kernels::keep_freed_memory();
    let mut criterion =
        Criterion::default().sample_size(10).measurement_time(Duration::from_secs(2)).configure_from_args();
    for (op, dtype, dims) in CASES {
        let sizes: Vec<String> = dims.iter().map(ToString::to_string).collect();
        criterion.bench_function(&format!("{op} {dtype} {}", sizes.join("x")), |bencher| {
            // Operands are only made for the cases that the command line asks for.
            let case = Case { op: op.to_owned(), dtype: dtype.to_owned(), dims: dims.to_vec() };
            let run = build(&case).expect("a case that this file lists");
            // All runs on the pool, where networks run.
            bencher.iter_custom(|runs| {
                lattice_kernels::on_pool(|| {
                    let start = Instant::now();
                    for _ in 0..runs {
                        run().expect("operands that fit");
                    }
                    start.elapsed()
                })
            });
        });
    }
    criterion.final_summary();
}
