//! Parameters of the function: inputs and the context.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, Lit, LitStr, Meta, Pat, Path,
    PathArguments, Token, Type, parse_quote,
};

use crate::options::{self, Field};

/// One parameter, its own attributes removed.
pub(crate) enum Parameter {
    /// `&CallContext<'_>`.
    Context,
    /// `#[rest(f)] inputs: Inputs`.
    Rest { declared_by: Path },
    /// An input.
    Input(Box<Input>),
}

/// One input.
pub(crate) struct Input {
    pub(crate) name: String,
    /// The type of a single value, without `Option`, `Vec` or `&`.
    pub(crate) ty: Type,
    pub(crate) shape: Shape,
    /// Passed by reference.
    pub(crate) by_reference: bool,
    /// Other than the type's own kind.
    pub(crate) kind: Option<TokenStream>,
    pub(crate) options: Option<Vec<Field>>,
}

/// How often the value occurs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Optional,
    List,
}

impl Parameter {
    /// Reads a parameter and takes the attributes that are the macro's own off it.
    pub(crate) fn take(argument: &mut FnArg) -> syn::Result<Self> {
        let FnArg::Typed(argument) = argument else {
            return Err(Error::new(argument.span(), "a node is a free function"));
        };
        let Pat::Ident(pattern) = &*argument.pat else {
            return Err(Error::new(argument.pat.span(), "a node's parameter is a plain name"));
        };
        if is_named(&argument.ty, "CallContext") {
            return Ok(Self::Context);
        }
        let mut attributes = Attributes::default();
        for attribute in std::mem::take(&mut argument.attrs) {
            if !attributes.read(&attribute)? {
                argument.attrs.push(attribute);
            }
        }
        if let Some(declared_by) = attributes.rest {
            return Ok(Self::Rest { declared_by });
        }
        let (ty, shape, by_reference) = unwrap(&argument.ty);
        let name = attributes.name.unwrap_or_else(|| name_of(&pattern.ident));
        let mut options = attributes.options;
        if attributes.combo {
            add_combo_options(options.get_or_insert_default());
        }
        if let Some(tooltip) = documentation(&attributes.docs) {
            options.get_or_insert_default().push(Field::new("tooltip", quote!(__node::Json::from(#tooltip))));
        }
        Ok(Self::Input(Box::new(Input { name, ty, shape, by_reference, kind: attributes.kind, options })))
    }
}

/// Attributes of a parameter.
#[derive(Default)]
struct Attributes {
    name: Option<String>,
    kind: Option<TokenStream>,
    combo: bool,
    options: Option<Vec<Field>>,
    rest: Option<Path>,
    docs: Vec<Attribute>,
}

impl Attributes {
    /// Reads one attribute; false if it is someone else's.
    fn read(&mut self, attribute: &Attribute) -> syn::Result<bool> {
        let Some(which) = attribute.path().get_ident().map(Ident::to_string) else { return Ok(false) };
        match which.as_str() {
            "doc" => self.docs.push(attribute.clone()),
            "name" => self.name = Some(attribute.parse_args::<LitStr>()?.value()),
            "kind" => {
                let name: LitStr = attribute.parse_args()?;
                self.kind = Some(quote!(__node::InputKind::Type(#name.into())));
            }
            "widget" => {
                self.options = Some(match attribute.meta {
                    Meta::Path(_) => Vec::new(),
                    _ => attribute.parse_args_with(options::fields)?,
                });
            }
            "choice" => {
                let choices = attribute.parse_args_with(choices)?;
                self.kind = Some(quote!(__node::InputKind::Choices(#choices)));
            }
            "combo" => {
                let choices = attribute.parse_args_with(choices)?;
                self.kind = Some(quote!(__node::InputKind::Combo(#choices)));
                self.combo = true;
            }
            "rest" => self.rest = Some(attribute.parse_args()?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `"a", "b"`, one expression that is a list, `files = "kind"` or `from = path`.
fn choices(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    if input.peek(Ident) && input.peek2(Token![=]) {
        let source: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        let value: Expr = input.parse()?;
        return match source.to_string().as_str() {
            "files" => Ok(quote!(__node::files(#value))),
            "from" => Ok(quote!(__node::listed_by(#value))),
            _ => {
                Err(Error::new(source.span(), "choices come from `files = \"folder\"` or `from = function`"))
            }
        };
    }
    let list = Punctuated::<Expr, Token![,]>::parse_terminated(input)?;
    Ok(match list.first() {
        Some(only) if list.len() == 1 && !is_text(only) => quote!(__node::choices(#only)),
        _ => quote!(__node::choices([#list])),
    })
}

fn is_text(expression: &Expr) -> bool {
    matches!(expression, Expr::Lit(ExprLit { lit: Lit::Str(_), .. }))
}

/// `multiselect` and (filled in by the spec) `options` stand after `default`, before the rest.
fn add_combo_options(options: &mut Vec<Field>) {
    let place = options.iter().take_while(|o| o.key == "default").count();
    let fields = [
        Field::new("multiselect", quote!(__node::Json::from(false))),
        Field::new("options", quote!(__node::Json::Array(::std::vec![]))),
    ];
    options.splice(place..place, fields);
}

fn name_of(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// The text of doc comments: lines of a paragraph joined, an empty line between paragraphs.
pub(crate) fn documentation(attributes: &[Attribute]) -> Option<String> {
    let lines = attributes.iter().filter(|a| a.path().is_ident("doc")).filter_map(|a| match &a.meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<String> = lines.collect();
    let paragraphs: Vec<String> = lines.split(String::is_empty).map(|p| p.join(" ")).collect();
    let text = paragraphs.join("\n\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Whether a type, references aside, is a path ending in that name.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    match ty {
        Type::Reference(r) => is_named(&r.elem, name),
        Type::Path(p) => p.path.segments.last().is_some_and(|s| s.ident == name),
        _ => false,
    }
}

/// Takes references, `Option` and `Vec` off; `&str` is a `String` and `&[T]` a `Vec<T>` passed by reference.
fn unwrap(ty: &Type) -> (Type, Shape, bool) {
    if let Type::Reference(reference) = ty {
        return match &*reference.elem {
            Type::Slice(slice) => ((*slice.elem).clone(), Shape::List, true),
            Type::Path(p) if p.path.is_ident("str") => {
                (parse_quote!(::std::string::String), Shape::One, true)
            }
            inner => {
                let (ty, shape, _) = unwrap(inner);
                (ty, shape, true)
            }
        };
    }
    for (name, shape) in [("Option", Shape::Optional), ("Vec", Shape::List)] {
        if is_named(ty, name)
            && let Type::Path(path) = ty
            && let Some(segment) = path.path.segments.last()
            && let PathArguments::AngleBracketed(arguments) = &segment.arguments
            && let Some(GenericArgument::Type(inner)) = arguments.args.first()
        {
            return (inner.clone(), shape, false);
        }
    }
    (ty.clone(), Shape::One, false)
}

impl Input {
    /// The `InputSpec` of this input.
    pub(crate) fn spec(&self) -> TokenStream {
        let Self { name, ty, kind, options, shape, .. } = self;
        let optional = *shape == Shape::Optional;
        let kind = kind.clone().unwrap_or_else(|| quote!(<#ty as __node::FromInput>::kind()));
        let options = options::optional(options.as_deref().map(options::object));
        quote! {
            inputs.push(__node::InputSpec { name: #name.into(), kind: #kind, optional: #optional, options: #options });
        }
    }

    /// Takes the value out of `arguments`.
    pub(crate) fn extract(&self, input_is_list: bool) -> TokenStream {
        let Self { name, ty, .. } = self;
        match (self.shape, input_is_list) {
            (Shape::One, _) => quote!(arguments.one::<#ty>(#name)?),
            (Shape::Optional, _) => quote!(arguments.optional::<#ty>(#name)?),
            (Shape::List, true) => quote!(arguments.list::<#ty>(#name)?),
            (Shape::List, false) => {
                Error::new(self.ty.span(), "a list parameter needs `input_is_list`").into_compile_error()
            }
        }
    }

    /// How the function takes the extracted `value`.
    pub(crate) fn pass(&self, value: &Ident) -> TokenStream {
        if self.by_reference { quote!(&#value) } else { value.into_token_stream() }
    }
}
