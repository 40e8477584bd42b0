//! Routes that ComfyUI does not have. Each handler carries its description (`#[utoipa::path]`): what it takes and
//! answers, and the scope of the key that it needs. `/openapi.json` and the check of keys are made from these.
//!
//! To add a route, write its handler so and name it in [`routes`].

mod events;
mod health;
mod metrics;
mod queue;
mod transfer;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::images;
use crate::app::App;
use crate::keys::Scope;

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(queue::queue_state))
        .routes(routes!(queue::queue_pause))
        .routes(routes!(queue::queue_resume))
        .routes(routes!(queue::queue_order))
        .routes(routes!(queue::queued_prompt, queue::edit_prompt, queue::drop_prompt))
        .routes(routes!(queue::move_prompt))
        .routes(routes!(transfer::export_queue))
        .routes(routes!(transfer::import_queue))
        .routes(routes!(images::generate))
        .routes(routes!(images::models))
        .routes(routes!(images::one_model))
        .routes(routes!(events::listen))
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(openapi))
}

/// The query of a request, or why it makes no sense.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// What is said of all routes together.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lattice",
        description = "The routes of `lattice serve` beside those of ComfyUI's interface. Where the server asks for \
                       keys, each says which scope it needs (`read` < `queue` < `admin`); a key is shown as \
                       `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
    ),
    tags(
        (name = "queue", description = "What waits and runs, and changing that"),
        (name = "images", description = "Pictures for programs that know OpenAI's API"),
        (name = "events", description = "What happens, as it happens"),
        (name = "operation", description = "Running the server"),
    ),
    modifiers(&KeyScheme),
)]
struct Api;

/// The way keys are shown.
struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description =
            Some("A key made with `lattice key create`; its scope is what a route asks for.".into());
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// Why a request is refused.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Failure` writes")]
pub(super) struct Problem {
    error: ProblemError,
    /// What is wrong with single nodes, by their ids; where a prompt is refused.
    #[schema(value_type = Option<Object>)]
    node_errors: Option<Json>,
}

/// The reason.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Failure` writes")]
pub(super) struct ProblemError {
    /// Kind, for programs.
    r#type: String,
    /// Kind, for people.
    message: String,
    /// Which part of the request.
    details: String,
    /// More about it.
    #[schema(value_type = Object)]
    extra_info: Json,
}

/// What a request must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needed {
    /// Anybody may.
    Nothing,
    /// A key of this scope.
    Key(Scope),
}

/// The description of the routes.
pub(super) struct Description {
    document: Vec<u8>,
    /// What a route needs, by path and method.
    needs: HashMap<(String, String), Needed>,
}

/// The description of the routes.
pub(super) fn description() -> &'static Description {
    static DESCRIPTION: LazyLock<Description> = LazyLock::new(|| Description::of(routes().into_openapi()));
    &DESCRIPTION
}

impl Description {
    fn of(api: utoipa::openapi::OpenApi) -> Self {
        let mut document = serde_json::to_value(api).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| ((path.clone(), method.to_uppercase()), needed(operation)))
        });
        let needs = operations.collect();
        if let Some(paths) = document["paths"].as_object_mut() {
            // A parameter that takes in slashes is written like any other in OpenAPI.
            *paths = std::mem::take(paths)
                .into_iter()
                .map(|(path, item)| (path.replace("{*", "{"), item))
                .collect();
        }
        Self { document: document.to_string().into_bytes(), needs }
    }

    /// What a request to a route of ours needs; None if there is no such route.
    pub(super) fn needed(&self, path: &str, method: &Method) -> Option<Needed> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.needs.get(&(path.to_owned(), method.as_str().to_owned())).copied()
    }
}

/// What an operation's description names. Without anything, the highest scope: a route is not to be open by oversight.
fn needed(operation: &Json) -> Needed {
    let requirement = &operation["security"][0];
    if requirement.as_object().is_some_and(serde_json::Map::is_empty) {
        return Needed::Nothing;
    }
    Needed::Key(Scope::deserialize(&requirement["key"][0]).unwrap_or(Scope::Admin))
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation", security(("key" = ["read"])),
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)),
)]
async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], description().document.as_slice()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_says_what_key_it_needs() {
        let document: Json = serde_json::from_slice(&description().document).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let security = operation["security"].as_array();
                let security = security.unwrap_or_else(|| panic!("{method} {path} names no scope"));
                let open = security[0].as_object().unwrap().is_empty();
                let named = Scope::deserialize(&security[0]["key"][0]);
                assert!(open != named.is_ok(), "{method} {path}");
            }
        }
        let needed = |path, method| description().needed(path, &method);
        assert_eq!(needed("/healthz", Method::GET), Some(Needed::Nothing));
        assert_eq!(needed("/metrics", Method::HEAD), Some(Needed::Key(Scope::Read)));
        assert_eq!(needed("/v1/queue/pause", Method::POST), Some(Needed::Key(Scope::Admin)));
        assert_eq!(needed("/v1/queue/prompts/{prompt_id}", Method::PATCH), Some(Needed::Key(Scope::Queue)));
        assert_eq!(needed("/v1/images/generations", Method::POST), Some(Needed::Key(Scope::Queue)));
        assert_eq!(needed("/v1/models/{*model}", Method::GET), Some(Needed::Key(Scope::Read)));
        assert!(document["paths"]["/v1/models/{model}"].is_object());
        assert_eq!(needed("/prompt", Method::POST), None);
    }
}
