//! A product: stock comes in, is reserved for orders when they are placed, and leaves with them.

use std::collections::BTreeMap;

use kontor_sdk::prelude::*;

/// The largest integer that every reader of JSON keeps exact, 2⁵³−1: no price and no stock is above it.
const MAX: u64 = 9_007_199_254_740_991;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Product {
    name: String,
    unit_price: u64,
    available: u64,
    /// The quantity reserved for each order, by the order's id.
    reservations: BTreeMap<String, u64>,
    /// The stock that has left, of all orders together.
    shipped: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ProductCommand {
    /// Makes the product known, with its first stock.
    Register {
        #[schemars(length(min = 1))]
        name: String,
        /// In the smallest unit of the currency.
        #[schemars(range(max = MAX))]
        unit_price: u64,
        #[schemars(range(max = MAX))]
        quantity: u64,
    },
    /// Takes new stock in.
    AddStock {
        #[schemars(range(min = 1, max = MAX))]
        quantity: u64,
    },
    /// Takes out stock that is not reserved.
    RemoveStock {
        #[schemars(range(min = 1, max = MAX))]
        quantity: u64,
    },
    /// Sets stock aside for an order.
    Reserve {
        order_id: String,
        #[schemars(range(min = 1, max = MAX))]
        quantity: u64,
    },
    /// Sets more or less aside for an order than before.
    ChangeReservation {
        order_id: String,
        #[schemars(range(min = 1, max = MAX))]
        quantity: u64,
    },
    /// Gives an order's reserved stock back.
    Release { order_id: String },
    /// Sends an order's reserved stock out.
    Ship { order_id: String },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProductEvent {
    ProductRegistered { name: String, unit_price: u64, quantity: u64 },
    StockAdded { quantity: u64 },
    StockRemoved { quantity: u64 },
    StockReserved { order_id: String, quantity: u64 },
    ReservationChanged { order_id: String, from: u64, to: u64 },
    StockReleased { order_id: String, quantity: u64 },
    StockShipped { order_id: String, quantity: u64 },
    StockUnshipped { order_id: String, quantity: u64 },
}

/// A product and its stock.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct ProductView {
    pub(crate) id: String,
    name: String,
    /// In the smallest unit of the currency.
    unit_price: u64,
    /// Stock that can still be reserved.
    available: u64,
    /// Stock that is set aside for orders that have not been shipped.
    reserved: u64,
    /// Stock that has left with orders.
    shipped: u64,
}

impl Aggregate for Product {
    const NAME: &str = "product";
    const COMPENSABLE: &[&str] = &["reserve", "change-reservation", "release", "ship"];
    type Command = ProductCommand;
    type Event = ProductEvent;
    type View = ProductView;

    fn decide(
        product: Option<&Self>,
        command: ProductCommand,
        context: &Context,
    ) -> Result<Vec<ProductEvent>, Error> {
        let event = match (command, product) {
            (ProductCommand::Register { name, unit_price, quantity }, None) => {
                ProductEvent::ProductRegistered { name, unit_price, quantity }
            }
            (ProductCommand::Register { .. }, Some(_)) => return Err(context.already_exists().into()),
            (_, None) => return Err(context.not_found().into()),
            (ProductCommand::AddStock { quantity }, Some(product)) => product.add_stock(quantity)?,
            (ProductCommand::RemoveStock { quantity }, Some(product)) => product.remove_stock(quantity)?,
            (ProductCommand::Reserve { order_id, quantity }, Some(product)) => {
                product.reserve(order_id, quantity)?
            }
            (ProductCommand::ChangeReservation { order_id, quantity }, Some(product)) => {
                product.change_reservation(order_id, quantity)?
            }
            (ProductCommand::Release { order_id }, Some(product)) => {
                let quantity = product.reserved_for(&order_id)?;
                ProductEvent::StockReleased { order_id, quantity }
            }
            (ProductCommand::Ship { order_id }, Some(product)) => {
                let quantity = product.reserved_for(&order_id)?;
                ProductEvent::StockShipped { order_id, quantity }
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: ProductEvent) {
        match event {
            ProductEvent::ProductRegistered { name, unit_price, quantity } => {
                self.name = name;
                self.unit_price = unit_price;
                self.available = quantity;
            }
            ProductEvent::StockAdded { quantity } => self.available += quantity,
            ProductEvent::StockRemoved { quantity } => self.available -= quantity,
            ProductEvent::StockReserved { order_id, quantity } => {
                self.available -= quantity;
                self.reservations.insert(order_id, quantity);
            }
            ProductEvent::ReservationChanged { order_id, from, to } => {
                self.available = self.available + from - to;
                self.reservations.insert(order_id, to);
            }
            ProductEvent::StockReleased { order_id, quantity } => {
                self.available += quantity;
                self.reservations.remove(&order_id);
            }
            ProductEvent::StockShipped { order_id, quantity } => {
                self.reservations.remove(&order_id);
                self.shipped += quantity;
            }
            ProductEvent::StockUnshipped { order_id, quantity } => {
                self.shipped -= quantity;
                self.reservations.insert(order_id, quantity);
            }
        }
    }

    fn compensate(
        &self,
        event: ProductEvent,
        _reason: &Rejection,
        context: &Context,
    ) -> Result<Option<ProductEvent>, Error> {
        Ok(match event {
            ProductEvent::StockReserved { order_id, .. } => self.undo_reserve(order_id),
            ProductEvent::ReservationChanged { order_id, from, .. } => self.undo_change(order_id, from)?,
            ProductEvent::StockReleased { order_id, quantity } => self.undo_release(order_id, quantity)?,
            ProductEvent::StockShipped { order_id, quantity } => self.undo_ship(order_id, quantity),
            _ => return Err(context.not_compensable().into()),
        })
    }

    fn view(&self, id: &str) -> ProductView {
        ProductView {
            id: id.to_owned(),
            name: self.name.clone(),
            unit_price: self.unit_price,
            available: self.available,
            reserved: self.reserved(),
            shipped: self.shipped,
        }
    }
}

/// The rules. A rejection that concerns stock says how much there is.
impl Product {
    fn add_stock(&self, quantity: u64) -> Result<ProductEvent, Rejection> {
        if quantity > MAX - self.available - self.reserved() - self.shipped {
            let message = format!("A product cannot have more than {MAX} pieces.");
            return Err(Rejection::new("amount-too-large", message));
        }
        Ok(ProductEvent::StockAdded { quantity })
    }

    fn remove_stock(&self, quantity: u64) -> Result<ProductEvent, Rejection> {
        self.must_have(quantity)?;
        Ok(ProductEvent::StockRemoved { quantity })
    }

    fn reserve(&self, order_id: String, quantity: u64) -> Result<ProductEvent, Rejection> {
        if self.reservations.contains_key(&order_id) {
            let message = format!("Order {order_id} has its reservation already.");
            return Err(Rejection::new("already-reserved", message));
        }
        self.must_have(quantity)?;
        Ok(ProductEvent::StockReserved { order_id, quantity })
    }

    fn change_reservation(&self, order_id: String, to: u64) -> Result<ProductEvent, Rejection> {
        let from = self.reserved_for(&order_id)?;
        self.must_have(to.saturating_sub(from))?;
        Ok(ProductEvent::ReservationChanged { order_id, from, to })
    }

    fn reserved_for(&self, order_id: &str) -> Result<u64, Rejection> {
        self.reservations.get(order_id).copied().ok_or_else(|| {
            Rejection::new("not-reserved", format!("Nothing is reserved for order {order_id}."))
        })
    }

    fn reserved(&self) -> u64 {
        self.reservations.values().sum()
    }

    fn must_have(&self, quantity: u64) -> Result<(), Rejection> {
        let Self { name, available, .. } = self;
        if quantity > *available {
            let message = format!("Only {available} of {name} are left.");
            return Err(Rejection::new("insufficient-stock", message).with(json!({ "available": available })));
        }
        Ok(())
    }
}

/// The undos of the steps: `None` if nothing is left to take back.
impl Product {
    fn undo_reserve(&self, order_id: String) -> Option<ProductEvent> {
        let quantity = *self.reservations.get(&order_id)?;
        Some(ProductEvent::StockReleased { order_id, quantity })
    }

    fn undo_change(&self, order_id: String, to: u64) -> Result<Option<ProductEvent>, Rejection> {
        let Some(&from) = self.reservations.get(&order_id) else {
            return Ok(None);
        };
        self.must_have(to.saturating_sub(from))?;
        Ok(Some(ProductEvent::ReservationChanged { order_id, from, to }))
    }

    fn undo_release(&self, order_id: String, quantity: u64) -> Result<Option<ProductEvent>, Rejection> {
        if self.reservations.contains_key(&order_id) {
            return Ok(None);
        }
        self.must_have(quantity)?;
        Ok(Some(ProductEvent::StockReserved { order_id, quantity }))
    }

    fn undo_ship(&self, order_id: String, quantity: u64) -> Option<ProductEvent> {
        let gone = !self.reservations.contains_key(&order_id);
        gone.then_some(ProductEvent::StockUnshipped { order_id, quantity })
    }
}
