//! Reports: what orders, payments and deliveries come to, in one read model.

use kontor_sdk::prelude::*;

mod batch;
mod orders;
#[cfg(test)]
mod plan;
mod read_model;
mod row;
mod sales;
mod totals;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("report", env!("CARGO_PKG_VERSION"), "Orders together with their payments and deliveries.")
        .read_model(read_model::orders())
        .query("order", "One order with its payment and its delivery.", orders::order)
        .query("orders", "Orders with their payments and deliveries, the newest first.", orders::orders)
        .query(
            "sales",
            "What was sold, of the orders that stand: those that are confirmed, or were and are being changed or deleted \
             now. Pending, cancelled and deleted orders do not count.",
            sales::sales,
        )
        .get("/reports/orders", query("orders"))
        .get("/reports/orders/{id}", query("order"))
        .get("/reports/sales", query("sales"))
}
