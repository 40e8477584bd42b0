//! The [`macro@node`] attribute: a documented Rust function becomes a node.
//!
//! ```ignore
//! /// Resizes pictures.
//! #[node(name = "ImageScale", title = "Upscale Image", category = "image/upscaling", module = "nodes")]
//! fn image_scale(
//!     image: Image,
//!     #[choice("nearest-exact", "bilinear", "area", "bicubic", "lanczos")] upscale_method: Resampling,
//!     #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 1)] width: usize,
//!     #[widget(default = 512, min = 0, max = MAX_RESOLUTION, step = 1)] height: usize,
//!     #[choice("disabled", "center")] crop: Crop,
//! ) -> Result<Image> {
//!     ...
//! }
//! ```
//!
//! The function stays as it is and can be called like any other. Beside it appears a module of the same name whose
//! function `class()` makes the `lattice_graph::Node`; `nodes![image_scale, ...]` of `lattice_nodes` collects
//! several. What the attribute cannot express is a compile error at the place that asks for it.
//!
//! # The class: `#[node(...)]`
//!
//! | field | meaning |
//! | --- | --- |
//! | `name = "..."` | class name in prompts (required) |
//! | `category = "a/b"` | menu path (required) |
//! | `module = "..."` | `python_module` that clients display and filter by (required) |
//! | `title = "..."` | display name; without it clients show the class name |
//! | `output_node` | a reason to run a prompt (saves, previews) |
//! | `outputs("a", "b")` | names of the slots, where they are not the type names |
//! | `output_types("A", "B")` | types of the slots, where the Rust types do not tell |
//! | `v3` | a class of the newer style: its entry always says whether it is deprecated, experimental, an API node |
//! | `deprecated`, `experimental` | flags of the entry |
//! | `hidden(prompt, extra_pnginfo, unique_id)` | hidden inputs declared to clients; the values come from the context |
//! | `input_is_list` | called once with all inputs as lists: `Vec<T>` parameters; a plain `T` gets the first element |
//! | `not_idempotent` | never share a result between two nodes of the class |
//! | `extra(key = json, ...)` | further fields of the entry, in order |
//! | `fingerprint = path` | `fn(&Extensions, &Inputs) -> Result<Json, E>`: what the result depends on beside the inputs |
//! | `validate(input, ..., with = path)` | `fn(&Extensions, &Inputs) -> Result<(), String>`: judges the named inputs itself |
//! | `lazy = path` | `fn(&CallContext<'_>, &Inputs) -> Result<Vec<String>, E>`: names of lazy inputs needed next |
//!
//! The doc comment of the function is the description.
//!
//! # Inputs: parameters
//!
//! The Rust type gives the graph type (`lattice_nodes::node::FromInput`): `usize`, `i64`, `u64` INT; `f64` FLOAT;
//! `bool` BOOLEAN; `String`, `&str` STRING; `Image` IMAGE, and so on; `Value` takes anything (`*`). A parameter may be
//! a reference. `Option<T>` is an optional input, absent or null as `None`: the function has its own default. Special
//! parameters are the context, `&CallContext<'_>`, and `Inputs` with `#[rest(f)]`: all the inputs that
//! `fn f() -> Vec<InputSpec>` declares.
//!
//! | attribute | meaning |
//! | --- | --- |
//! | `#[widget(default = 1, min = 0, tooltip = "...")]` | the options, any JSON, in that order. Constants and nested `[..]`, `{"k": ..}` work |
//! | `#[widget]` | an empty options object; without the attribute there is none |
//! | `/// text` | the tooltip, last of the options (and makes an options object) |
//! | `#[choice("a", "b")]`, `#[choice(LIST)]` | a list of choices that prompts are checked against |
//! | `#[choice(files = "loras")]` | the files of a model folder |
//! | `#[choice(from = path)]` | `fn(&Extensions) -> Vec<String>` |
//! | `#[combo(...)]` | the same for newer-style combos: options `multiselect`, `options` follow `default` |
//! | `#[kind("INT,FLOAT")]` | another type name than the Rust type's |
//! | `#[name("Y")]` | another name than the parameter's (`r#type` is `type` by itself) |
//!
//! A type with `#[derive(Choice)]` is a list of choices by itself; `#[choice(..)]` beside it may narrow the list.
//!
//! # Results
//!
//! The function returns `T` or `Result<T, E>` with `E: Into<NodeError>`. `T` is a value, a tuple of values, `()`,
//! `Ui` (UI output only), `WithUi<T>` (both) or a `NodeOutput`. `Vec<V>` is a list slot.

mod attribute;
mod choice;
mod expand;
mod input;
mod options;

use proc_macro::TokenStream;

/// Makes a function a node. See the [crate] page.
#[proc_macro_attribute]
pub fn node(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let attribute = syn::parse_macro_input!(attribute as attribute::Class);
    let function = syn::parse_macro_input!(item as syn::ItemFn);
    expand::node(&attribute, function).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an enum without fields a list of choices: each variant carries its text, `#[choice("nearest-exact")]`.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn choice(item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    choice::derive(&item).unwrap_or_else(syn::Error::into_compile_error).into()
}
