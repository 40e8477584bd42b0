//! `/object_info`.
//!
//! The official front end takes some loaders for granted: without their declarations it cannot make a single list of
//! models. Where the library has no such node (yet), its declaration is sent all the same, marked as out of use so that
//! nobody is offered it; a prompt that uses it is refused with the name of the class.

use axum::extract::{Path, State};

use serde_json::{Value as Json, json};

use super::AppState;
use super::reply::{Reply, Result, blocking};
use crate::app::App;

/// A loader that front ends take for granted.
struct Loader {
    class: &'static str,
    input: &'static str,
    /// The kind of models that it would load.
    models: &'static str,
    output: &'static str,
    module: &'static str,
}

const LOADERS: [Loader; 4] = [
    Loader {
        class: "ControlNetLoader",
        input: "control_net_name",
        models: "controlnet",
        output: "CONTROL_NET",
        module: "nodes",
    },
    Loader {
        class: "GLIGENLoader",
        input: "gligen_name",
        models: "gligen",
        output: "GLIGEN",
        module: "nodes",
    },
    Loader {
        class: "StyleModelLoader",
        input: "style_model_name",
        models: "style_models",
        output: "STYLE_MODEL",
        module: "nodes",
    },
    Loader {
        class: "UpscaleModelLoader",
        input: "model_name",
        models: "upscale_models",
        output: "UPSCALE_MODEL",
        module: "comfy_extras.nodes_upscale_model",
    },
];

impl Loader {
    fn declaration(&self, app: &App) -> Json {
        json!({
            "input": { "required": { self.input: [app.host.models(self.models)] } },
            "input_order": { "required": [self.input] },
            "output": [self.output],
            "output_is_list": [false],
            "output_name": [self.output],
            "name": self.class,
            "display_name": format!("{} (not in this version of Lattice)", self.class),
            "description": "Lattice cannot use such models yet.",
            "python_module": self.module,
            "category": "loaders",
            "output_node": false,
            "deprecated": true,
        })
    }
}

/// Those that the library does not have.
fn absent(app: &App) -> impl Iterator<Item = &'static Loader> {
    LOADERS.iter().filter(|loader| app.registry.get(loader.class).is_none())
}

/// `GET /object_info`: all node classes.
pub(super) async fn all(State(app): AppState) -> Result {
    // Lists of files are read anew each time.
    blocking(move || {
        let mut info = app.registry.object_info(&app.extensions);
        for loader in absent(&app) {
            info.insert(loader.class.to_owned(), loader.declaration(&app));
        }
        Ok(Reply::json(&info))
    })
    .await
}

/// `GET /object_info/{class}`: one class, or nothing.
pub(super) async fn one(State(app): AppState, Path(class): Path<String>) -> Result {
    blocking(move || {
        let mut info = app.registry.object_info_of(&class, &app.extensions);
        if let Some(loader) = absent(&app).find(|loader| loader.class == class) {
            info.insert(class, loader.declaration(&app));
        }
        Ok(Reply::json(&info))
    })
    .await
}
