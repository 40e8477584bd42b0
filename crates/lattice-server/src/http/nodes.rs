//! `/object_info`.

use axum::extract::{Path, State};

use super::AppState;
use super::reply::{Reply, Result, blocking};

/// `GET /object_info`: all node classes.
pub(super) async fn all(State(app): AppState) -> Result {
    // Lists of files are read anew each time.
    blocking(move || Ok(Reply::json(&app.registry.object_info(&app.extensions)))).await
}

/// `GET /object_info/{class}`: one class, or nothing.
pub(super) async fn one(State(app): AppState, Path(class): Path<String>) -> Result {
    blocking(move || Ok(Reply::json(&app.registry.object_info_of(&class, &app.extensions)))).await
}
