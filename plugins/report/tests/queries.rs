//! The reports: given events, then answers.

use kontor_testkit::{Event, History, Service, event, json};
use serde_json::Value;

/// 2024-03-01, when the first day of the shop began.
const MARCH_1: u64 = 1_709_251_200_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

type Happened = (&'static str, &'static str, Event);

/// Products, and how many pieces of each.
type Pieces<'a> = &'a [(&'a str, u64)];

/// A line with this number of pieces of a product, for 100 each.
fn line(product: &str, quantity: u64) -> Value {
    json!({
        "product_id": product, "name": product.to_uppercase(),
        "quantity": quantity, "unit_price": 100, "amount": 100 * quantity,
    })
}

fn total(lines: Pieces<'_>) -> u64 {
    lines.iter().map(|(_, quantity)| 100 * quantity).sum()
}

fn lines(lines: Pieces<'_>) -> Vec<Value> {
    lines.iter().map(|(product, quantity)| line(product, *quantity)).collect()
}

fn address() -> Value {
    json!({"region": "north", "line": "1 Quay Street"})
}

fn paid(lines: Pieces<'_>) -> Value {
    json!([{"method": "card", "amount": total(lines)}])
}

fn reason() -> Value {
    json!({"code": "card-declined", "message": "The amount is above the card's limit."})
}

fn bill(of: Pieces<'_>) -> Value {
    json!({"lines": lines(of), "total": total(of), "payment": paid(of)})
}

fn created(id: &'static str, user: &str, of: Pieces<'_>) -> Happened {
    let mut payload = bill(of);
    payload["user_id"] = json!(user);
    payload["address"] = address();
    ("order", id, event("order-created", payload))
}

fn order(id: &'static str, name: &str) -> Happened {
    ("order", id, event(name, json!({})))
}

fn order_with_reason(id: &'static str, name: &str) -> Happened {
    ("order", id, event(name, json!({ "reason": reason() })))
}

fn updated(id: &'static str, of: Pieces<'_>) -> Happened {
    ("order", id, event("order-updated", bill(of)))
}

fn payment(id: &'static str, name: &str, of: Pieces<'_>) -> Happened {
    ("payment", id, event(name, json!({"amount": total(of), "methods": paid(of)})))
}

fn delivery(id: &'static str, name: &str) -> Happened {
    ("delivery", id, event(name, json!({})))
}

/// Four orders on two days: o1 and o3 are confirmed, o2 is cancelled, o4 is pending.
fn two_days(reports: &Service) -> History<'_> {
    reports
        .events([])
        .at(MARCH_1)
        .events([created("o1", "ada", &[("tea", 2), ("pot", 1)]), order("o1", "order-confirmed")])
        .at(MARCH_1 + HOUR)
        .events([created("o2", "bob", &[("tea", 1)]), order_with_reason("o2", "order-cancelled")])
        .at(MARCH_1 + DAY)
        .events([created("o3", "ada", &[("pot", 3)]), order("o3", "order-confirmed")])
        .at(MARCH_1 + DAY + HOUR)
        .events([created("o4", "ada", &[("tea", 5)])])
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()).collect()
}

#[test]
fn an_order_is_shown_with_its_payment_and_its_delivery() {
    let ordered = [("tea", 2), ("pot", 1)];
    let reports = Service::load("report");
    let placed = reports
        .events([])
        .at(MARCH_1)
        .events([created("o1", "ada", &ordered), payment("o1", "payment-authorized", &ordered)])
        .at(MARCH_1 + HOUR)
        .events([delivery("o1", "delivery-scheduled"), order("o1", "order-confirmed")]);
    let mut expected = json!({
        "id": "o1", "user_id": "ada", "status": "confirmed", "reason": null,
        "lines": lines(&ordered), "total": 300, "address": address(),
        "payment_status": "authorized", "payment": paid(&ordered), "delivery_status": "preparing",
        "created_at_ms": MARCH_1, "updated_at_ms": MARCH_1 + HOUR,
    });
    placed.query("order", json!({"id": "o1"})).then(expected.clone());

    let fewer = [("pot", 1)];
    let changed = placed.clone().at(MARCH_1 + DAY).events([
        order("o1", "order-update-requested"),
        delivery("o1", "delivery-held"),
        payment("o1", "payment-changed", &fewer),
        updated("o1", &fewer),
    ]);
    expected["lines"] = json!(lines(&fewer));
    expected["total"] = json!(100);
    expected["payment"] = paid(&fewer);
    expected["delivery_status"] = json!("held");
    expected["updated_at_ms"] = json!(MARCH_1 + DAY);
    changed.query("order", json!({"id": "o1"})).then(expected.clone());
    changed.query("orders", json!({})).then(json!({"items": [expected], "next": null}));

    placed.query("order", json!({"id": "o2"})).then_rejected("not-found");
}

