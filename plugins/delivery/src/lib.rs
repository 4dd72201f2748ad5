//! The delivery of orders, and the saga that sends one out.

use kontor_sdk::prelude::*;

mod delivery;
mod ship_order;

use delivery::Delivery;
use ship_order::ShipOrder;

kontor_sdk::export!(service);

/// The role of those who run the shop.
const CLERK: Access = Access::Roles(&["clerk"]);

fn service() -> Service {
    Service::new("delivery", env!("CARGO_PKG_VERSION"), "The deliveries of orders.")
        .aggregate::<Delivery>()
        .saga::<ShipOrder>()
        .post("/deliveries/{id}/start", command::<Delivery>("start").access(CLERK))
        .post("/deliveries/{id}/complete", command::<Delivery>("complete").access(CLERK))
        .get("/deliveries/{id}", view::<Delivery>().access(CLERK))
        .asks_services(&["order"])
        .setting::<Vec<String>>(delivery::UNDELIVERABLE_REGIONS, "The regions that nothing is delivered to.")
}
