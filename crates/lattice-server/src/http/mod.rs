//! The routes: those of ComfyUI here, our own in `own`.

mod auth;
mod body;
mod control;
mod guard;
mod history;
mod images;
mod internal;
mod models;
mod nodes;
mod own;
mod prompt;
mod queue;
mod reply;
mod site;
mod socket;
mod system;
mod upload;
mod userdata;
mod users;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};
use tower_http::compression::CompressionLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::app::App;
use system::feature_flags;

type AppState = State<Arc<App>>;

/// How long a client may pause while it sends a body.
const BODY_PAUSE: Duration = Duration::from_secs(30);

/// Routes that exist twice, as they stand here and below `/api`.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/", get(site::index)),
        ("/embeddings", get(models::embeddings)),
        ("/experiment/models", get(models::folders)),
        ("/experiment/models/preview/{folder}/{index}/{filename}", get(models::picture)),
        ("/experiment/models/{folder}", get(models::files)),
        ("/extensions", get(system::extensions)),
        ("/features", get(system::features)),
        ("/free", post(control::free)),
        ("/history", get(history::list).post(history::change)),
        ("/history/{prompt_id}", get(history::one)),
        ("/i18n", get(system::nothing_of_packs)),
        ("/interrupt", post(control::interrupt)),
        ("/models", get(models::kinds)),
        ("/models/{folder}", get(models::list)),
        ("/object_info", get(nodes::all)),
        ("/object_info/{class}", get(nodes::one)),
        ("/prompt", get(prompt::exec_info).post(prompt::submit)),
        ("/queue", get(queue::list).post(queue::change)),
        ("/settings", get(users::settings).post(users::set_all)),
        ("/settings/{id}", get(users::setting).post(users::set)),
        ("/system_stats", get(system::stats)),
        ("/upload/image", post(upload::image)),
        ("/upload/mask", post(upload::mask)),
        ("/userdata", get(userdata::list)),
        ("/userdata/{file}", get(userdata::read).post(userdata::write).delete(userdata::delete)),
        ("/userdata/{file}/move/{dest}", post(userdata::rename)),
        ("/users", get(users::list).post(users::add)),
        ("/v2/userdata", get(userdata::tree)),
        ("/view", get(view::view)),
        ("/view_metadata/{folder}", get(models::view_metadata)),
        ("/workflow_templates", get(system::nothing_of_packs)),
        ("/ws", get(socket::connect)),
    ]
}

/// Routes for the front end's own use, which exist once.
fn internal_routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/internal/files/{root}", get(internal::files)),
        ("/internal/folder_paths", get(internal::folder_paths)),
        ("/internal/logs", get(internal::logs)),
        ("/internal/logs/raw", get(internal::raw_logs)),
        ("/internal/logs/subscribe", patch(internal::subscribe)),
    ]
}

/// What answers requests.
pub(crate) fn router(app: Arc<App>) -> Router {
    let twice = |router: Router<Arc<App>>, (path, methods): (&str, MethodRouter<Arc<App>>)| {
        router.route(path, methods.clone()).route(&format!("/api{path}"), methods)
    };
    let once = |router: Router<Arc<App>>, (path, methods)| router.route(path, methods);
    let router = internal_routes().into_iter().fold(Router::new(), once);
    let router = routes()
        .into_iter()
        .fold(router, twice)
        .merge(Router::from(own::routes()))
        .fallback(site::other)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), body::limit))
        .layer(from_fn_with_state(app.clone(), auth::check))
        .layer(from_fn(guard::headers))
        .layer(from_fn_with_state(app.clone(), guard::check))
        .layer(RequestBodyTimeoutLayer::new(BODY_PAUSE))
        // For forms; other bodies are limited where they are read, with the answer that clients expect.
        .layer(DefaultBodyLimit::max(usize::try_from(app.options.max_upload).unwrap_or(usize::MAX)));
    let router = if app.options.compress { router.layer(compression()) } else { router };
    router.with_state(app)
}

fn compression() -> CompressionLayer<impl tower_http::compression::Predicate> {
    let texts = |_: StatusCode, _, headers: &HeaderMap, _: &_| {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        ["application/json", "text/plain"].iter().any(|text| kind.starts_with(text))
    };
    CompressionLayer::new().gzip(true).compress_when(texts)
}

/// Reading a path that can only be written to finds nothing; other methods are told which ones there are.
async fn wrong_method(method: Method) -> Response {
    if matches!(method, Method::GET | Method::HEAD) {
        return StatusCode::NOT_FOUND.into_response();
    }
    (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()
}

/// The answer to a method that the path does not know, where only reading makes sense.
fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET,HEAD")], "405: Method Not Allowed").into_response()
}
