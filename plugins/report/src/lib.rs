//! Reports: orders together with their payments and deliveries, and totals of them, in one read model.

use kontor_sdk::prelude::*;

mod batch;
mod orders;
#[cfg(test)]
mod plan;
mod read_model;
mod row;
mod sales;
mod totals;

use orders::{Order, Orders};
use sales::Sales;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("report", env!("CARGO_PKG_VERSION"), "Orders together with their payments and deliveries.")
        .read_model(read_model::orders())
        .query::<Order>()
        .query::<Orders>()
        .query::<Sales>()
        .get("/reports/orders", query::<Orders>())
        .get("/reports/orders/{id}", query::<Order>())
        .get("/reports/sales", query::<Sales>())
}
