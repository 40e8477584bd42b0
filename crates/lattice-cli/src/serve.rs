//! `lattice serve`.

use std::ffi::OsString;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, FromArgMatches, ValueEnum};
use lattice_graph::{CacheStrategy, Extensions, Registry};
use lattice_nodes::services::{Folders, Ledger, ModelCache, ModelFile, Root, services};
use lattice_server::store::{QueueOrder, Recovery};
use lattice_server::{Access, Memory, Options, QueuePlace, Roots, TlsFiles};

use crate::config::{Cache, Preview};
use crate::host::Host;

/// Where to listen when `--listen` names no address.
const EVERYWHERE: &str = "0.0.0.0,::";

/// Name of the file in the user folder that tells what the running prompt has saved.
const LEDGER: &str = "running.jsonl";

/// What programs that ask for pictures get without a template of their own: a picture of the demo model.
const IMAGE_TEMPLATE: &str = include_str!("../../../examples/image_template.json");

/// Options of `lattice serve`: those that scripts pass to ComfyUI, and some of our own.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "options of the command line")]
pub(crate) struct ServeArgs {
    /// Addresses to listen on, separated by commas [default: 127.0.0.1; without a value: all].
    #[arg(long, value_name = "IP,...", num_args = 0..=1, default_missing_value = EVERYWHERE)]
    listen: Option<String>,
    /// Port to listen on.
    #[arg(long, default_value_t = 8188)]
    port: u16,
    /// Serve other machines without asking for a key.
    #[arg(long)]
    no_auth: bool,
    /// Ask for a key even if only this machine can connect.
    #[arg(long, conflicts_with = "no_auth")]
    require_key: bool,
    /// Certificate (PEM) to be asked through TLS with.
    #[arg(long, value_name = "FILE", requires = "tls_keyfile")]
    tls_certfile: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certfile")]
    tls_keyfile: Option<PathBuf>,
    /// Most connections at a time.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_connections: usize,
    /// Further names under which the server is reached, such as that of a proxy. May be repeated.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Let pages of this origin use the server (without a value: of all).
    #[arg(long, value_name = "ORIGIN", num_args = 0..=1, default_missing_value = "*")]
    enable_cors_header: Option<String>,
    /// Largest request body, in MB.
    #[arg(long, value_name = "MB", default_value_t = 100.0)]
    max_upload_size: f64,
    /// Folder of a web front end to serve, such as comfyui-frontend-package's `static`.
    #[arg(long, value_name = "DIR", alias = "front-end-root")]
    front_end: Option<PathBuf>,
    /// Several users, each with settings and workflows of their own; clients say who they are.
    #[arg(long)]
    multi_user: bool,
    /// Compress texts for clients that can take that.
    #[arg(long)]
    enable_compress_response_body: bool,
    /// Keep the queue and the history in memory only.
    #[arg(long)]
    memory_queue: bool,
    /// Which prompt of the highest priority runs next [default: as last set; at first, by number].
    #[arg(long, value_enum)]
    queue_order: Option<Order>,
    /// What becomes of a prompt that was running when the program was killed.
    #[arg(long, value_enum, default_value_t = AfterCrash::RunAgain)]
    after_crash: AfterCrash,
    /// Most entries kept in the history.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    history_limit: usize,
    /// Seconds that a running prompt may go on when the server is told to stop; then it goes back into the queue.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stop_after: u64,

    /// Folder for results.
    #[arg(long, value_name = "DIR")]
    output_directory: Option<PathBuf>,
    /// Folder in which the folder temp is made.
    #[arg(long, value_name = "DIR")]
    temp_directory: Option<PathBuf>,
    /// Folder for the users' settings and workflows, and the queue.
    #[arg(long, value_name = "DIR")]
    user_directory: Option<PathBuf>,
    /// Pictures while sampling.
    #[arg(long, value_enum)]
    preview_method: Option<Preview>,
    /// Longer side of those, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    preview_size: u32,
    /// Keep the results of the last prompt.
    #[arg(long, conflicts_with_all = ["cache_lru", "cache_none"])]
    cache_classic: bool,
    /// Keep the results of the last prompts, so many nodes.
    #[arg(long, value_name = "N", conflicts_with = "cache_none")]
    cache_lru: Option<u64>,
    /// Keep no results.
    #[arg(long)]
    cache_none: bool,
    /// Save files without the prompt and the workflow in them.
    #[arg(long)]
    disable_metadata: bool,
    /// Do not print the address.
    #[arg(long)]
    dont_print_server: bool,

