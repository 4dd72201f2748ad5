//! The payment of orders: one payment an order, by card, with points, or both.

use kontor_sdk::prelude::*;

mod gateway;
mod payment;

use payment::Payment;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("payment", env!("CARGO_PKG_VERSION"), "The payments of orders.")
        .aggregate::<Payment>()
        .get("/payments/{id}", view::<Payment>().access(Access::Roles(&["clerk"])))
        .setting::<u64>(payment::CARD_LIMIT, "The amount above which a card is declined; unset: no limit.")
        .setting::<u64>(payment::POINTS_LIMIT, "The amount above which there are not enough points.")
        .setting::<String>(gateway::GATEWAY_URL, "The URL of the payment gateway; unset: there is none.")
        .asks_http_configured(&[gateway::GATEWAY_URL])
}
