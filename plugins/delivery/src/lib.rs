//! The delivery of orders.

use kontor_sdk::prelude::*;

mod delivery;

use delivery::Delivery;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("delivery", env!("CARGO_PKG_VERSION"), "The deliveries of orders.")
        .aggregate::<Delivery>()
        .get("/deliveries/{id}", view::<Delivery>())
        .asks_config(&[delivery::UNDELIVERABLE_REGIONS])
}
