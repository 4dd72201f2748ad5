//! From bytes to a component that may be called: what it is, what it imports and exports, what it says about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use hyper::Uri;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Code, InstancePre};

use super::Runtime;
use super::bindings::ServicePre;
use super::component::Component;
use super::guest::{Identity, InstanceData, Scope};
use super::host::HttpAccess;
use super::instance::{CallFailure, Instances, Lane};
use crate::contract::{CONFIGURED, HttpOrigin, Manifest};
use crate::error::Fault;
use crate::model::{Digest, Json};

/// The first bytes of every WebAssembly binary, then what tells a component from a core module.
const MAGIC: &[u8] = b"\0asm";
const COMPONENT_LAYER: &[u8] = &[0x0d, 0, 1, 0];

/// What a component may import besides the contract. Files are linked because adapters of older toolchains import them;
/// there are none to open.
const WASI: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/outgoing-handler@",
    "wasi:http/types@",
    "wasi:io/",
    "wasi:random/",
];
const CONTRACT: &str = "kontor:service/";

/// Why a file does not run here.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "this is precompiled native code, which a host never takes: give it the WebAssembly component itself"
    )]
    Precompiled,
    #[error("this is no WebAssembly file")]
    NotWasm,
    #[error("this is a core module, not a component: build it for the target wasm32-wasip2")]
    CoreModule,
    #[error("this component cannot be compiled")]
    Compile(#[source] wasmtime::Error),
    #[error("it imports {0}, which this host does not offer")]
    Import(String),
    #[error("it does not implement the world kontor:service/service")]
    World(#[source] wasmtime::Error),
    #[error("it fails to describe itself")]
    Describe(#[source] Fault),
    #[error("its manifest is not sound: {0}")]
    Manifest(String),
    #[error("the configuration {key} of {service} is no URL such as https://payments.example")]
    NoUrl { service: String, key: String },
}

/// A component that is compiled and has said nothing of itself yet.
pub(crate) struct Compiled {
    pre: ServicePre<InstanceData>,
    digest: Digest,
}

impl Runtime {
    /// Takes a component in.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<Component, LoadError> {
        self.introduce(self.compile(wasm).await?).await
    }

    /// Compiles a component. That takes from a fraction of a second to a minute, and leaves the processor to whoever needs it.
    pub(crate) async fn compile(&self, wasm: Vec<u8>) -> Result<Compiled, LoadError> {
        check_kind(&wasm)?;
        let digest = Digest::of(&wasm);
        let shared = self.shared.clone();
        let compile = move || {
            let code = shared.cache.compile(&shared.engine, digest, &wasm).map_err(LoadError::Compile)?;
            check_imports(&shared.engine, &code)?;
            let pre: InstancePre<InstanceData> =
                shared.linker.instantiate_pre(&code).map_err(LoadError::World)?;
            ServicePre::new(pre).map_err(LoadError::World)
        };
        let compiled = self.shared.threads.compute(compile).await;
        let panicked = || Err(LoadError::Compile(wasmtime::Error::msg("the compiler has panicked")));
        Ok(Compiled { pre: compiled.unwrap_or_else(panicked)?, digest })
    }

    /// Has a component say what it is.
    pub(crate) async fn introduce(&self, Compiled { pre, digest }: Compiled) -> Result<Component, LoadError> {
        let manifest = Arc::new(self.describe(pre.clone()).await?);
        manifest.check().map_err(LoadError::Manifest)?;
        let config = self.shared.configuration.get(manifest.service.as_str()).cloned().unwrap_or_default();
        let http = HttpAccess::new(origins(&manifest, &config)?, &self.shared.limits.http);
        let identity = Arc::new(Identity { manifest, digest, config, http });
        let instances = Instances::new(self.shared.clone(), pre, Some(identity.clone()));
        Ok(Component::new(identity, instances))
    }

    async fn describe(&self, pre: ServicePre<InstanceData>) -> Result<Manifest, LoadError> {
        let instances = Instances::new(self.shared.clone(), pre, None);
        let scope = Scope {
            operation: "describe",
            subject: "itself".into(),
            id: "describe".into(),
            ..Scope::default()
        };
        let (described, _) = instances
            .call(Lane::Background, scope, |service, store| {
                async move { service.kontor_service_manifest().call_describe(store).await }.boxed()
            })
            .await;
        let manifest = described.map_err(|failure| match failure {
            CallFailure::Fault(fault) => LoadError::Describe(fault),
            CallFailure::Halted => LoadError::Manifest("describe was halted".to_owned()),
        })?;
        manifest.into_host().map_err(|error| LoadError::Manifest(error.to_string()))
    }
}

/// The origins that a manifest asks for: those that it names, and those of the URLs that the operator has configured.
fn origins(manifest: &Manifest, config: &BTreeMap<String, Json>) -> Result<Vec<HttpOrigin>, LoadError> {
    let mut origins = Vec::new();
    for asked in &manifest.permissions.http {
        let Some(key) = asked.strip_prefix(CONFIGURED) else {
            let origin =
                asked.parse::<HttpOrigin>().map_err(|error| LoadError::Manifest(error.to_string()))?;
            origins.push(origin);
            continue;
        };
        if let Some(url) = config.get(key) {
            let url: Option<Uri> = url.read::<String>().ok().and_then(|url| url.parse().ok());
            let no_url = || LoadError::NoUrl { service: manifest.service.to_string(), key: key.to_owned() };
            origins.push(url.as_ref().and_then(HttpOrigin::of).ok_or_else(no_url)?);
        }
    }
    Ok(origins)
}

fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    let version = bytes.strip_prefix(MAGIC).ok_or(LoadError::NotWasm)?;
    if version.starts_with(COMPONENT_LAYER) { Ok(()) } else { Err(LoadError::CoreModule) }
}

/// Names the first import that the host does not have. (What it has in another version, linking refuses.)
fn check_imports(engine: &Engine, code: &Code) -> Result<(), LoadError> {
    let component = code.component_type();
    let foreign = component.imports(engine).find(|(name, item)| {
        let known = name.starts_with(CONTRACT) || WASI.iter().any(|prefix| name.starts_with(prefix));
        !known || !matches!(item.ty, ComponentItem::ComponentInstance(_))
    });
    foreign.map_or(Ok(()), |(name, _)| Err(LoadError::Import(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_components_are_taken() {
        let refusal = |bytes: &[u8]| check_kind(bytes).map_err(|error| error.to_string());
        assert!(refusal(b"\0asm\x0d\0\x01\0").is_ok());
        assert!(refusal(b"\0asm\x01\0\0\0").unwrap_err().contains("core module"));
        assert!(refusal(b"#!/bin/sh").unwrap_err().contains("no WebAssembly file"));
        assert!(refusal(b"").unwrap_err().contains("no WebAssembly file"));
    }
}
