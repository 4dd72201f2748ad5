//! What a batch of events changes of the totals.
//!
//! An order stands from `order-confirmed` to `order-deleted`, whatever is tried to change in between. All totals follow from
//! the order's own stream, so they are exact however the streams of payments and deliveries are interleaved with it.

use std::collections::BTreeMap;

use kontor_sdk::{db, prelude::*};

use crate::row::{Order, Status};

const DAY_MS: u64 = 86_400_000;

/// What is to be added; days are counted since 1970-01-01.
#[derive(Default)]
pub(crate) struct Totals<'a> {
    by_product: BTreeMap<(&'a str, u64), Total>,
    by_day: BTreeMap<u64, Total>,
    /// The names of products.
    names: BTreeMap<&'a str, &'a str>,
}

#[derive(Default, PartialEq)]
struct Total {
    orders: i64,
    quantity: i64,
    amount: i64,
}

impl Total {
    fn add(&mut self, orders: i64, quantity: i64, amount: i64) {
        self.orders += orders;
        self.quantity += quantity;
        self.amount += amount;
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Totals<'a> {
    /// Adds an order if it stands; `sign` -1 takes it away.
    pub(crate) fn add(&mut self, order: &'a Order, sign: i64) {
        let stands = matches!(order.status, Some(Status::Confirmed | Status::Updating | Status::Deleting));
        let Some(time_ms) = order.created_at_ms.filter(|_| stands) else { return };
        let day = time_ms / DAY_MS;
        let of_day = self.by_day.entry(day).or_default();
        of_day.add(sign, 0, 0);
        for line in &order.lines {
            let (quantity, amount) = (sign * signed(line.quantity), sign * signed(line.amount));
            of_day.add(0, quantity, amount);
            self.by_product.entry((&line.product_id, day)).or_default().add(sign, quantity, amount);
            self.names.insert(&line.product_id, &line.name);
        }
    }

    pub(crate) fn write(self) -> Result<(), SqlError> {
        for (product, name) in self.names {
            db::execute("INSERT OR IGNORE INTO products VALUES (?1, ?2)", params![product, name])?;
        }
        for ((product, day), total) in self.by_product.into_iter().filter(|(_, total)| !total.is_nothing()) {
            db::execute(
                "INSERT INTO sales_by_product VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (product_id, day) DO UPDATE SET
                     orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
                     amount = amount + excluded.amount",
                params![product, date(day), total.orders, total.quantity, total.amount],
            )?;
        }
        for (day, total) in self.by_day.into_iter().filter(|(_, total)| !total.is_nothing()) {
            db::execute(
                "INSERT INTO sales_by_day VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (day) DO UPDATE SET
                     orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
                     amount = amount + excluded.amount",
                params![date(day), total.orders, total.quantity, total.amount],
            )?;
        }
        Ok(())
    }
}

/// Panics, which is a fault, above 2⁶³−1, as SQLite's integers end there.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or_else(|_| panic!("{number} is too large to be added up"))
}

/// `2024-03-01` of a day since 1970-01-01. Not SQLite's `date`: statements with it are not kept prepared, because it may also
/// tell the time. (In eras of 400 years that begin in March, as the calendar repeats: Howard Hinnant, `civil_from_days`.)
fn date(day: u64) -> String {
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_of_the_calendar() {
        for (day, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (20_088, "2024-12-31"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(day), expected);
        }
    }
}
