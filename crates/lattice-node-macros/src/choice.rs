//! `#[derive(Choice)]`: an enum as a list of choices.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr};

/// Implements `lattice_nodes::node::Choice` and `FromInput`.
pub(crate) fn derive(item: &DeriveInput) -> syn::Result<TokenStream> {
    let Data::Enum(data) = &item.data else {
        return Err(Error::new_spanned(item, "only an enum is a list of choices"));
    };
    let mut names = Vec::new();
    let mut variants = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a choice has no fields"));
        }
        let attribute = variant.attrs.iter().find(|a| a.path().is_ident("choice"));
        let attribute =
            attribute.ok_or_else(|| Error::new_spanned(variant, "needs #[choice(\"its text\")]"))?;
        names.push(attribute.parse_args::<LitStr>()?);
        variants.push(&variant.ident);
    }
    let ty = &item.ident;
    Ok(quote! {
        impl ::lattice_nodes::node::Choice for #ty {
            const NAMES: &'static [&'static str] = &[#(#names),*];

            fn from_name(name: &str) -> ::core::option::Option<Self> {
                match name {
                    #(#names => ::core::option::Option::Some(Self::#variants),)*
                    _ => ::core::option::Option::None,
                }
            }
        }

        impl ::lattice_nodes::node::FromInput for #ty {
            fn kind() -> ::lattice_nodes::node::InputKind {
                ::lattice_nodes::node::InputKind::Choices(::lattice_nodes::node::choices(
                    <Self as ::lattice_nodes::node::Choice>::NAMES,
                ))
            }

            fn from_input(
                value: ::lattice_nodes::node::Value,
            ) -> ::core::result::Result<Self, ::lattice_nodes::node::Mismatch> {
                ::lattice_nodes::node::choice_from_input(&value)
            }
        }
    })
}
