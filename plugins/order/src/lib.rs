//! The orders of the shop, and the saga that reserves, pays and schedules what they ask for.

use kontor_sdk::prelude::*;

mod order;
mod place_order;
mod shares;

use order::Order;
use place_order::place_order;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("order", env!("CARGO_PKG_VERSION"), "Orders, from the cart to the delivery.")
        .aggregate::<Order>()
        .saga(
            "place-order",
            "Reserves, pays and schedules a new order; confirms or cancels it.",
            (Order::NAME, "order-created"),
            place_order,
        )
        .post("/orders", command::<Order>("create"))
        .get("/orders/{id}", view::<Order>())
        .asks_services(&["inventory"])
}
