//! `kontor serve --watch`: a component built into the plugins directory is deployed.

use std::fs;

use serde_json::{Value, json};

use crate::common::deploy::{digest_of, fixture, inventory, next_inventory, plugin};

#[test]
fn what_is_built_is_deployed_and_what_a_gate_refuses_changes_nothing() {
    let (site, plugins) = inventory();
    let mut host = site.start_with(&["--watch"]);
    host.register("desk", 5, 10);
    let build = |service: &str, wasm: &[u8]| {
        fs::write(plugins.path().join(service).with_extension("wasm"), wasm).unwrap();
    };
    build("inventory", &next_inventory("forgetful"));
    host.says("inventory.wasm: not deployed: the gate compatible refuses inventory: the component breaks");
    host.says("    command:product/remove-stock: ");
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")));

    let next = next_inventory("next");
    build("inventory", &next);
    let line = host.says("inventory.wasm: live inventory 0.2.0 (");
    assert!(line.contains("replaces"), "{line}");
    assert_eq!((host.digest("inventory"), host.stock("desk")), (digest_of(&next), (10, 0)));

    // A new service, which is granted the permissions inside the host that it asks for.
    build("unruly", &fixture("unruly"));
    host.says("unruly.wasm: live unruly ");
    let entry = host.deployments().pop().unwrap();
    let shown = json!([entry["actor"], entry["note"], entry["service"]]);
    assert_eq!(shown, json!(["kontor serve --watch", "unruly.wasm has changed", "unruly"]));
}

#[test]
fn what_differs_at_the_start_is_deployed_and_what_was_taken_once_is_not_taken_again() {
    let (site, plugins) = inventory();
    assert!(site.start().stop().success());
    let (file, next) = (plugins.path().join("inventory.wasm"), next_inventory("next"));
    fs::write(&file, &next).unwrap();
    let mut host = site.start_with(&["--watch", "--json"]);
    let line: Value = serde_json::from_str(&host.says("\"file\":")).unwrap();
    assert_eq!((&line["file"], &line["report"]["live"]), (&json!(file), &json!(true)));
    assert_eq!(host.digest("inventory"), digest_of(&next));

    host.roll_back("inventory", &json!({})).ok();
    // Files are taken in the order of their names: once the second was deployed, the first was examined.
    fs::write(&file, &next).unwrap();
    fs::write(plugins.path().join("unruly.wasm"), fixture("unruly")).unwrap();
    host.says("unruly.wasm");
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")), "the same bytes are nothing new");
}
