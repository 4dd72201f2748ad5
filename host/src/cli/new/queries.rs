//! The queries: given events, then answers.

use kontor_testkit::{Service, event, json};

#[test]
fn the_list_follows_every_event() {
    let service = Service::load("service-name");
    let opened = event("service-name-opened", json!({"title": "First"}));
    let history = service.events([("service-name", "one", opened)]);
    let entry = |closed: bool| json!({"id": "one", "title": "First", "closed": closed});
    history.query("list", json!({})).then(json!({"items": [entry(false)], "next": null}));
    let history = history.events([("service-name", "one", event("service-name-closed", json!({})))]);
    history.query("list", json!({})).then(json!({"items": [entry(true)], "next": null}));
}

#[test]
fn the_list_is_paged_in_the_order_of_ids() {
    let service = Service::load("service-name");
    let opened = |id| ("service-name", id, event("service-name-opened", json!({"title": id})));
    let history = service.events(["b", "c", "a"].map(opened));
    for (page, ids, next) in [
        (json!({"limit": 2}), vec!["a", "b"], json!("b")),
        (json!({"limit": 2, "after": "b"}), vec!["c"], json!(null)),
        (json!({}), vec!["a", "b", "c"], json!(null)),
    ] {
        let items: Vec<_> = ids.iter().map(|id| json!({"id": id, "title": id, "closed": false})).collect();
        history.query("list", page).then(json!({"items": items, "next": next}));
    }
    history.query("list", json!({"limit": 0})).then_rejected("invalid-arguments");
}
