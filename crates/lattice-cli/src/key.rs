//! `lattice key`.

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use lattice_nodes::services::Folders;
use lattice_server::keys::{Keys, Scope};

/// What to do with keys.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it. It is shown only once.
    Create {
        /// Who or what it is for.
        name: String,
        /// What it allows.
        #[arg(long, value_enum, default_value_t = KeyScope::Queue)]
        scope: KeyScope,
    },
    /// List the keys' names and scopes.
    List,
    /// Make a key worthless; a running server heeds that at once.
    Revoke {
        /// Name of the key.
        name: String,
    },
}

/// What a key allows; each includes those before it.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum KeyScope {
    /// Look at the queue, the history and the results.
    Read,
    /// Queue prompts, upload files, save workflows.
    Queue,
    /// All else.
    Admin,
}

pub(crate) fn key(folders: &Folders, command: &KeyCommand) -> Result<()> {
    let mut keys = Keys::open(folders.user())?;
    match command {
        KeyCommand::Create { name, scope } => {
            let scope = match scope {
                KeyScope::Read => Scope::Read,
                KeyScope::Queue => Scope::Queue,
                KeyScope::Admin => Scope::Admin,
            };
            println!("{}", keys.create(name, scope)?);
        }
        KeyCommand::List => {
            for (name, key) in keys.iter() {
                println!("{name}\t{}", format!("{:?}", key.scope).to_lowercase());
            }
        }
        KeyCommand::Revoke { name } => keys.revoke(name)?,
    }
    Ok(())
}
