//! An order: what a user wants, at the prices of the moment it was placed.

use std::collections::BTreeSet;

use kontor_sdk::prelude::*;
use kontor_sdk::services::{self, Request};

use crate::shares;

use OrderCommand::*;
use OrderEvent::*;

/// Each line is a step of a saga, and they are taken all at once.
const MAX_LINES: usize = 100;

/// No order's total is above it, so that read models can keep totals as SQL integers.
const MAX_TOTAL: u64 = i64::MAX as u64;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Order {
    status: Status,
    user_id: String,
    lines: Vec<Line>,
    total: u64,
    payment: Vec<Part>,
    address: Address,
    /// Why it was cancelled.
    reason: Option<Rejection>,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    #[default]
    Pending,
    Confirmed,
    Cancelled,
}

/// A product in an order. Amounts are in the smallest unit of the currency.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) product_id: String,
    name: String,
    pub(crate) quantity: u64,
    unit_price: u64,
    amount: u64,
}

/// The part of the total that is paid in one way, in the smallest unit of the currency.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    method: Method,
    amount: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    Card,
    Points,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Address {
    region: String,
    /// Street, number and whatever else the carrier needs.
    line: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum OrderCommand {
    /// Places the order, at the products' current prices.
    Create {
        user_id: String,
        #[schemars(length(max = MAX_LINES))]
        lines: Vec<Wanted>,
        payment: Vec<Share>,
        address: Address,
    },
    /// Accepts the order for good; the saga that placed it does so.
    Confirm {},
}

/// How many pieces of a product are wanted, at least 1.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    product_id: String,
    quantity: i64,
}

/// The fraction of the total to be paid in one way.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    method: Method,
    /// A decimal fraction with at most 18 places: `"0.9"`. All of an order's shares add up to 1.
    share: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum OrderEvent {
    OrderCreated { user_id: String, lines: Vec<Line>, total: u64, payment: Vec<Part>, address: Address },
    OrderConfirmed {},
    OrderCancelled { reason: Rejection },
}

/// What a user ordered.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OrderView {
    id: String,
    user_id: String,
    status: Status,
    lines: Vec<Line>,
    /// In the smallest unit of the currency.
    total: u64,
    payment: Vec<Part>,
    address: Address,
    /// Why it was cancelled; null if it was not.
    reason: Option<Rejection>,
}

impl Aggregate for Order {
    const NAME: &str = "order";
    const COMPENSABLE: &[&str] = &["create"];
    type Command = OrderCommand;
    type Event = OrderEvent;
    type View = OrderView;

