//! The orders of the shop, and the sagas that place, change and delete them.

use kontor_sdk::prelude::*;

mod bill;
mod change_order;
mod delete_order;
mod details;
mod order;
mod place_order;

use change_order::ChangeOrder;
use delete_order::DeleteOrder;
use details::Details;
use order::Order;
use place_order::PlaceOrder;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("order", env!("CARGO_PKG_VERSION"), "Orders, from the cart to the delivery.")
        .aggregate::<Order>()
        .saga::<PlaceOrder>()
        .saga::<ChangeOrder>()
        .saga::<DeleteOrder>()
        .query::<Details>()
        .post("/orders", command::<Order>("create"))
        .put("/orders/{id}", command::<Order>("update"))
        .delete("/orders/{id}", command::<Order>("delete"))
        .get("/orders/{id}", view::<Order>())
        .get("/orders/{id}/details", query::<Details>())
        .asks_services(&["inventory", "payment", "delivery"])
}
