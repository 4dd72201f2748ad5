//! Components, and requests that deploy them.

use std::fs;

use kontor::model::Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Client, Reply};
use super::{Site, built};

/// The placeholder for the name of a variant in the fixture `next-inventory`.
const VARIANT: &[u8] = b"variant of next-inventory:next.........";

/// The grants with which the fixture `thanks` is deployed.
pub(crate) const FOR_THANKS: &str = "?grant=event:product.product-registered";
/// The grants with which the fixture `unruly` is deployed.
pub(crate) const FOR_UNRULY: &str = "?grant=service:oracle&grant=service:inventory";

/// Returns the query string that grants these permissions.
pub(crate) fn granting(grants: &[&str]) -> String {
    format!("?{}", grants.iter().map(|grant| format!("grant={grant}")).collect::<Vec<_>>().join("&"))
}

/// Returns a component of the shop.
pub(crate) fn plugin(service: &str) -> Vec<u8> {
    fs::read(built("plugins").join(format!("{service}.wasm"))).unwrap()
}

/// Returns a component that only tests use.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    fs::read(built("fixtures").join(format!("{name}.wasm"))).expect("run `cargo xtask build` first")
}

/// Returns the fixture `next-inventory` as one of its variants.
pub(crate) fn next_inventory(variant: &str) -> Vec<u8> {
    let mut wasm = fixture("next-inventory");
    let place = wasm.windows(VARIANT.len()).position(|bytes| bytes == VARIANT).unwrap();
    let name = place + VARIANT.iter().position(|byte| *byte == b':').unwrap() + 1;
    wasm[name..place + VARIANT.len()].fill(b'.');
    wasm[name..][..variant.len()].copy_from_slice(variant.as_bytes());
    wasm
}

/// Returns the same component with another digest: the custom section at its end changes nothing that runs.
pub(crate) fn rebuilt(mut wasm: Vec<u8>) -> Vec<u8> {
    wasm.extend(b"\0\x06\x05again");
    wasm
}

/// Returns a component with another text of the same length in the place of each of these.
pub(crate) fn renamed(mut wasm: Vec<u8>, text: &str, other: &str) -> Vec<u8> {
    assert_eq!(text.len(), other.len());
    let places: Vec<_> = (0..wasm.len()).filter(|at| wasm[*at..].starts_with(text.as_bytes())).collect();
    places.iter().for_each(|at| wasm[*at..at + text.len()].copy_from_slice(other.as_bytes()));
    wasm
}

/// Returns a folder with these components, each under its service's name.
pub(crate) fn folder(components: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (service, wasm) in components {
        fs::write(folder.path().join(format!("{service}.wasm")), wasm).unwrap();
    }
    folder
}

/// Returns a site whose plugins directory holds these components.
pub(crate) fn site(components: &[(&str, Vec<u8>)], configuration: &str) -> (Site, TempDir) {
    let plugins = folder(components);
    (Site::with_plugins(plugins.path(), configuration), plugins)
}

/// Returns a site with only the inventory.
pub(crate) fn inventory() -> (Site, TempDir) {
    site(&[("inventory", plugin("inventory"))], "")
}

/// Returns the digest of a component in the form of [`Client::digest`].
pub(crate) fn digest_of(wasm: &[u8]) -> Option<String> {
    Some(Digest::of(wasm).to_string())
}

impl Client {
    /// Deploys one component. `parameters`: empty, or a query string with its question mark.
    pub(crate) fn deploy(&self, wasm: &[u8], parameters: &str) -> Reply {
        let path = format!("/admin/plugins{parameters}");
        self.try_send("PUT", &path, &[("content-type", "application/wasm")], wasm).unwrap()
    }

    /// Deploys a component, allows everything that the gates find broken, and skips the folding of the
    /// history.
    pub(crate) fn force(&self, wasm: &[u8]) {
        let refused = self.deploy(wasm, "?allow-breaking=history").problem(422, "gate-refused");
        let breaks = gate(&refused["report"], "compatible")["findings"].as_array().unwrap();
        let names = breaks.iter().map(|found| found.as_str().unwrap().split_once(": ").unwrap().0);
        self.deploy(wasm, &allowing(names.chain(["history"]))).ok();
    }

    /// Deploys several components together.
    pub(crate) fn deploy_all(&self, components: &[Vec<u8>], parameters: &str) -> Reply {
        let mut form = Vec::new();
        for wasm in components {
            form.extend(b"--part\r\ncontent-disposition: form-data; name=\"component\"\r\n\r\n");
            form.extend(wasm);
            form.extend(b"\r\n");
        }
        form.extend(b"--part--\r\n");
        let form_data = [("content-type", "multipart/form-data; boundary=part")];
        let path = format!("/admin/plugins{parameters}");
        self.try_send("PUT", &path, &form_data, &form[..]).unwrap()
    }

    pub(crate) fn roll_back(&self, service: &str, body: &Value) -> Reply {
        self.post(&format!("/admin/plugins/{service}/rollback"), &[], body)
    }

    pub(crate) fn undeploy(&self, service: &str, parameters: &str) -> Reply {
        self.send("DELETE", &format!("/admin/plugins/{service}{parameters}"), &[], "")
    }

    /// Returns the digest of the component that runs a service.
    pub(crate) fn digest(&self, service: &str) -> Option<String> {
        let list = self.get("/admin/plugins").ok();
        let found = list["items"].as_array().unwrap().iter().find(|plugin| plugin["service"] == service);
        found.map(|plugin| plugin["digest"].as_str().unwrap().to_owned())
    }

    /// Returns all deployments, rollbacks and undeployments, oldest first.
    pub(crate) fn deployments(&self) -> Vec<Value> {
        let Value::Array(entries) = self.get("/admin/plugins/history?limit=1000").ok()["items"].take() else {
            panic!("a history is a list")
        };
        entries
    }
}

/// Returns the query string that allows these breaking changes.
pub(crate) fn allowing<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names = names.into_iter().map(|name| format!("allow-breaking={}", name.replace(' ', "%20")));
    format!("?{}", names.collect::<Vec<_>>().join("&"))
}

/// Returns the finding of a gate about the first service of a report, or about all services together.
pub(crate) fn gate<'r>(report: &'r Value, name: &str) -> &'r Value {
    let gates = [&report["services"][0]["gates"], &report["gates"]].map(|gates| gates.as_array().unwrap());
    gates
        .into_iter()
        .flatten()
        .find(|gate| gate["gate"] == name)
        .unwrap_or_else(|| panic!("{name}: {report}"))
}
