//! The products that all comparisons use.

use std::net::SocketAddr;

use anyhow::bail;

use crate::http::{Connection, request_with};

/// The stock of each product: more than any run takes.
const STOCK: u64 = 1_000_000_000;

pub(crate) fn product(index: usize) -> String {
    format!("product-{index:04}")
}

/// Registers `products` products.
pub(crate) fn register(address: SocketAddr, products: usize) -> anyhow::Result<()> {
    register_with(address, products, "")
}

/// Registers products by requests with further headers, each with its line's end.
pub(crate) fn register_with(address: SocketAddr, products: usize, headers: &str) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connection = Connection::open(address).await?;
        for index in 0..products {
            let path = format!("/products/{}", product(index));
            let body = format!(r#"{{"name":"Blue mug","unit_price":1290,"quantity":{STOCK}}}"#);
            let status = connection.exchange(&request_with("PUT", &path, headers, &body)).await?;
            if status != 201 {
                bail!("registering a product was answered with {}", connection.last_reply());
            }
        }
        Ok(())
    })
}