#[test]
fn every_event_of_an_order_leaves_its_status_and_its_reason() {
    let table = [
        ("order-created", "pending", false),
        ("order-cancelled", "cancelled", true),
        ("order-confirmed", "confirmed", false),
        ("order-update-requested", "updating", false),
        ("order-update-reverted", "confirmed", true),
        ("order-updated", "confirmed", false),
        ("order-delete-requested", "deleting", false),
        ("order-delete-reverted", "confirmed", true),
        ("order-deleted", "deleted", false),
    ];
    let reports = Service::load("report");
    for (name, status, has_reason) in table {
        let last = match name {
            "order-created" => vec![],
            "order-updated" => vec![updated("o1", &[("tea", 1)])],
            _ if has_reason => vec![order_with_reason("o1", name)],
            _ => vec![order("o1", name)],
        };
        let answer = reports.events([created("o1", "ada", &[("tea", 1)])]).events(last);
        let answer = answer.query("order", json!({"id": "o1"})).answer();
        let expected = if has_reason { reason() } else { Value::Null };
        assert_eq!((&answer["status"], &answer["reason"]), (&json!(status), &expected), "{name}");
    }
}

#[test]
fn what_is_known_of_an_order_that_does_not_exist_yet_is_kept_for_it() {
    let reports = Service::load("report");
    let early = reports
        .events([payment("o1", "payment-authorized", &[("tea", 1)]), delivery("o1", "delivery-scheduled")]);
    early.query("order", json!({"id": "o1"})).then_rejected("not-found");
    early.query("orders", json!({})).then(json!({"items": [], "next": null}));

    let late = early.events([created("o1", "ada", &[("tea", 1)])]);
    let answer = late.query("order", json!({"id": "o1"})).answer();
    assert_eq!(
        (&answer["payment_status"], &answer["delivery_status"]),
        (&json!("authorized"), &json!("preparing"))
    );
}

#[test]
fn orders_are_found_by_all_that_is_asked_for_the_newest_first() {
    let table: [(Value, &[&str]); 18] = [
        (json!({}), &["o4", "o3", "o2", "o1"]),
        (json!({"user_id": "ada"}), &["o4", "o3", "o1"]),
        (json!({"user_id": "eve"}), &[]),
        (json!({"status": "confirmed"}), &["o3", "o1"]),
        (json!({"status": "deleted"}), &[]),
        (json!({"product_id": "tea"}), &["o4", "o2", "o1"]),
        (json!({"product_id": "gold"}), &[]),
        (json!({"user_id": "ada", "status": "confirmed"}), &["o3", "o1"]),
        (json!({"user_id": "ada", "product_id": "tea"}), &["o4", "o1"]),
        (json!({"status": "confirmed", "product_id": "tea"}), &["o1"]),
        (json!({"status": "cancelled", "product_id": "tea"}), &["o2"]),
        (json!({"user_id": "ada", "status": "confirmed", "product_id": "pot"}), &["o3", "o1"]),
        (json!({"from": MARCH_1 + HOUR}), &["o4", "o3", "o2"]),
        (json!({"to": MARCH_1 + DAY}), &["o2", "o1"]),
        (json!({"from": MARCH_1 + HOUR, "to": MARCH_1 + DAY + HOUR}), &["o3", "o2"]),
        (json!({"from": MARCH_1 + HOUR, "product_id": "tea"}), &["o4", "o2"]),
        (json!({"to": MARCH_1 + DAY, "product_id": "tea", "status": "confirmed"}), &["o1"]),
        (json!({"to": MARCH_1 + DAY + HOUR, "user_id": "ada", "status": "confirmed"}), &["o3", "o1"]),
    ];
    let reports = Service::load("report");
    let history = two_days(&reports);
    for (arguments, expected) in table {
        let answer = history.query("orders", arguments.clone()).answer();
        assert_eq!(ids(&answer), expected, "{arguments}");
        assert_eq!(answer["next"], Value::Null, "{arguments}");
    }
}