    #[command(flatten)]
    _ignored: Ignored,
}

/// Options of ComfyUI that ask for what is always so here, or does not apply; accepted so that scripts keep working.
struct Ignored;

/// Those without a value.
const IGNORED_FLAGS: [&str; 29] = [
    "auto-launch",
    "disable-auto-launch",
    "cpu",
    "gpu-only",
    "highvram",
    "normalvram",
    "lowvram",
    "novram",
    "force-fp32",
    "force-fp16",
    "fp32-unet",
    "fp16-unet",
    "bf16-unet",
    "fp8_e4m3fn-unet",
    "fp8_e5m2-unet",
    "fp16-vae",
    "fp32-vae",
    "bf16-vae",
    "cpu-vae",
    "fp8_e4m3fn-text-enc",
    "fp8_e5m2-text-enc",
    "fp16-text-enc",
    "fp32-text-enc",
    "bf16-text-enc",
    "deterministic",
    "disable-all-custom-nodes",
    "disable-api-nodes",
    "disable-smart-memory",
    "log-stdout",
];

/// Those with values, and how many.
const IGNORED_VALUES: [(&str, RangeInclusive<usize>); 7] = [
    ("cuda-device", 1..=1),
    ("default-device", 1..=1),
    ("default-hashing-function", 1..=1),
    ("reserve-vram", 1..=1),
    ("fast", 0..=usize::MAX),
    ("whitelist-custom-nodes", 1..=usize::MAX),
    ("front-end-version", 1..=1),
];

