//! `/object_info`.
//!
//! The official front end takes the loader of GLIGEN models for granted: without its declaration it cannot make a single
//! list of models. As the library has no such node (yet), its declaration is sent all the same, marked as out of use so that
//! nobody is offered it; a prompt that uses it is refused with the name of the class.

use axum::extract::{Path, State};

use serde_json::{Value as Json, json};

use super::AppState;
use super::reply::{Reply, Result, blocking};
use crate::app::App;

/// The class, if the library does not have it.
fn absent(app: &App) -> Option<&'static str> {
    const CLASS: &str = "GLIGENLoader";
    app.registry.get(CLASS).is_none().then_some(CLASS)
}

fn declaration(app: &App, class: &str) -> Json {
    json!({
        "input": { "required": { "gligen_name": [app.host.models("gligen")] } },
        "input_order": { "required": ["gligen_name"] },
        "output": ["GLIGEN"],
        "output_is_list": [false],
        "output_name": ["GLIGEN"],
        "name": class,
        "display_name": format!("{class} (not in this version of Lattice)"),
        "description": "Lattice cannot use such models yet.",
        "python_module": "nodes",
        "category": "loaders",
        "output_node": false,
        "deprecated": true,
    })
}

/// `GET /object_info`: all node classes.
pub(super) async fn all(State(app): AppState) -> Result {
    // Lists of files are read anew each time.
    blocking(move || {
        let mut info = app.registry.object_info(&app.extensions);
        if let Some(class) = absent(&app) {
            info.insert(class.to_owned(), declaration(&app, class));
        }
        Ok(Reply::json(&info))
    })
    .await
}

/// `GET /object_info/{class}`: one class, or nothing.
pub(super) async fn one(State(app): AppState, Path(class): Path<String>) -> Result {
    blocking(move || {
        let mut info = app.registry.object_info_of(&class, &app.extensions);
        if absent(&app) == Some(class.as_str()) {
            info.insert(class.clone(), declaration(&app, &class));
        }
        Ok(Reply::json(&info))
    })
    .await
}
