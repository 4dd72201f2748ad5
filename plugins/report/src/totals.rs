//! The changes that a batch of events makes to the totals.
//!
//! An order stands from `order-confirmed` to `order-deleted`, through all attempts to change it in between.
//! All totals follow from the order's own stream, so they are exact however the streams of payments and
//! deliveries are interleaved with it.

use std::collections::BTreeMap;

use kontor_sdk::{Day, db, prelude::*};

use crate::row::{Order, Status};

/// The differences that are to be added to the totals.
#[derive(Default)]
pub(crate) struct Totals<'a> {
    by_product: BTreeMap<(&'a str, Day), Total>,
    by_day: BTreeMap<Day, Total>,
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

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl<'a> Totals<'a> {
    /// Adds an order if it stands; `sign` -1 takes it away.
    pub(crate) fn add(&mut self, order: &'a Order, sign: i64) -> Result<(), SqlError> {
        let stands = matches!(order.status, Some(Status::Confirmed | Status::Updating | Status::Deleting));
        let Some(time_ms) = order.created_at_ms.filter(|_| stands) else { return Ok(()) };
        let day = Day::of(time_ms);
        let of_day = self.by_day.entry(day).or_default();
        of_day.add(sign, 0, 0);
        for line in &order.lines {
            let quantity = sign * i64::try_from(line.quantity)?;
            let amount = sign * i64::try_from(line.amount)?;
            of_day.add(0, quantity, amount);
            self.by_product.entry((&line.product_id, day)).or_default().add(sign, quantity, amount);
            self.names.insert(&line.product_id, &line.name);
        }
        Ok(())
    }

    pub(crate) fn write(self) -> Result<(), SqlError> {
        for (product, name) in self.names {
            db::execute("INSERT OR IGNORE INTO products VALUES (?1, ?2)", params![product, name])?;
        }
        for ((product, day), total) in self.by_product.into_iter().filter(|(_, total)| !total.is_zero()) {
            db::execute(
                "INSERT INTO sales_by_product VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (product_id, day) DO UPDATE SET
                     orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
                     amount = amount + excluded.amount",
                params![product, day, total.orders, total.quantity, total.amount],
            )?;
        }
        for (day, total) in self.by_day.into_iter().filter(|(_, total)| !total.is_zero()) {
            db::execute(
                "INSERT INTO sales_by_day VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (day) DO UPDATE SET
                     orders = orders + excluded.orders, quantity = quantity + excluded.quantity,
                     amount = amount + excluded.amount",
                params![day, total.orders, total.quantity, total.amount],
            )?;
        }
        Ok(())
    }
}
