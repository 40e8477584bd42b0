//! The code beside the function: its class.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ItemFn, ReturnType};

use crate::attribute::{Class, Validate};
use crate::input::{Parameter, documentation};
use crate::options;

/// The function with the macro's own attributes taken off, and the module with its class.
pub(crate) fn node(class: &Class, mut function: ItemFn) -> syn::Result<TokenStream> {
    if let Some(asyncness) = function.sig.asyncness {
        return Err(Error::new(
            asyncness.span,
            "a node is not async: the engine runs it on a thread of its own",
        ));
    }
    let parameters = function.sig.inputs.iter_mut().map(Parameter::take).collect::<syn::Result<Vec<_>>>()?;
    let (vis, name) = (&function.vis, &function.sig.ident);
    let spec = spec(class, &function, &parameters);
    let methods = methods(class, &function, &parameters);
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(unused_imports, unused_mut, unused_variables, missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
        #vis mod #name {
            use super::*;
            use ::lattice_nodes::node as __node;

            struct Class(__node::NodeSpec);

            /// The node class.
            pub fn class() -> ::std::sync::Arc<dyn __node::Node> {
                ::std::sync::Arc::new(Class(#spec))
            }

            impl __node::Node for Class {
                fn spec(&self) -> &__node::NodeSpec {
                    &self.0
                }

                #methods
            }
        }
    })
}

/// The `NodeSpec` expression.
fn spec(class: &Class, function: &ItemFn, parameters: &[Parameter]) -> TokenStream {
    let Class { name, category, module, outputs, output_types, hidden, .. } = class;
    let flags = &class.flags;
    let (output_node, input_is_list, not_idempotent) =
        (flags.output_node, flags.input_is_list, flags.not_idempotent);
    let title = options::optional(class.title.as_ref().map(|title| quote!(#title.into())));
    let description = documentation(&function.attrs).unwrap_or_default();
    let inputs = parameters.iter().map(|parameter| match parameter {
        Parameter::Context => TokenStream::new(),
        Parameter::Rest { declared_by } => quote!(inputs.extend(#declared_by());),
        Parameter::Input(input) => input.spec(),
    });
    let hidden = hidden.iter().map(|name| {
        let (name, kind) = (name.to_string(), name.to_string().to_uppercase());
        quote!((#name.into(), #kind.into()))
    });
    let result = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let extra = options::object(&class.extra_fields());
    quote! {
        __node::NodeSpec {
            name: #name.into(),
            display_name: #title,
            description: #description.into(),
            category: #category.into(),
            module: #module.into(),
            inputs: {
                let mut inputs = ::std::vec::Vec::new();
                #(#inputs)*
                inputs
            },
            hidden: ::std::vec![#(#hidden),*],
            outputs: __node::output_specs::<#result>(&[#(#outputs),*], &[#(#output_types),*]),
            output_node: #output_node,
            input_is_list: #input_is_list,
            not_idempotent: #not_idempotent,
            is_async: false,
            extra: #extra,
        }
    }
}

/// The methods of the `Node` implementation beside `spec`.
fn methods(class: &Class, function: &ItemFn, parameters: &[Parameter]) -> TokenStream {
    let call = call(class, function, parameters);
    let fingerprint = class.fingerprint.as_ref().map(|path| {
        quote! {
            fn fingerprint(
                &self, extensions: &__node::Extensions, inputs: &__node::Inputs,
            ) -> ::core::option::Option<::core::result::Result<__node::Json, __node::NodeError>> {
                ::core::option::Option::Some(#path(extensions, inputs).map_err(::core::convert::Into::into))
            }
        }
    });
    let lazy = class.lazy.as_ref().map(|path| {
        quote! {
            fn check_lazy(
                &self, ctx: &__node::CallContext<'_>, inputs: &__node::Inputs,
            ) -> ::core::option::Option<
                ::core::result::Result<::std::vec::Vec<::std::string::String>, __node::NodeError>,
            > {
                ::core::option::Option::Some(#path(ctx, inputs).map_err(::core::convert::Into::into))
            }
        }
    });
    let validate = class.validate.as_ref().map(|Validate { inputs, with }| {
        quote! {
            fn validated_inputs(&self) -> &[&str] {
                &[#(#inputs),*]
            }

            fn validate(
                &self, extensions: &__node::Extensions, inputs: &__node::Inputs,
            ) -> ::core::result::Result<(), ::std::string::String> {
                #with(extensions, inputs)
            }
        }
    });
    quote!(#call #fingerprint #lazy #validate)
}

/// `call`, or `call_list` for classes that take lists.
fn call(class: &Class, function: &ItemFn, parameters: &[Parameter]) -> TokenStream {
    let lists = class.flags.input_is_list;
    let name = &function.sig.ident;
    let values: Vec<_> = (0..parameters.len()).map(|i| format_ident!("value{i}")).collect();
    let lets = parameters.iter().zip(&values).map(|(parameter, value)| match parameter {
        Parameter::Context => TokenStream::new(),
        Parameter::Rest { .. } => quote!(let #value = arguments.rest();),
        Parameter::Input(input) => {
            let extract = input.extract(lists);
            quote!(let #value = #extract;)
        }
    });
    let pass = parameters.iter().zip(&values).map(|(parameter, value)| match parameter {
        Parameter::Context => quote!(ctx),
        Parameter::Rest { .. } => quote!(#value),
        Parameter::Input(input) => input.pass(value),
    });
    let body = quote! {
        #(#lets)*
        __node::finish(super::#name(#(#pass),*))
    };
    let result = quote!(::core::result::Result<__node::NodeOutput, __node::NodeError>);
    if lists {
        quote! {
            fn call(&self, _: &__node::CallContext<'_>, _: __node::Inputs) -> #result {
                ::core::result::Result::Err(__node::takes_lists(&self.0))
            }

            fn call_list(&self, ctx: &__node::CallContext<'_>, inputs: __node::ListInputs) -> #result {
                let mut arguments = __node::ListArguments::new(inputs);
                #body
            }
        }
    } else {
        quote! {
            fn call(&self, ctx: &__node::CallContext<'_>, inputs: __node::Inputs) -> #result {
                let mut arguments = __node::Arguments::new(inputs);
                #body
            }
        }
    }
}
