//! The bill of an order: its lines, its total and how it is paid.

use std::collections::BTreeSet;

use kontor_sdk::services::{self, Request};
use kontor_sdk::{Shares, prelude::*};

/// Maximum number of lines. Each line is a step of a saga, and the saga takes them all at once.
pub(crate) const MAX_LINES: usize = 100;

/// Maximum total of an order, so that read models can keep totals as SQL integers.
const MAX_TOTAL: u64 = i64::MAX as u64;

/// The lines of an order, their total and how it is paid.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Bill {
    pub(crate) lines: Vec<Line>,
    /// In the smallest unit of the currency.
    pub(crate) total: u64,
    pub(crate) payment: Vec<Part>,
}

/// A product in an order. Amounts are in the smallest unit of the currency.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Line {
    pub(crate) product_id: String,
    pub(crate) name: String,
    pub(crate) quantity: u64,
    unit_price: u64,
    amount: u64,
}

/// The part of the total that is paid in one way, in the smallest unit of the currency.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// A product and the number of pieces wanted, at least 1.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    product_id: String,
    quantity: i64,
}

/// The fraction of the total to be paid in one way.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    method: Method,
    /// A decimal fraction with at most 18 places: `"0.9"`. All of an order's shares add up to 1.
    share: String,
}

impl Bill {
    /// Makes the bill of a new order, with the inventory's names and prices.
    pub(crate) fn new(wanted: &[Wanted], shares: &[Share]) -> Result<Self, Error> {
        Self::build(wanted, shares, price)
    }

    /// Makes the bill of the same order with other quantities, paid in other shares. Products keep their
    /// names and prices.
    pub(crate) fn changed_to(&self, wanted: &[Wanted], shares: &[Share]) -> Result<Self, Error> {
        Self::build(wanted, shares, |wanted| wanted.iter().map(|wanted| Ok(self.line(wanted)?)).collect())
    }

    /// Returns the number of pieces of a product that are ordered.
    pub(crate) fn quantity_of(&self, product_id: &str) -> u64 {
        self.lines.iter().find(|line| line.product_id == product_id).map_or(0, |line| line.quantity)
    }

    fn build(
        wanted: &[Wanted],
        shares: &[Share],
        price: impl FnOnce(&[Wanted]) -> Result<Vec<Line>, Error>,
    ) -> Result<Self, Error> {
        check_lines(wanted)?;
        let fractions = read_shares(shares)?;
        let lines = price(wanted)?;
        let total = total(&lines)?;
        let amounts = fractions.split(total);
        let payment =
            shares.iter().zip(amounts).map(|(share, amount)| Part { method: share.method, amount }).collect();
        Ok(Self { lines, total, payment })
    }

    fn line(&self, wanted: &Wanted) -> Result<Line, Rejection> {
        let line = self.lines.iter().find(|line| line.product_id == wanted.product_id);
        let Line { name, unit_price, .. } = line.ok_or_else(|| {
            line_rejection(
                wanted,
                "product-not-in-order",
                "A change can only keep, change or leave out what is ordered.",
            )
        })?;
        wanted.to_line(name.clone(), *unit_price)
    }
}

impl Wanted {
    /// Makes the line of a product with this name and price. The quantity has been checked.
    fn to_line(&self, name: String, unit_price: u64) -> Result<Line, Rejection> {
        let quantity = self.quantity.unsigned_abs();
        let amount = quantity.checked_mul(unit_price).ok_or_else(amount_too_large)?;
        Ok(Line { product_id: self.product_id.clone(), name, quantity, unit_price, amount })
    }
}

fn check_lines(lines: &[Wanted]) -> Result<(), Rejection> {
    if lines.is_empty() {
        return Err(Rejection::new("no-lines", "An order has at least one line."));
    }
    let mut products = BTreeSet::new();
    if let Some(line) = lines.iter().find(|line| !products.insert(&line.product_id)) {
        return Err(line_rejection(
            line,
            "duplicate-product",
            "A product stands in one line of an order only.",
        ));
    }
    if let Some(line) = lines.iter().find(|line| line.quantity < 1) {
        return Err(line_rejection(line, "invalid-quantity", "A line asks for at least one piece."));
    }
    Ok(())
}

fn read_shares(shares: &[Share]) -> Result<Shares, Rejection> {
    let mut methods = BTreeSet::new();
    if shares.iter().any(|share| !methods.insert(share.method)) {
        return Err(Rejection::new("duplicate-method", "Each payment method can be used once in an order."));
    }
    Shares::read(shares.iter().map(|share| share.share.as_str())).ok_or_else(|| {
        Rejection::new(
            "invalid-payment-shares",
            "The shares of the payment methods must add up to exactly 1.",
        )
    })
}

/// A product: each service declares the part of others that it needs.
#[derive(Deserialize)]
struct Product {
    name: String,
    unit_price: u64,
    available: u64,
}

/// Makes the lines with the inventory's names and prices. The check of the stock only spares hopeless orders
/// their saga; the saga itself relies on the reservation.
fn price(lines: &[Wanted]) -> Result<Vec<Line>, Error> {
    let requests =
        lines.iter().map(|line| Request::new("inventory", "product", json!({ "id": line.product_id })));
    let answers = services::query_all::<Product>(requests);
    let products: Vec<Product> = lines.iter().zip(answers).map(product).collect::<Result<_, _>>()?;
    lines.iter().zip(products).map(|pair| Ok(priced(pair)?)).collect()
}

fn product((line, answer): (&Wanted, Result<Product, Error>)) -> Result<Product, Error> {
    answer.map_err(|error| match error {
        Error::Rejected(rejection) if rejection.code == "not-found" => {
            let message = format!("There is no product {}.", line.product_id);
            line_rejection(line, "unknown-product", &message).into()
        }
        error => error,
    })
}

fn priced((line, product): (&Wanted, Product)) -> Result<Line, Rejection> {
    let Product { name, unit_price, available } = product;
    if line.quantity.unsigned_abs() > available {
        let details = json!({ "product_id": line.product_id, "available": available });
        let message = format!("Only {available} of {name} are left.");
        return Err(Rejection::new("insufficient-stock", message).with(details));
    }
    line.to_line(name, unit_price)
}

fn total(lines: &[Line]) -> Result<u64, Rejection> {
    let total = lines.iter().try_fold(0_u64, |total, line| total.checked_add(line.amount));
    total.filter(|total| *total <= MAX_TOTAL).ok_or_else(amount_too_large)
}

fn amount_too_large() -> Rejection {
    Rejection::new("amount-too-large", format!("The total of an order cannot be above {MAX_TOTAL}."))
}

fn line_rejection(line: &Wanted, code: &str, message: &str) -> Rejection {
    Rejection::new(code, message).with(json!({ "product_id": line.product_id }))
}