impl Args for Ignored {
    fn augment_args(command: clap::Command) -> clap::Command {
        let hidden = |name: &'static str| clap::Arg::new(name).long(name).hide(true);
        let flags = IGNORED_FLAGS.map(|name| hidden(name).action(ArgAction::SetTrue));
        let values = IGNORED_VALUES.map(|(name, count)| hidden(name).num_args(count));
        command.args(flags).args(values)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Ignored {
    fn from_arg_matches(_: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &clap::ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// What becomes of a prompt that was running when the program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AfterCrash {
    /// It runs again.
    RunAgain,
    /// It is in the history as failed.
    Report,
}

/// Which prompt runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// The one that was queued first, unless clients say otherwise.
    Number,
    /// Clients take turns.
    Fair,
}

/// ComfyUI's `--verbose` of `serve` takes a level, ours counts; the former becomes the latter.
pub(crate) fn translate(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut translated: Vec<OsString> = Vec::new();
    for arg in args {
        let after_verbose = translated.last().is_some_and(|last| last == "--verbose");
        let text = arg.to_str().unwrap_or_default();
        let level = if after_verbose { Some(text) } else { text.strip_prefix("--verbose=") };
        match level.map(str::to_uppercase).as_deref() {
            Some("DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL") => {
                translated.truncate(translated.len() - usize::from(after_verbose));
                let ours = level.map(str::to_uppercase).map_or("", |level| match level.as_str() {
                    "DEBUG" => "-vv",
                    "INFO" => "-v",
                    _ => "",
                });
                translated.extend((!ours.is_empty()).then(|| ours.into()));
            }
            _ => translated.push(arg),
        }
    }
    translated
}

pub(crate) fn serve(mut host: Host, args: &ServeArgs) -> Result<ExitCode> {
    args.override_settings(&mut host);
    let options = args.options()?;
    let settings = lattice_nodes::services::Settings { preview_size: args.preview_size, ..host.settings() };
    let ledger = Arc::new(match options.queue {
        QueuePlace::Disk => Ledger::at(host.folders.user().join(LEDGER)),
        QueuePlace::Memory => Ledger::in_memory(),
    });
    let folders = host.folders.clone().with_ledger(ledger.clone());
    let program =
        Program { extensions: services(folders.clone(), settings), cache: host.cache(), folders, ledger };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let print = !args.dont_print_server;
    lattice_server::serve(Arc::new(program), options, host.logs, |addresses| {
        for address in addresses.iter().filter(|_| print) {
            println!("To see the GUI go to: {scheme}://{address}");
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl ServeArgs {
    fn override_settings(&self, host: &mut Host) {
        let config = &mut host.config;
        config.metadata &= !self.disable_metadata;
        config.preview = self.preview_method.unwrap_or(config.preview);
        config.cache = match self.cache_lru {
            Some(n) => Cache::Lru(n),
            None if self.cache_none => Cache::Off,
            None if self.cache_classic => Cache::Classic,
            None => config.cache,
        };
        let mut folders = host.folders.clone();
        if let Some(output) = &self.output_directory {
            folders = folders.with_output(output);
        }
        if let Some(temp) = &self.temp_directory {
            folders = folders.with_temp(temp.join("temp"));
        }
        if let Some(user) = &self.user_directory {
            folders = folders.with_user(user);
        }
        host.folders = folders;
    }

    fn options(&self) -> Result<Options> {
        if self.max_upload_size.is_nan() || self.max_upload_size <= 0.0 {
            bail!("--max-upload-size must be larger than 0")
        }
        Ok(Options {
            addresses: self.addresses()?,
            access: Access {
                cors: self.enable_cors_header.clone(),
                hosts: self.allow_host.clone(),
                open: self.no_auth,
                always_keys: self.require_key,
            },
            tls: self
                .tls_certfile
                .clone()
                .zip(self.tls_keyfile.clone())
                .map(|(certificate, key)| TlsFiles { certificate, key }),
            max_connections: self.max_connections,
            // Casting saturates.
            max_upload: (self.max_upload_size * f64::from(1 << 20)).round() as u64,
            front_end: self.front_end.clone(),
            several_users: self.multi_user,
            compress: self.enable_compress_response_body,
            queue: if self.memory_queue { QueuePlace::Memory } else { QueuePlace::Disk },
            order: self.queue_order.map(|order| match order {
                Order::Number => QueueOrder::Number,
                Order::Fair => QueueOrder::Fair,
            }),
            recovery: match self.after_crash {
                AfterCrash::RunAgain => Recovery::RunAgain,
                AfterCrash::Report => Recovery::Report,
            },
            history_limit: self.history_limit,
            grace: Duration::from_secs(self.stop_after),
        })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let listen = self.listen.as_deref().unwrap_or("127.0.0.1");
        let address = |text: &str| match text.trim() {
            "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], self.port))),
            text => match text.parse::<IpAddr>() {
                Ok(ip) => Ok(SocketAddr::from((ip, self.port))),
                Err(_) => bail!("--listen takes IP addresses; `{text}` is none"),
            },
        };
        listen.split(',').map(address).collect()
    }
}

/// What the server serves.
struct Program {
    folders: Folders,
    extensions: Extensions,
    cache: CacheStrategy,
    ledger: Arc<Ledger>,
}

impl lattice_server::Host for Program {
    fn registry(&self) -> Arc<Registry> {
        Arc::new(lattice_nodes::registry())
    }

    fn extensions(&self) -> Extensions {
        self.extensions.clone()
    }

    fn cache(&self) -> CacheStrategy {
        self.cache.clone()
    }

    fn roots(&self) -> Roots {
        Roots {
            input: self.folders.root(Root::Input).to_owned(),
            output: self.folders.root(Root::Output).to_owned(),
            temp: self.folders.root(Root::Temp).to_owned(),
            user: self.folders.user().to_owned(),
        }
    }

    fn free_models(&self) {
        if let Some(models) = self.extensions.get::<ModelCache>() {
            models.clear();
        }
    }

    fn model_kinds(&self) -> Vec<String> {
        self.folders.kinds().map(str::to_owned).collect()
    }

    fn model_folders(&self, kind: &str) -> Vec<PathBuf> {
        self.folders.search_paths(kind).unwrap_or_default().to_vec()
    }

    fn models(&self, kind: &str) -> Vec<String> {
        self.folders.list(kind)
    }

    fn open_model(&self, kind: &str, name: &str) -> Option<Box<dyn Read>> {
        match self.folders.find(kind, name).ok()? {
            ModelFile::Path(path) => Some(Box::new(std::fs::File::open(path).ok()?)),
            ModelFile::Builtin { bytes, .. } => Some(Box::new(std::io::Cursor::new(bytes))),
        }
    }

    fn image_template(&self) -> Option<&'static str> {
        cfg!(feature = "demo-model").then_some(IMAGE_TEMPLATE)
    }

    fn memory(&self) -> Memory {
        let (total, free) = lattice_runtime::system_memory();
        Memory { total, free, resident: lattice_runtime::resident_bytes() }
    }

    fn run_begins(&self, run: &str) -> Result<(), String> {
        self.ledger.begin(run).map_err(|e| e.to_string())
    }

    fn run_ended(&self) -> Result<(), String> {
        self.ledger.end().map_err(|e| e.to_string())
    }
}
