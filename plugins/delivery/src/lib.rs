//! The delivery of orders, and the saga that sends one out.

use kontor_sdk::prelude::*;

mod delivery;
mod ship_order;

use delivery::Delivery;
use ship_order::ShipOrder;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("delivery", env!("CARGO_PKG_VERSION"), "The deliveries of orders.")
        .aggregate::<Delivery>()
        .saga::<ShipOrder>()
        .post("/deliveries/{id}/start", command::<Delivery>("start"))
        .post("/deliveries/{id}/complete", command::<Delivery>("complete"))
        .get("/deliveries/{id}", view::<Delivery>())
        .asks_services(&["order"])
        .asks_config(&[delivery::UNDELIVERABLE_REGIONS])
}
