//! The inventory: products, what is in stock of them and which orders hold some of it.

use kontor_sdk::prelude::*;

mod product;
mod read_model;

use product::Product;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("inventory", env!("CARGO_PKG_VERSION"), "Products and their stock.")
        .aggregate::<Product>()
        .read_model(read_model::products())
        .query("products", "All products in the order of their ids.", read_model::list)
        .put("/products/{id}", command::<Product>("register"))
        .post("/products/{id}/add-stock", command::<Product>("add-stock"))
        .post("/products/{id}/remove-stock", command::<Product>("remove-stock"))
        .get("/products/{id}", view::<Product>())
        .get("/products", query("products"))
}
