//! The `lattice` command.

mod config;
mod model_paths;
mod overrides;
mod report;

fn main() {
    println!("{}", config::DEFAULT_DHALL);
}
