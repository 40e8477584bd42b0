//! `/history`.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use indexmap::IndexMap;
use serde_json::Value as Json;

use super::AppState;
use super::body::Content;
use super::prompt::truthy;
use super::queue::ids_to_delete;
use super::reply::{Failure, Reply, Result, blocking};
use crate::store::Page;

/// `GET /history`: entries, oldest first.
pub(super) async fn list(State(app): AppState, Query(query): Query<HashMap<String, String>>) -> Result {
    let whole = |name: &str| {
        let text = query.get(name).map(|text| text.trim());
        let number = text.map(str::parse::<i64>).transpose();
        number.map_err(|_| Failure::bad(format!("{name} must be a whole number")))
    };
    let page = Page { max_items: whole("max_items")?, offset: whole("offset")?.unwrap_or(-1) };
    blocking(move || Ok(Reply::json(&app.store.history(page)?))).await
}

/// `GET /history/{prompt_id}`: the entry, or nothing.
pub(super) async fn one(State(app): AppState, Path(prompt_id): Path<String>) -> Result {
    blocking(move || {
        let entry = app.store.history_entry(&prompt_id)?;
        let found: IndexMap<_, _> = entry.map(|entry| (prompt_id, entry)).into_iter().collect();
        Ok(Reply::json(&found))
    })
    .await
}

/// `POST /history`: drops entries.
pub(super) async fn change(State(app): AppState, content: Content) -> Result {
    let request: Json = content.json()?;
    blocking(move || {
        if request.get("clear").is_some_and(truthy) {
            app.store.forget(None)?;
        }
        if let Some(ids) = ids_to_delete(&request)? {
            app.store.forget(Some(ids))?;
        }
        Ok(Reply::Done)
    })
    .await
}
