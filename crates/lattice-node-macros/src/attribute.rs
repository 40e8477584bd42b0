//! The fields of `#[node(...)]`.

use proc_macro2::Span;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitStr, Path, Token, parenthesized};

use crate::options::Field;

/// Declaration of the class, but for what the function itself tells.
pub(crate) struct Class {
    pub(crate) name: LitStr,
    pub(crate) title: Option<LitStr>,
    pub(crate) category: LitStr,
    pub(crate) module: LitStr,
    pub(crate) flags: Flags,
    pub(crate) outputs: Vec<LitStr>,
    pub(crate) output_types: Vec<LitStr>,
    pub(crate) hidden: Vec<Ident>,
    pub(crate) extra: Vec<Field>,
    pub(crate) fingerprint: Option<Path>,
    pub(crate) lazy: Option<Path>,
    pub(crate) validate: Option<Validate>,
}

/// Bare words.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // one per bare word
pub(crate) struct Flags {
    pub(crate) output_node: bool,
    pub(crate) v3: bool,
    pub(crate) deprecated: bool,
    pub(crate) experimental: bool,
    pub(crate) input_is_list: bool,
    pub(crate) not_idempotent: bool,
}

/// `validate(input, ..., with = path)`.
pub(crate) struct Validate {
    pub(crate) inputs: Vec<String>,
    pub(crate) with: Path,
}

impl Parse for Validate {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut inputs = Vec::new();
        loop {
            let name = input.call(Ident::parse_any)?;
            if name == "with" && input.peek(Token![=]) {
                input.parse::<Token![=]>()?;
                return Ok(Self { inputs, with: input.parse()? });
            }
            inputs.push(name.unraw().to_string());
            input.parse::<Token![,]>()?;
        }
    }
}

impl Class {
    /// The flags that the entry shows after the common fields, then the further ones.
    pub(crate) fn extra_fields(&self) -> Vec<Field> {
        let flags = &self.flags;
        let all =
            [("deprecated", flags.deprecated), ("experimental", flags.experimental), ("api_node", false)];
        let shown = all.into_iter().filter(|&(_, set)| set || flags.v3);
        let shown = shown.map(|(key, set)| Field::new(key, quote!(__node::Json::from(#set))));
        shown.chain(self.extra.iter().cloned()).collect()
    }
}

impl Parse for Class {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut name, mut title, mut category, mut module) = (None, None, None, None);
        let (mut outputs, mut output_types, mut hidden, mut extra) = (vec![], vec![], vec![], vec![]);
        let (mut fingerprint, mut lazy, mut validate) = (None, None, None);
        let mut flags = Flags::default();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "name" => name = Some(assigned(input)?),
                "title" => title = Some(assigned(input)?),
                "category" => category = Some(assigned(input)?),
                "module" => module = Some(assigned(input)?),
                "fingerprint" => fingerprint = Some(assigned(input)?),
                "lazy" => lazy = Some(assigned(input)?),
                "outputs" => outputs = listed(input)?,
                "output_types" => output_types = listed(input)?,
                "hidden" => hidden = listed(input)?,
                "extra" => extra = listed(input)?,
                "validate" => {
                    let content;
                    parenthesized!(content in input);
                    validate = Some(content.parse()?);
                }
                "output_node" => flags.output_node = true,
                "v3" => flags.v3 = true,
                "deprecated" => flags.deprecated = true,
                "experimental" => flags.experimental = true,
                "input_is_list" => flags.input_is_list = true,
                "not_idempotent" => flags.not_idempotent = true,
                other => return Err(Error::new(key.span(), format!("`{other}` is no field of #[node]"))),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let needed = |field: Option<LitStr>, what: &str| {
            field.ok_or_else(|| Error::new(Span::call_site(), format!("#[node] needs `{what} = \"...\"`")))
        };
        Ok(Self {
            name: needed(name, "name")?,
            title,
            category: needed(category, "category")?,
            module: needed(module, "module")?,
            flags,
            outputs,
            output_types,
            hidden,
            extra,
            fingerprint,
            lazy,
            validate,
        })
    }
}

fn assigned<T: Parse>(input: ParseStream<'_>) -> syn::Result<T> {
    input.parse::<Token![=]>()?;
    input.parse()
}

fn listed<T: Parse>(input: ParseStream<'_>) -> syn::Result<Vec<T>> {
    let content;
    parenthesized!(content in input);
    Ok(Punctuated::<T, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}
