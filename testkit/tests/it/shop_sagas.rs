//! All sagas of the shop with every failure at every step: they end, and the laws hold.

use std::iter;

use kontor_testkit::host::{Host, Services};
use kontor_testkit::sagas::Drill;
use kontor_testkit::shop::laws;
use kontor_testkit::{Command, command, json};
use serde_json::Value;

/// A shop in the test's own process.
struct Shop<'a>(&'a Host);

impl laws::Shop for Shop<'_> {
    fn events(&self, after: u64) -> impl Iterator<Item = Value> {
        let events = self.0.events().into_iter().filter(move |event| event.position.get() > after);
        let shown = |event: kontor::model::Recorded| {
            json!({
                "position": event.position,
                "stream": event.stream,
                "version": event.version,
                "name": event.name,
                "payload": event.payload,
                "id": event.id(),
                "command_id": event.meta.command_id,
                "command": event.meta.command,
            })
        };
        events.map(shown)
    }

    /// Nothing arrives: the drill has waited for the end of its saga.
    fn follow(&self, _: u64) -> impl Iterator<Item = Value> {
        iter::empty()
    }

    fn view(&self, aggregate: &str, id: &str) -> Value {
        self.0.view(aggregate, id)
    }
}

fn shop() -> Services {
    let configuration = json!({"payment": {"card-limit": 10_000, "points-limit": 1_000}});
    Services::load(&["order", "payment", "delivery", "inventory"], &configuration)
}

fn register(product: &str) -> Command {
    command("product", product, "register", json!({"name": product, "unit_price": 10, "quantity": 20}))
}

fn lines(quantities: &[(&str, u64)]) -> Value {
    let line = |(product, quantity): &(&str, u64)| json!({"product_id": product, "quantity": quantity});
    quantities.iter().map(line).collect()
}

fn create(quantities: &[(&str, u64)]) -> Command {
    let order = json!({
        "user_id": "u1",
        "lines": lines(quantities),
        "payment": [{"method": "card", "share": "0.9"}, {"method": "points", "share": "0.1"}],
        "address": {"region": "north", "line": "1 High Street"},
    });
    command("order", "o1", "create", order)
}

/// Checks that the saga started by `start` after `given` ends by itself or after one retry, and that the laws
/// hold, on the host's own log and on a shared one.
fn drill<const N: usize>(given: [Command; N], start: Command) {
    let shop = shop();
    for drill in [Drill::new(&shop), Drill::new(&shop).on_shared_log()] {
        let runs = drill.given(given.clone()).when(start.clone()).then(|host| {
            laws::check(&Shop(host));
        });
        assert!(runs > 20, "a saga of the shop has more steps than {runs} runs are about");
    }
}

#[test]
fn place_order() {
    drill([register("tea"), register("pot")], create(&[("tea", 3), ("pot", 1)]));
}

#[test]
fn change_order() {
    let given =
        [register("tea"), register("pot"), register("cup"), create(&[("tea", 3), ("pot", 2), ("cup", 1)])];
    let payment = json!([{"method": "card", "share": "1"}]);
    let update = json!({"lines": lines(&[("tea", 5), ("pot", 1)]), "payment": payment});
    drill(given, command("order", "o1", "update", update));
}

#[test]
fn delete_order() {
    let given = [register("tea"), register("pot"), create(&[("tea", 3), ("pot", 2)])];
    drill(given, command("order", "o1", "delete", json!({})));
}

#[test]
fn ship_order() {
    let given = [register("tea"), register("pot"), create(&[("tea", 3), ("pot", 2)])];
    drill(given, command("delivery", "o1", "start", json!({})));
}