    fn decide(
        order: Option<&Self>,
        command: OrderCommand,
        context: &Context,
    ) -> Result<Vec<OrderEvent>, Rejection> {
        let event = match (command, order) {
            (Create { user_id, lines, payment, address }, None) => {
                create(user_id, &lines, &payment, address)?
            }
            (Create { .. }, Some(_)) => return Err(context.already_exists()),
            (_, None) => return Err(context.not_found()),
            (Confirm {}, Some(order)) => {
                order.must_be_pending()?;
                OrderConfirmed {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: OrderEvent) {
        match event {
            OrderCreated { user_id, lines, total, payment, address } => {
                *self =
                    Self { status: Status::Pending, user_id, lines, total, payment, address, reason: None };
            }
            OrderConfirmed {} => self.status = Status::Confirmed,
            OrderCancelled { reason } => {
                self.status = Status::Cancelled;
                self.reason = Some(reason);
            }
        }
    }

    fn compensate(
        &self,
        event: OrderEvent,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<OrderEvent>, Rejection> {
        match (event, self.status) {
            (OrderCreated { .. }, Status::Pending) => Ok(Some(OrderCancelled { reason: reason.clone() })),
            (OrderCreated { .. }, Status::Cancelled) => Ok(None),
            _ => Err(context.not_compensable()),
        }
    }

    fn view(&self, id: &str) -> OrderView {
        OrderView {
            id: id.to_owned(),
            user_id: self.user_id.clone(),
            status: self.status,
            lines: self.lines.clone(),
            total: self.total,
            payment: self.payment.clone(),
            address: self.address.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl Order {
    fn must_be_pending(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Pending => Ok(()),
            _ => Err(Rejection::new("order-not-pending", "Only a pending order can be confirmed.")),
        }
    }
}

fn create(
    user_id: String,
    wanted: &[Wanted],
    shares: &[Share],
    address: Address,
) -> Result<OrderEvent, Rejection> {
    check_lines(wanted)?;
    let fractions = read_shares(shares)?;
    let lines = price(wanted)?;
    let total = total(&lines)?;
    let amounts = shares::split(total, &fractions);
    let payment = shares.iter().zip(amounts).map(|(share, amount)| Part { method: share.method, amount });
    Ok(OrderCreated { user_id, lines, total, payment: payment.collect(), address })
}

fn check_lines(lines: &[Wanted]) -> Result<(), Rejection> {
    if lines.is_empty() {
        return Err(Rejection::new("no-lines", "An order has at least one line."));
    }
    let mut products = BTreeSet::new();
    if let Some(line) = lines.iter().find(|line| !products.insert(&line.product_id)) {
        return Err(about(line, "duplicate-product", "A product stands in one line of an order only."));
    }
    if let Some(line) = lines.iter().find(|line| line.quantity < 1) {
        return Err(about(line, "invalid-quantity", "A line asks for at least one piece."));
    }
    Ok(())
}

/// The fractions as [`shares`] counts them.
fn read_shares(shares: &[Share]) -> Result<Vec<u64>, Rejection> {
    let mut methods = BTreeSet::new();
    if shares.iter().any(|share| !methods.insert(share.method)) {
        return Err(Rejection::new("duplicate-method", "Each payment method can be used once in an order."));
    }
    shares::read(shares.iter().map(|share| share.share.as_str())).ok_or_else(|| {
        Rejection::new(
            "invalid-payment-shares",
            "The shares of the payment methods must add up to exactly 1.",
        )
    })
}

/// A product, as the inventory shows it.
#[derive(Deserialize)]
struct Product {
    name: String,
    unit_price: u64,
    available: u64,
}

/// The lines with the inventory's names and prices. That there is enough in stock is only a first look, which spares
/// hopeless orders their saga: what counts is the reservation.
fn price(lines: &[Wanted]) -> Result<Vec<Line>, Rejection> {
    let requests =
        lines.iter().map(|line| Request::new("inventory", "product", json!({ "id": line.product_id })));
    let answers = services::query_all::<Product>(requests);
    let products: Vec<Product> = lines.iter().zip(answers).map(product).collect::<Result<_, _>>()?;
    lines.iter().zip(products).map(priced).collect()
}

fn product((line, answer): (&Wanted, Result<Product, Failure>)) -> Result<Product, Rejection> {
    answer.map_err(|failure| match failure {
        Failure::Rejected(rejection) if rejection.code == "not-found" => {
            about(line, "unknown-product", &format!("There is no product {}.", line.product_id))
        }
        Failure::Rejected(rejection) => rejection,
        Failure::Unavailable(reason) => panic!("inventory did not answer: {reason}"),
    })
}

fn priced((line, product): (&Wanted, Product)) -> Result<Line, Rejection> {
    let Product { name, unit_price, available } = product;
    let quantity = line.quantity.unsigned_abs();
    if quantity > available {
        let details = json!({ "product_id": line.product_id, "available": available });
        let message = format!("Only {available} of {name} are left.");
        return Err(Rejection::new("insufficient-stock", message).with(details));
    }
    let amount = quantity.checked_mul(unit_price).ok_or_else(amount_too_large)?;
    Ok(Line { product_id: line.product_id.clone(), name, quantity, unit_price, amount })
}

fn total(lines: &[Line]) -> Result<u64, Rejection> {
    let total = lines.iter().try_fold(0_u64, |total, line| total.checked_add(line.amount));
    total.filter(|total| *total <= MAX_TOTAL).ok_or_else(amount_too_large)
}

fn amount_too_large() -> Rejection {
    Rejection::new("amount-too-large", format!("The total of an order cannot be above {MAX_TOTAL}."))
}

fn about(line: &Wanted, code: &str, message: &str) -> Rejection {
    Rejection::new(code, message).with(json!({ "product_id": line.product_id }))
}
