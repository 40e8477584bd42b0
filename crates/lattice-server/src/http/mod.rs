//! The routes.

mod body;
mod control;
mod guard;
mod history;
mod nodes;
mod prompt;
mod queue;
mod reply;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value as Json, json};

use crate::app::App;
use reply::Reply;

type AppState = State<Arc<App>>;

/// Routes that exist twice, as they stand here and below `/api`.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/prompt", get(prompt::exec_info).post(prompt::submit)),
        ("/queue", get(queue::list).post(queue::change)),
        ("/interrupt", post(control::interrupt)),
        ("/free", post(control::free)),
        ("/history", get(history::list).post(history::change)),
        ("/history/{prompt_id}", get(history::one)),
        ("/object_info", get(nodes::all)),
        ("/object_info/{class}", get(nodes::one)),
        ("/features", get(features)),
        ("/ws", get(socket::connect)),
    ]
}

/// What answers requests.
pub(crate) fn router(app: Arc<App>) -> Router {
    let twice = |router: Router<Arc<App>>, (path, methods): (&str, MethodRouter<Arc<App>>)| {
        router.route(path, methods.clone()).route(&format!("/api{path}"), methods)
    };
    routes()
        .into_iter()
        .fold(Router::new(), twice)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(guard::headers))
        .layer(from_fn_with_state(app.clone(), guard::check))
        // Bodies are limited where they are read, with the answer that clients expect.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// Reading a path that can only be written to finds nothing; other methods are told which ones there are.
async fn wrong_method(method: Method) -> Response {
    if matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::NOT_FOUND.into_response();
    }
    (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()
}

/// What the server can do, to clients.
pub(crate) fn feature_flags(app: &App) -> Json {
    json!({ "supports_preview_metadata": true, "max_upload_size": app.options.max_upload })
}

async fn features(State(app): AppState) -> Reply {
    Reply::json(&feature_flags(&app))
}
