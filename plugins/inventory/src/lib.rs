//! The inventory: products, what is in stock of them and which orders hold some of it.

use kontor_sdk::prelude::*;

mod product;
mod read_model;

use product::Product;
use read_model::Products;

kontor_sdk::export!(service);

/// The role of those who run the shop.
const CLERK: Access = Access::Roles(&["clerk"]);

fn service() -> Service {
    Service::new("inventory", env!("CARGO_PKG_VERSION"), "Products and their stock.")
        .aggregate::<Product>()
        .read_model(read_model::products())
        .query::<Products>()
        .put("/products/{id}", command::<Product>("register").access(CLERK))
        .post("/products/{id}/add-stock", command::<Product>("add-stock").access(CLERK))
        .post("/products/{id}/remove-stock", command::<Product>("remove-stock").access(CLERK))
        .get("/products/{id}", view::<Product>().access(Access::Anyone))
        .get("/products", query::<Products>().access(Access::Anyone))
}