#[test]
fn a_product_that_is_no_longer_in_an_order_does_not_find_it() {
    let reports = Service::load("report");
    let history =
        two_days(&reports).events([order("o1", "order-update-requested"), updated("o1", &[("pot", 1)])]);
    let found = |arguments| ids(&history.query("orders", arguments).answer()).join(" ");
    assert_eq!(found(json!({"product_id": "tea"})), "o4 o2");
    assert_eq!(found(json!({"product_id": "tea", "status": "confirmed"})), "");
    assert_eq!(found(json!({"product_id": "pot", "status": "confirmed"})), "o3 o1");
}

#[test]
fn pages_follow_one_another_and_orders_that_come_meanwhile_do_not_shift_them() {
    let reports = Service::load("report");
    for filter in [json!({}), json!({"product_id": "tea"}), json!({"user_id": "ada"})] {
        let before = two_days(&reports);
        let with = |limit: u64, after: Value| {
            let mut arguments = filter.clone();
            arguments["limit"] = json!(limit);
            arguments["after"] = after;
            arguments
        };
        let all = before.query("orders", filter.clone()).answer();
        let first = before.query("orders", with(2, Value::Null)).answer();
        assert_eq!(ids(&first), ids(&all)[..2], "{filter}");
        let after = before.at(MARCH_1 + 2 * DAY).events([created("o5", "ada", &[("tea", 1)])]);
        let second = after.query("orders", with(2, first["next"].clone())).answer();
        assert_eq!(ids(&second), ids(&all)[2..], "{filter}");
        assert_eq!(second["next"], Value::Null, "{filter}");
    }
}

#[test]
fn orders_of_one_moment_are_all_on_some_page() {
    let reports = Service::load("report");
    let history = reports.events(["a", "b", "c"].map(|id| created(id, "ada", &[("tea", 1)])));
    let (mut found, mut after) = (Vec::new(), Value::Null);
    for _ in 0..3 {
        let page = history.query("orders", json!({"limit": 1, "after": after})).answer();
        found.extend(ids(&page).into_iter().map(str::to_owned));
        after = page["next"].clone();
    }
    assert_eq!((found.join(" "), after), ("c b a".to_owned(), Value::Null));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let table = [
        ("orders", json!({"limit": 0})),
        ("orders", json!({"limit": 201})),
        ("orders", json!({"status": "lost"})),
        ("orders", json!({"color": "red"})),
        ("orders", json!({"after": "somewhere"})),
        ("orders", json!({"from": "yesterday"})),
        ("sales", json!({})),
        ("sales", json!({"by": "year"})),
        ("sales", json!({"by": "day", "from": "yesterday"})),
        ("sales", json!({"by": "day", "limit": 201})),
    ];
    let reports = Service::load("report");
    for (query, arguments) in table {
        reports.query(query, arguments).then_rejected("invalid-arguments");
    }
}

fn sold(product: &str, orders: u64, quantity: u64) -> Value {
    json!({
        "product_id": product, "name": product.to_uppercase(),
        "orders": orders, "quantity": quantity, "amount": 100 * quantity,
    })
}

fn sold_on(day: &str, orders: u64, quantity: u64) -> Value {
    json!({"day": day, "orders": orders, "quantity": quantity, "amount": 100 * quantity})
}

