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

use orders::{OrderById, OrderSearch};
use sales::Sales;

kontor_sdk::export!(service);

/// The role of those who run the shop.
const CLERK: Access = Access::Roles(&["clerk"]);

fn service() -> Service {
    Service::new("report", env!("CARGO_PKG_VERSION"), "Orders together with their payments and deliveries.")
        .read_model(read_model::orders())
        .query::<OrderById>()
        .query::<OrderSearch>()
        .query::<Sales>()
        .get("/reports/orders", query::<OrderSearch>().access(CLERK))
        .get("/reports/orders/{id}", query::<OrderById>().access(CLERK))
        .get("/reports/sales", query::<Sales>().access(CLERK))
}
