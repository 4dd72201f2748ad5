//! Reports: what orders, payments and deliveries come to, in one read model.

use kontor_sdk::prelude::*;

mod orders;
mod read_model;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("report", env!("CARGO_PKG_VERSION"), "Orders together with their payments and deliveries.")
        .read_model(read_model::orders())
        .query("order", "One order with its payment and its delivery.", orders::order)
        .get("/reports/orders/{id}", query("order"))
}
