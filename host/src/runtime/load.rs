//! From bytes to a component that can be called: checks its format, its imports and exports, and its
//! manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use hyper::Uri;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Code, InstancePre};

use super::Runtime;
use super::bindings::{NotJson, ServicePre};
use super::call::{Call, Scope};
use super::component::Component;
use super::host::HttpAccess;
use super::instance::{CallFailure, Instances};
use super::instance_data::{Identity, InstanceData};
use super::log_quota::LogQuota;
use super::places::Lane;
use crate::contract::{CONFIGURED, HttpOrigin, Manifest, NoOrigin, Schemas};
use crate::error::Fault;
use crate::model::{Digest, Json};

/// The first bytes of every WebAssembly binary. [`COMPONENT_LAYER`] follows in a component, but not in a core
/// module.
const MAGIC: &[u8] = b"\0asm";
const COMPONENT_LAYER: &[u8] = &[0x0d, 0, 1, 0];

/// The interfaces that a component may import besides the contract. Files are linked because adapters of
/// older toolchains import them; there are none to open.
const WASI: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/outgoing-handler@",
    "wasi:http/types@",
    "wasi:io/",
    "wasi:random/",
];
/// The package of the contract, with its version.
const CONTRACT: &str = "kontor:service@0.2.0";

/// The reason why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is native code, which the host never runs.
    #[error(
        "this is precompiled native code, which a host never takes: give it the WebAssembly component itself"
    )]
    Precompiled,
    /// It is something else.
    #[error("this is no WebAssembly file")]
    NotWasm,
    /// It is a core module.
    #[error("this is a core module, not a component: build it for the target wasm32-wasip2")]
    CoreModule,
    /// wasmtime cannot compile it.
    #[error("this component cannot be compiled")]
    Compile(#[source] wasmtime::Error),
    /// It is built for another version of the contract.
    #[error(
        "it is built for {found}, and this host runs {CONTRACT}: build it again with the SDK of this version \
         of Kontor, and deploy that or start a host with it in its directory of plugins"
    )]
    OtherContract {
        /// The contract of the component.
        found: String,
    },
    /// It imports an unknown interface.
    #[error("it imports {0}, which this host does not offer")]
    Import(String),
    /// Its imports or exports differ from the contract's.
    #[error("it does not implement the world kontor:service/service")]
    World(#[source] wasmtime::Error),
    /// The call of `describe` failed.
    #[error("it fails to describe itself")]
    Describe(#[source] Fault),
    /// The call of `describe` was halted as only a saga's run may be.
    #[error("it was halted while it described itself")]
    Halted,
    /// Its manifest contradicts itself. The text says where.
    #[error("its manifest is not sound: {0}")]
    Manifest(String),
    /// A schema in its manifest is not JSON.
    #[error("its manifest is not sound")]
    NotJson(#[source] NotJson),
    /// Its manifest asks for an HTTP origin that is none.
    #[error("its manifest is not sound")]
    Origin(#[source] NoOrigin),
    /// Its manifest asks for the origin of a configured URL, and the configured value is no URL.
    #[error("the configuration {key} of {service} is no URL such as https://payments.example")]
    NoUrl {
        /// The service's name.
        service: String,
        /// The configuration key.
        key: String,
    },
}

/// A compiled component that has not described itself yet.
pub(crate) struct Compiled {
    pre: ServicePre<InstanceData>,
    digest: Digest,
}

impl Runtime {
    /// Compiles, describes and checks a component.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<Component, LoadError> {
        self.describe_and_load(self.compile(wasm).await?).await
    }

    /// Compiles a component. It takes from a fraction of a second to a minute, on background threads.
    pub(crate) async fn compile(&self, wasm: Vec<u8>) -> Result<Compiled, LoadError> {
        check_kind(&wasm)?;
        let digest = Digest::of(&wasm);
        let inner = self.inner.clone();
        let compile = move || {
            let code = inner.cache.compile(&inner.engine, digest, &wasm).map_err(LoadError::Compile)?;
            check_imports(&inner.engine, &code)?;
            let pre: InstancePre<InstanceData> =
                inner.linker.instantiate_pre(&code).map_err(LoadError::World)?;
            ServicePre::new(pre).map_err(LoadError::World)
        };
        let compiled = self.inner.threads.compute(compile).await;
        let panicked = || Err(LoadError::Compile(wasmtime::Error::msg("the compiler panicked")));
        Ok(Compiled { pre: compiled.unwrap_or_else(panicked)?, digest })
    }

    /// Has a component describe itself, and checks its manifest.
    pub(crate) async fn describe_and_load(
        &self,
        Compiled { pre, digest }: Compiled,
    ) -> Result<Component, LoadError> {
        let manifest = Arc::new(self.describe(pre.clone()).await?);
        manifest.check().map_err(LoadError::Manifest)?;
        let config = self.inner.configuration.get(manifest.service.as_str()).cloned().unwrap_or_default();
        let schemas = Schemas::of(&manifest).map_err(LoadError::Manifest)?;
        let http = HttpAccess::new(origins(&manifest, &config)?, &self.inner.limits.http);
        let grants = self.inner.grants.clone();
        let identity = Arc::new(Identity {
            manifest,
            digest,
            config,
            http,
            grants,
            log_quota: LogQuota::default(),
            schemas,
        });
        let instances = Instances::new(self.inner.clone(), pre, Some(identity.clone()));
        Ok(Component::new(identity, instances))
    }

    async fn describe(&self, pre: ServicePre<InstanceData>) -> Result<Manifest, LoadError> {
        let instances = Instances::new(self.inner.clone(), pre, None);
        let scope = Scope {
            call: Call::Describe,
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
            CallFailure::Halted => LoadError::Halted,
        })?;
        manifest.into_host().map_err(LoadError::NotJson)
    }
}

/// Returns the origins that a manifest asks for: those that it names, and those of the URLs that the operator
/// has configured.
fn origins(manifest: &Manifest, config: &BTreeMap<String, Json>) -> Result<Vec<HttpOrigin>, LoadError> {
    let mut origins = Vec::new();
    for asked in &manifest.permissions.http {
        let Some(key) = asked.strip_prefix(CONFIGURED) else {
            origins.push(asked.parse::<HttpOrigin>().map_err(LoadError::Origin)?);
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

/// Fails with the first import that the host does not offer. Linking fails for interfaces in another version.
fn check_imports(engine: &Engine, code: &Code) -> Result<(), LoadError> {
    let component = code.component_type();
    let exports = component.exports(engine).map(|(name, _)| name);
    let mut names = component.imports(engine).map(|(name, _)| name).chain(exports);
    if let Some(found) = names.find_map(other_contract) {
        return Err(LoadError::OtherContract { found });
    }
    let foreign = component.imports(engine).find(|(name, item)| {
        // Those of other versions were refused just before.
        let known = package(name).is_some() || WASI.iter().any(|prefix| name.starts_with(prefix));
        !known || !matches!(item.ty, ComponentItem::ComponentInstance(_))
    });
    foreign.map_or(Ok(()), |(name, _)| Err(LoadError::Import(name.to_owned())))
}

/// Returns the package of an interface of the contract, in whichever version: `kontor:service@0.1.0` for
/// `kontor:service/steps@0.1.0`.
fn package(interface: &str) -> Option<String> {
    let (name, version) = interface.split_once('@')?;
    let (package, _) = name.split_once('/')?;
    (package == "kontor:service").then(|| format!("{package}@{version}"))
}

fn other_contract(interface: &str) -> Option<String> {
    package(interface).filter(|package| package != CONTRACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_that_of_the_wit_package() {
        let wit = include_str!("../../../wit/world.wit");
        assert!(wit.contains(&format!("package {CONTRACT};")));
        for (interface, other) in [
            ("kontor:service/steps@0.1.0", Some("kontor:service@0.1.0")),
            ("kontor:service/steps@0.2.0", None),
            ("wasi:io/poll@0.2.6", None),
            ("elsewhere", None),
        ] {
            assert_eq!(other_contract(interface).as_deref(), other, "{interface}");
        }
    }

    #[test]
    fn only_components_are_accepted() {
        let refusal = |bytes: &[u8]| check_kind(bytes).map_err(|error| error.to_string());
        assert!(refusal(b"\0asm\x0d\0\x01\0").is_ok());
        assert!(refusal(b"\0asm\x01\0\0\0").unwrap_err().contains("core module"));
        assert!(refusal(b"#!/bin/sh").unwrap_err().contains("no WebAssembly file"));
        assert!(refusal(b"").unwrap_err().contains("no WebAssembly file"));
    }
}