#[test]
fn sales_count_the_orders_that_stand() {
    let nothing: Pieces<'_> = &[];
    let as_ordered: Pieces<'_> = &[("pot", 1), ("tea", 2)];
    let table: [(&str, Vec<Happened>, Pieces<'_>); 9] = [
        ("pending", vec![], nothing),
        ("cancelled", vec![order_with_reason("o1", "order-cancelled")], nothing),
        ("confirmed", vec![order("o1", "order-confirmed")], as_ordered),
        ("updating", vec![order("o1", "order-confirmed"), order("o1", "order-update-requested")], as_ordered),
        (
            "update reverted",
            vec![
                order("o1", "order-confirmed"),
                order("o1", "order-update-requested"),
                order_with_reason("o1", "order-update-reverted"),
            ],
            as_ordered,
        ),
        (
            "updated",
            vec![
                order("o1", "order-confirmed"),
                order("o1", "order-update-requested"),
                updated("o1", &[("tea", 7)]),
            ],
            &[("tea", 7)],
        ),
        ("deleting", vec![order("o1", "order-confirmed"), order("o1", "order-delete-requested")], as_ordered),
        (
            "deletion reverted",
            vec![
                order("o1", "order-confirmed"),
                order("o1", "order-delete-requested"),
                order_with_reason("o1", "order-delete-reverted"),
            ],
            as_ordered,
        ),
        (
            "updated and deleted",
            vec![
                order("o1", "order-confirmed"),
                order("o1", "order-update-requested"),
                updated("o1", &[("tea", 7)]),
                order("o1", "order-delete-requested"),
                order("o1", "order-deleted"),
            ],
            nothing,
        ),
    ];
    let reports = Service::load("report");
    for (case, happened, expected) in table {
        let placed = reports.events([]).at(MARCH_1).events([created("o1", "ada", &[("tea", 2), ("pot", 1)])]);
        // Later events change an order of that day.
        let history = placed.at(MARCH_1 + DAY).events(happened);
        let items: Vec<Value> =
            expected.iter().map(|(product, quantity)| sold(product, 1, *quantity)).collect();
        println!("{case}");
        history.query("sales", json!({"by": "product"})).then(json!({"items": items, "next": null}));
        let pieces = expected.iter().map(|(_, quantity)| quantity).sum();
        let items: Vec<Value> =
            expected.first().map(|_| sold_on("2024-03-01", 1, pieces)).into_iter().collect();
        history.query("sales", json!({"by": "day"})).then(json!({"items": items, "next": null}));
    }
}

#[test]
fn sales_are_added_up_over_orders_and_days() {
    let table = [
        (json!({"by": "product"}), vec![sold("pot", 2, 4), sold("tea", 2, 7)]),
        (json!({"by": "product", "to": "2024-03-02"}), vec![sold("pot", 1, 1), sold("tea", 1, 2)]),
        (
            json!({"by": "product", "from": "2024-03-02", "to": "2024-03-03"}),
            vec![sold("pot", 1, 3), sold("tea", 1, 5)],
        ),
        (json!({"by": "product", "from": "2024-03-03"}), vec![]),
        (json!({"by": "day"}), vec![sold_on("2024-03-02", 2, 8), sold_on("2024-03-01", 1, 3)]),
        (json!({"by": "day", "from": "2024-03-02"}), vec![sold_on("2024-03-02", 2, 8)]),
        (json!({"by": "day", "to": "2024-03-02"}), vec![sold_on("2024-03-01", 1, 3)]),
    ];
    let reports = Service::load("report");
    let history = two_days(&reports).events([order("o4", "order-confirmed")]);
    for (arguments, items) in table {
        history.query("sales", arguments).then(json!({"items": items, "next": null}));
    }
}

#[test]
fn totals_are_paged() {
    let reports = Service::load("report");
    let history = two_days(&reports);
    for (by, first, second) in [
        ("product", sold("pot", 2, 4), sold("tea", 1, 2)),
        ("day", sold_on("2024-03-02", 1, 3), sold_on("2024-03-01", 1, 3)),
    ] {
        let page = history.query("sales", json!({"by": by, "limit": 1})).answer();
        assert_eq!(page["items"], json!([first]), "{by}");
        let page = history.query("sales", json!({"by": by, "limit": 1, "after": page["next"]}));
        page.then(json!({"items": [second], "next": null}));
    }
}
