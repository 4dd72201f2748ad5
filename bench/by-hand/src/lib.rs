//! The shop without its sagas: one service that has the aggregates of the plugins, their own code, and a
//! route to each command that placing an order takes. It is what `kontor-bench sagas` compares sagas with.

#![allow(dead_code, reason = "only what places an order is used of the plugins")]
#![allow(clippy::enum_variant_names, reason = "the events of the plugins begin with their aggregate")]

use kontor_sdk::prelude::*;

#[path = "../../../plugins/order/src/bill.rs"]
mod bill;
#[path = "../../../plugins/delivery/src/delivery.rs"]
mod delivery;
#[path = "../../../plugins/payment/src/gateway.rs"]
mod gateway;
#[path = "../../../plugins/order/src/order.rs"]
mod order;
#[path = "../../../plugins/payment/src/payment.rs"]
mod payment;
#[path = "../../../plugins/inventory/src/product.rs"]
mod product;
#[path = "../../../plugins/inventory/src/read_model.rs"]
mod read_model;

use delivery::Delivery;
use order::Order;
use payment::Payment;
use product::Product;

kontor_sdk::export!(service);

/// It is the inventory, because an order that is created asks that for its prices.
fn service() -> Service {
    Service::new("inventory", env!("CARGO_PKG_VERSION"), "The shop, one command at a time.")
        .aggregate::<Delivery>()
        .aggregate::<Order>()
        .aggregate::<Payment>()
        .aggregate::<Product>()
        .read_model(read_model::products())
        .put("/products/{id}", command::<Product>("register"))
        .post("/products/{id}/reserve", command::<Product>("reserve"))
        .post("/orders", command::<Order>("create"))
        .post("/orders/{id}/confirm", command::<Order>("confirm"))
        .post("/payments/{id}/authorize", command::<Payment>("authorize"))
        .post("/deliveries/{id}/schedule", command::<Delivery>("schedule"))
        .setting::<u64>(payment::CARD_LIMIT, "The amount above which a card is declined; unset: no limit.")
        .setting::<u64>(payment::POINTS_LIMIT, "The amount above which there are not enough points.")
        .setting::<String>(gateway::GATEWAY_URL, "The URL of the payment gateway; unset: there is none.")
        .setting::<Vec<String>>(delivery::UNDELIVERABLE_REGIONS, "The regions that nothing is delivered to.")
        .asks_http_configured(&[gateway::GATEWAY_URL])
}
