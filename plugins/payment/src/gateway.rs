//! The gateway that takes the money, if the operator has configured one. Each request has one answer that
//! means "no"; all others but success are faults.

use kontor_sdk::http::{self, Request};
use kontor_sdk::{config, prelude::*};
use serde_json::Value;

use crate::payment::Charge;

/// Configuration key: the URL under which the gateway has its `/authorizations`. If it is not set there is no
/// gateway, and every payment that keeps to the rules is good.
pub(crate) const GATEWAY_URL: &str = "gateway-url";

const PAYMENT_REQUIRED: u16 = 402;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Takes the money for an order.
pub(crate) fn authorize(charge: &Charge, context: &Context) -> Result<(), Error> {
    let Some(url) = url("/authorizations")? else { return Ok(()) };
    match send(http::post(url).json(&request_body(charge, context)), context)? {
        PAYMENT_REQUIRED => Err(card_declined().into()),
        status => succeeded(status),
    }
}

/// Takes another amount than before.
pub(crate) fn change(charge: &Charge, context: &Context) -> Result<(), Error> {
    let Some(url) = authorization_url(context)? else { return Ok(()) };
    match send(http::put(url).json(&request_body(charge, context)), context)? {
        PAYMENT_REQUIRED => Err(card_declined().into()),
        status => succeeded(status),
    }
}

/// Gives the money back.
pub(crate) fn cancel(context: &Context) -> Result<(), Error> {
    let Some(url) = authorization_url(context)? else { return Ok(()) };
    match send(http::delete(url), context)? {
        CONFLICT => Err(refund_refused().into()),
        status => succeeded(status),
    }
}

/// Gives back what may have been taken, after the answer to [`authorize`] was lost.
pub(crate) fn withdraw(context: &Context) -> Result<(), Error> {
    let Some(url) = authorization_url(context)? else { return Ok(()) };
    match send(http::delete(url), context)? {
        NOT_FOUND => Ok(()),
        status => succeeded(status),
    }
}

/// Makes sure that exactly this charge is taken, after the answer to [`change`] or [`cancel`] was lost.
pub(crate) fn restore(charge: &Charge, context: &Context) -> Result<(), Error> {
    let Some(url) = authorization_url(context)? else { return Ok(()) };
    match send(http::put(url).json(&request_body(charge, context)), context)? {
        NOT_FOUND => {
            let command_id = format!("{}/again", context.command_id);
            authorize(charge, &Context { command_id, ..context.clone() })
        }
        status => succeeded(status),
    }
}

/// Returns the URL of a path on the gateway, or `None` if there is no gateway.
fn url(path: &str) -> Result<Option<String>, Error> {
    let gateway: Option<String> = config(GATEWAY_URL)?;
    Ok(gateway.map(|gateway| format!("{}{path}", gateway.trim_end_matches('/'))))
}

fn authorization_url(context: &Context) -> Result<Option<String>, Error> {
    url(&format!("/authorizations/{}", context.aggregate_id))
}

fn request_body(charge: &Charge, context: &Context) -> Value {
    json!({ "order_id": context.aggregate_id, "amount": charge.amount, "methods": charge.methods })
}

/// Sends a request and returns the status of its answer. The command's id is the idempotency key, so the
/// gateway does once what it is asked for twice. No answer is a fault, after which the host retries the
/// command.
fn send(request: Request, context: &Context) -> Result<u16, Error> {
    let response = request.header("idempotency-key", &context.command_id).send();
    let response = response.map_err(|error| Error::Fault(format!("the gateway does not answer: {error}")))?;
    Ok(response.status())
}

fn succeeded(status: u16) -> Result<(), Error> {
    match status {
        200..300 => Ok(()),
        _ => Err(Error::Fault(format!("the gateway answered {status}, which is neither yes nor no"))),
    }
}

fn card_declined() -> Rejection {
    Rejection::new("card-declined", "The card does not cover the amount.")
}

fn refund_refused() -> Rejection {
    Rejection::new("refund-refused", "The gateway does not give the money back.")
}
