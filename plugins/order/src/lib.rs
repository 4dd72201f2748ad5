//! The orders of the shop, and the sagas that place, change and delete them.

use kontor_sdk::prelude::*;

mod bill;
mod change_order;
mod delete_order;
mod details;
mod order;
mod place_order;
mod shares;

use change_order::change_order;
use delete_order::delete_order;
use details::details;
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
        .saga(
            "change-order",
            "Reserves and pays what an order is changed to; makes the change or reverts it.",
            (Order::NAME, "order-update-requested"),
            change_order,
        )
        .saga(
            "delete-order",
            "Calls off the delivery, the payment and the reservations of an order; deletes it or reverts that.",
            (Order::NAME, "order-delete-requested"),
            delete_order,
        )
        .post("/orders", command::<Order>("create"))
        .put("/orders/{id}", command::<Order>("update"))
        .delete("/orders/{id}", command::<Order>("delete"))
        .get("/orders/{id}", view::<Order>())
        .query("details", "An order with its payment, its delivery and its products, as they are now.", details)
        .get("/orders/{id}/details", query("details"))
        .asks_services(&["inventory", "payment", "delivery"])
}
