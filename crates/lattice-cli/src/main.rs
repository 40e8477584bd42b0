//! The `lattice` command.

mod config;
mod convert;
#[cfg(feature = "demo-model")]
mod demo;
mod host;
mod inspect;
mod key;
mod listing;
mod model_paths;
mod overrides;
mod report;
mod run;
mod serve;
mod workflow;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use config::Preview;
use host::Host;
use overrides::Override;

/// Large buffers come and go with every operation; this allocator keeps them instead of asking the system for zeroed
/// pages again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs ComfyUI workflows natively.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args)]
struct Common {
    /// Folder that holds models/, input/, output/, temp/ and user/ [default: the current folder].
    #[arg(long, global = true, value_name = "DIR", alias = "base-directory")]
    base_dir: Option<PathBuf>,
    /// Settings file [default: lattice.dhall in the base folder, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Further model folders, in the extra_model_paths.yaml format [default: that file in the base folder].
    #[arg(long, global = true, value_name = "FILE", alias = "extra-model-paths-config")]
    extra_model_paths: Vec<PathBuf>,
    /// Folder of input pictures.
    #[arg(long, global = true, value_name = "DIR", alias = "input-directory")]
    input_dir: Option<PathBuf>,
    /// Threads to compute with [default: one per core].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Log more: once for information, twice for details.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Run a workflow and print the files it wrote.
    Run(RunArgs),
    /// List the model files found.
    Models {
        /// Only this kind (checkpoints, loras, vae, ...).
        kind: Option<String>,
    },
    /// List the nodes.
    Nodes {
        /// Show how much of the reference's node library exists, by category.
        #[arg(long)]
        coverage: bool,
        /// Print the declaration of one node (as /object_info does).
        class: Option<String>,
    },
    /// Say what a model file holds: family, parts, storage types, sizes, metadata.
    Inspect {
        /// Model file of any format, or a diffusers folder.
        file: PathBuf,
        /// List every tensor.
        #[arg(long)]
        tensors: bool,
    },
    /// Make, list and revoke the keys that clients of `lattice serve` show.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Serve clients of ComfyUI: its web front end, scripts, plug-ins.
    Serve(Box<serve::ServeArgs>),
    /// Write a model file in another format or storage type.
    Convert(convert::ConvertArgs),
    /// Print the default settings, commented; a good start for a lattice.dhall.
    Config,
}

#[derive(Args)]
struct RunArgs {
    /// Workflow: API or editor format, or a PNG or WEBP picture that carries one.
    workflow: PathBuf,
    /// Set an input before running: NODE is an id, a title or a class, VALUE is JSON or text. May be repeated.
    #[arg(long, value_name = "NODE.INPUT=VALUE")]
    set: Vec<Override>,
    /// Set every seed of the workflow.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for the results [default: output in the base folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only execute these output nodes.
    #[arg(long, value_name = "NODE")]
    target: Vec<String>,
    /// Print events as JSON lines.
    #[arg(long)]
    json: bool,
    /// Print only the files written.
    #[arg(short, long)]
    quiet: bool,
    /// Save files without the prompt and the workflow in them.
    #[arg(long)]
    no_metadata: bool,
    /// Make pictures while sampling (for programs that read the events).
    #[arg(long, value_enum)]
    preview_method: Option<Preview>,
}

/// Keeps where an error came from in our code out of what it says: the tensor library puts that into its messages when
/// `RUST_BACKTRACE` is set, and messages go to clients. Panics still tell it.
fn plain_errors() {
    const CAPTURE: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(CAPTURE).is_none() {
        // SAFETY: this is the first thing the program does, so no other thread reads the environment.
        unsafe { std::env::set_var(CAPTURE, "0") };
    }
}

fn main() -> ExitCode {
    plain_errors();
    lattice_kernels::keep_freed_memory();
    match dispatch(Cli::parse_from(serve::translate(std::env::args_os()))) {
        Ok(code) => code,
        // Whoever read what is printed (`head`) has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    if matches!(cli.command, Command::Config) {
        print!("{}", config::DEFAULT_DHALL);
        return Ok(ExitCode::SUCCESS);
    }
    let host = Host::new(&cli.common)?;
    match cli.command {
        Command::Run(args) => run::run(host, &args),
        Command::Serve(args) => serve::serve(host, &args),
        Command::Models { kind } => listing::models(&host, kind.as_deref()),
        Command::Nodes { coverage, class } => listing::nodes(&host, coverage, class.as_deref()),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect { file, tensors } => inspect::inspect(&file, tensors),
        Command::Key(command) => key::key(&host.folders, &command).map(|()| ExitCode::SUCCESS),
        Command::Config => Ok(ExitCode::SUCCESS),
    }
}
