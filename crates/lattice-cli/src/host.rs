//! Settings and folders of one invocation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use lattice_graph::CacheStrategy;
use lattice_nodes::services::{Folders, Previews, Settings};
use lattice_server::Logs;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Common;
use crate::config::{Cache, Config, Preview};
use crate::model_paths;

/// What every command starts from.
pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) folders: Folders,
    /// The last lines of the log.
    pub(crate) logs: Arc<Logs>,
    /// Whether input pictures were given a folder by the user.
    pub(crate) input_named: bool,
}

impl Host {
    pub(crate) fn new(common: &Common) -> Result<Self> {
        let base = common.base_dir.clone().unwrap_or_else(|| PathBuf::from("."));
        let mut config = Config::find(common.config.as_deref(), &base)?;
        if let Some(base) = &common.base_dir {
            config.baseDir = base.to_string_lossy().into_owned();
        }
        let logs = Arc::new(Logs::default());
        start_logging(&config.log, common.verbose, logs.clone());
        if let Some(threads) = common.threads.or(config.threads.map(|n| n as usize)) {
            lattice_runtime::set_threads(threads);
        }
        let input_named = common.input_dir.is_some() || config.inputDir.is_some();
        let folders = folders(&config, common)?;
        Ok(Self { config, folders, logs, input_named })
    }

    /// What nodes are told.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            metadata: self.config.metadata,
            previews: previews(self.config.preview),
            ..Settings::default()
        }
    }

    /// How results are kept.
    pub(crate) fn cache(&self) -> CacheStrategy {
        match self.config.cache {
            Cache::Classic => CacheStrategy::Classic,
            Cache::Lru(n) => CacheStrategy::Lru(n as usize),
            Cache::Off => CacheStrategy::None,
            Cache::RamPressure(mib) => CacheStrategy::RamPressure {
                budget: mib.saturating_mul(1 << 20),
                probe: Arc::new(lattice_runtime::resident_bytes),
            },
        }
    }
}

fn previews(preview: Preview) -> Previews {
    match preview {
        Preview::Off => Previews::None,
        Preview::Auto => Previews::Auto,
        Preview::Latent2rgb => Previews::LatentToRgb,
        Preview::Taesd => Previews::Taesd,
    }
}

fn folders(config: &Config, common: &Common) -> Result<Folders> {
    let base = Path::new(&config.baseDir);
    let input = common.input_dir.clone().unwrap_or_else(|| config.folder(config.inputDir.as_ref(), "input"));
    let mut folders = Folders::new(base)
        .with_input(input)
        .with_output(config.folder(config.outputDir.as_ref(), "output"))
        .with_temp(config.folder(config.tempDir.as_ref(), "temp"))
        .with_user(config.folder(config.userDir.as_ref(), "user"));
    let usual = base.join("extra_model_paths.yaml");
    let named =
        config.extraModelPaths.iter().map(PathBuf::from).chain(common.extra_model_paths.iter().cloned());
    let files = named.chain(usual.exists().then_some(usual));
    for file in files {
        for extra in model_paths::read(&file).context("reading model folders")? {
            folders.add_search_path(&extra.kind, extra.path, extra.first);
        }
    }
    #[cfg(feature = "demo-model")]
    folders.add_builtin("checkpoints", crate::demo::NAME, crate::demo::file());
    Ok(folders)
}

/// Logs to standard error and into `logs`; `RUST_LOG` wins over the settings.
fn start_logging(level: &str, verbose: u8, logs: Arc<Logs>) {
    let level = match verbose {
        0 => level,
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::registry()
        .with(filter)
        .with(layer().without_time().with_writer(std::io::stderr))
        .with(layer().without_time().with_ansi(false).with_writer(logs))
        .init();
}
