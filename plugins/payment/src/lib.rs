//! The payment of orders: one payment an order, by card, with points, or both.

use kontor_sdk::prelude::*;

mod gateway;
mod payment;

use payment::Payment;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("payment", env!("CARGO_PKG_VERSION"), "The payments of orders.")
        .aggregate::<Payment>()
        .get("/payments/{id}", view::<Payment>())
        .asks_config(&[payment::CARD_LIMIT, payment::POINTS_LIMIT])
        .asks_http_configured(&[gateway::GATEWAY_URL])
}
