//! `/users` and `/settings`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value as Json, json};

use super::AppState;
use super::body::Content;
use super::reply::{Failure, Reply, Result, blocking};
use crate::app::App;
use crate::files::FileError;
use crate::users::{UserError, Users};

impl From<UserError> for Failure {
    fn from(e: UserError) -> Self {
        match e {
            UserError::Duplicate | UserError::Nameless | UserError::TooMany => {
                Self::Json(StatusCode::BAD_REQUEST, json!({ "error": e.to_string() }))
            }
            UserError::File(FileError::Outside) => Self::Status(StatusCode::FORBIDDEN),
            UserError::File(_) | UserError::Broken { .. } => Self::internal(e),
        }
    }
}

/// `GET /users`.
pub(super) async fn list(State(app): AppState) -> Result {
    blocking(move || {
        Ok(Reply::json(&if app.users.several() {
            json!({ "storage": "server", "users": Users::all(&app.files)? })
        } else {
            let user = app.users.of(&app.files, &HeaderMap::new()).unwrap_or_default();
            json!({ "storage": "server", "migrated": Users::folder(&app.files, &user).is_ok() })
        }))
    })
    .await
}

/// `POST /users`: adds one.
pub(super) async fn add(State(app): AppState, content: Content) -> Result {
    let request: Json = content.json()?;
    blocking(move || {
        let name = request.get("username").and_then(Json::as_str).unwrap_or_default();
        Ok(Reply::json(&app.users.add(&app.files, name)?))
    })
    .await
}

fn user(app: &App, headers: &HeaderMap) -> Result<String> {
    app.users.of(&app.files, headers).ok_or(Failure::Status(StatusCode::UNAUTHORIZED))
}

/// `GET /settings`.
pub(super) async fn settings(State(app): AppState, headers: HeaderMap) -> Result {
    blocking(move || Ok(Reply::json(&Users::settings(&app.files, &user(&app, &headers)?)?))).await
}

/// `GET /settings/{id}`: its value, or null.
pub(super) async fn setting(State(app): AppState, Path(id): Path<String>, headers: HeaderMap) -> Result {
    blocking(move || {
        let settings = Users::settings(&app.files, &user(&app, &headers)?)?;
        Ok(Reply::json(settings.get(&id).unwrap_or(&Json::Null)))
    })
    .await
}

/// `POST /settings`: sets those in the body.
pub(super) async fn set_all(State(app): AppState, headers: HeaderMap, content: Content) -> Result {
    let changed: Map<String, Json> = content.json()?;
    blocking(move || {
        app.users.set(&app.files, &user(&app, &headers)?, changed)?;
        Ok(Reply::Done)
    })
    .await
}

/// `POST /settings/{id}`: the body is the value.
pub(super) async fn set(
    State(app): AppState,
    Path(id): Path<String>,
    headers: HeaderMap,
    content: Content,
) -> Result {
    let changed = Map::from_iter([(id, content.json()?)]);
    blocking(move || {
        app.users.set(&app.files, &user(&app, &headers)?, changed)?;
        Ok(Reply::Done)
    })
    .await
}
