//! Options of widgets: `key = value` pairs that become a JSON object, in order.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprUnary, Lit, Token, UnOp};

/// One `key = value`; the value is already an expression of type `serde_json::Value`.
#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) value: TokenStream,
}

impl Field {
    pub(crate) fn new(key: &str, value: TokenStream) -> Self {
        Self { key: key.to_owned(), value }
    }
}

impl Parse for Field {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key = input.call(syn::Ident::parse_any)?.unraw().to_string();
        input.parse::<Token![=]>()?;
        Ok(Self { key, value: json(input)? })
    }
}

/// A comma-separated list of fields.
pub(crate) fn fields(input: ParseStream<'_>) -> syn::Result<Vec<Field>> {
    Ok(Punctuated::<Field, Token![,]>::parse_terminated(input)?.into_iter().collect())
}

/// A JSON value: a literal, `[..]`, `{"key": ..}`, or any expression that converts.
fn json(input: ParseStream<'_>) -> syn::Result<TokenStream> {
    if input.peek(syn::token::Brace) || input.peek(syn::token::Bracket) {
        let nested: TokenTree = input.parse()?;
        return Ok(quote!(__node::json!(#nested)));
    }
    let value: Expr = input.parse()?;
    let value = integer(&value)?.unwrap_or_else(|| value.into_token_stream());
    Ok(quote!(__node::Json::from(#value)))
}

/// Integer literals with a suffix wide enough for them: a plain one would be an `i32`.
fn integer(value: &Expr) -> syn::Result<Option<TokenStream>> {
    let (negative, literal) = match value {
        Expr::Lit(e) => (false, &e.lit),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => match &**expr {
            Expr::Lit(e) => (true, &e.lit),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let Lit::Int(literal) = literal else { return Ok(None) };
    let value = literal.base10_parse::<i128>()?;
    if negative {
        let value = i64::try_from(-value).map_err(|e| syn::Error::new(literal.span(), e))?;
        return Ok(Some(quote!(#value)));
    }
    if let Ok(value) = i64::try_from(value) {
        return Ok(Some(quote!(#value)));
    }
    let value = u64::try_from(value).map_err(|e| syn::Error::new(literal.span(), e))?;
    Ok(Some(quote!(#value)))
}

/// The `serde_json::Map` of the fields.
pub(crate) fn object(fields: &[Field]) -> TokenStream {
    let entries = fields.iter().map(|Field { key, value }| quote!((#key, #value)));
    quote!(__node::object([#(#entries),*]))
}

/// The expression of an optional expression.
pub(crate) fn optional(expression: Option<TokenStream>) -> TokenStream {
    expression.map_or_else(
        || quote!(::core::option::Option::None),
        |expression| quote!(::core::option::Option::Some(#expression)),
    )
}
