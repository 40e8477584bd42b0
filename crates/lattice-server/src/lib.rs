//! HTTP and WebSocket server with a durable queue: what clients of ComfyUI talk to.
//!
//! [`serve`] answers requests and has prompts executed until the process is told to stop. What it serves (node classes,
//! folders, models) it knows through [`Host`] alone; tensors it never sees.

mod app;
mod engine;
mod files;
mod health;
mod host;
mod http;
mod hub;
pub mod keys;
mod limit;
mod listen;
mod logs;
mod metrics;
mod options;
mod record;
pub mod store;
mod template;
mod users;

pub use app::{ServeError, serve};
pub use host::{Host, Memory, Roots};
pub use hub::{ClientMessage, Features};
pub use logs::Logs;
pub use options::{Access, Options, QueuePlace, TlsFiles};
