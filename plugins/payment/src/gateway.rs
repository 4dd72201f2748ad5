//! The gateway that takes the money, if the operator has configured one.

use kontor_sdk::http::{self, Request};
use kontor_sdk::{config, prelude::*};
use serde_json::Value;

use crate::payment::Charge;

/// The configured URL under which the gateway has its `/authorizations`; unset: there is none, and every payment that keeps
/// to the rules is good.
pub(crate) const GATEWAY_URL: &str = "gateway-url";

const PAYMENT_REQUIRED: u16 = 402;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Takes the money for an order.
pub(crate) fn authorize(charge: &Charge, context: &Context) -> Result<(), Rejection> {
    let Some(url) = url("/authorizations") else { return Ok(()) };
    match send(http::post(url).json(&told(charge, context)), context) {
        PAYMENT_REQUIRED => Err(card_declined()),
        status => good(status),
    }
}

/// Takes another amount than before.
pub(crate) fn change(charge: &Charge, context: &Context) -> Result<(), Rejection> {
    let Some(url) = url_of(context) else { return Ok(()) };
    match send(http::put(url).json(&told(charge, context)), context) {
        PAYMENT_REQUIRED => Err(card_declined()),
        status => good(status),
    }
}

/// Gives the money back.
pub(crate) fn cancel(context: &Context) -> Result<(), Rejection> {
    let Some(url) = url_of(context) else { return Ok(()) };
    match send(http::delete(url), context) {
        CONFLICT => Err(refund_refused()),
        status => good(status),
    }
}

/// Gives back what may have been taken: the answer to [`authorize`] was lost.
pub(crate) fn withdraw(context: &Context) -> Result<(), Rejection> {
    let Some(url) = url_of(context) else { return Ok(()) };
    match send(http::delete(url), context) {
        NOT_FOUND => Ok(()),
        status => good(status),
    }
}

/// Makes sure that this is what is taken: the answer to [`change`] or [`cancel`] was lost.
pub(crate) fn restore(charge: &Charge, context: &Context) -> Result<(), Rejection> {
    let Some(url) = url_of(context) else { return Ok(()) };
    match send(http::put(url).json(&told(charge, context)), context) {
        NOT_FOUND => {
            let command_id = format!("{}/again", context.command_id);
            authorize(charge, &Context { command_id, ..context.clone() })
        }
        status => good(status),
    }
}

fn url(path: &str) -> Option<String> {
    config(GATEWAY_URL).map(|gateway: String| format!("{}{path}", gateway.trim_end_matches('/')))
}

fn url_of(context: &Context) -> Option<String> {
    url(&format!("/authorizations/{}", context.aggregate_id))
}

/// What the gateway is told of a charge.
fn told(charge: &Charge, context: &Context) -> Value {
    json!({ "order_id": context.aggregate_id, "amount": charge.amount, "methods": charge.methods })
}

/// Sends a request under the command's id, so that the gateway does once what it is asked for twice. No answer, and one that is
/// neither yes nor no, is a fault, after which the command is tried again.
fn send(request: Request, context: &Context) -> u16 {
    let response = request.header("idempotency-key", &context.command_id).send();
    response.unwrap_or_else(|error| panic!("the gateway does not answer: {error}")).status()
}

fn good(status: u16) -> Result<(), Rejection> {
    match status {
        200..300 => Ok(()),
        _ => panic!("the gateway answered {status}, which is neither yes nor no"),
    }
}

fn card_declined() -> Rejection {
    Rejection::new("card-declined", "The card does not cover the amount.")
}

fn refund_refused() -> Rejection {
    Rejection::new("refund-refused", "The gateway does not give the money back.")
}
