//! The contract in `wit/` as `wit-bindgen` translates it. Services do not use it directly.

#![allow(missing_docs, unreachable_pub, clippy::too_many_lines, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit",
    world: "service",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "kontor_sdk::bindings",
});
