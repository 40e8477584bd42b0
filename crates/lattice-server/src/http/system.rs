//! What the server is and has: `/features`, `/system_stats`, and lists that extensions would fill.

use axum::extract::State;
use serde_json::{Value as Json, json};

use super::AppState;
use super::reply::{Reply, Result, blocking};
use crate::app::App;

/// The version of ComfyUI whose interface this is. Clients choose by it what they ask for.
const COMFYUI_VERSION: &str = "0.3.64";

/// The front end that belongs to it.
const FRONT_END_VERSION: &str = "1.27.10";

/// The templates that belong to it.
const TEMPLATES_VERSION: &str = "0.1.95";

/// What the server can do, to clients.
pub(crate) fn feature_flags(app: &App) -> Json {
    json!({ "supports_preview_metadata": true, "max_upload_size": app.options.max_upload })
}

/// `GET /features`.
pub(super) async fn features(State(app): AppState) -> Reply {
    Reply::json(&feature_flags(&app))
}

/// `GET /system_stats`.
pub(super) async fn stats(State(app): AppState) -> Result {
    blocking(move || {
        let memory = app.host.memory();
        let lattice = format!("Lattice {}", env!("CARGO_PKG_VERSION"));
        Ok(Reply::json(&json!({
            "system": {
                "os": if cfg!(windows) { "nt" } else { "posix" },
                "ram_total": memory.total,
                "ram_free": memory.free,
                "comfyui_version": COMFYUI_VERSION,
                "required_frontend_version": FRONT_END_VERSION,
                "installed_templates_version": TEMPLATES_VERSION,
                "required_templates_version": TEMPLATES_VERSION,
                // There is neither; what stands in for both tells its own version.
                "python_version": lattice,
                "pytorch_version": lattice,
                "embedded_python": false,
                "argv": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
            },
            "devices": [{
                "name": "cpu",
                "type": "cpu",
                "index": null,
                "vram_total": memory.total,
                "vram_free": memory.free,
                "torch_vram_total": memory.total,
                "torch_vram_free": memory.free,
            }],
        })))
    })
    .await
}

/// `GET /workflow_templates` and `GET /i18n`: what packs of nodes in Python bring along, and there are none.
pub(super) async fn nothing_of_packs() -> Reply {
    Reply::json(&json!({}))
}

/// `GET /extensions`: scripts of the front end.
pub(super) async fn extensions(State(app): AppState) -> Result {
    blocking(move || {
        let folder = app.front_end.as_ref().and_then(|root| root.below("extensions".as_ref()).ok());
        let entries = folder.map(|folder| folder.walk(true)).transpose()?.unwrap_or_default();
        let scripts = entries.iter().filter(|entry| !entry.is_folder).map(|entry| entry.path.as_str());
        #[expect(clippy::case_sensitive_file_extension_comparisons, reason = "as clients know it")]
        let scripts = scripts.filter(|path| path.ends_with(".js"));
        Ok(Reply::json(&scripts.map(|path| format!("/extensions/{path}")).collect::<Vec<_>>()))
    })
    .await
}
