//! An order: the products that a user wants, at the prices of the moment the order was placed.

use kontor_sdk::prelude::*;
use kontor_sdk::services;

use crate::bill::{Bill, Line, MAX_LINES, Part, Share, Wanted};

/// The role of those who run the shop. They see and change the orders of all users.
const CLERK: &str = "clerk";

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Order {
    status: Status,
    user_id: String,
    bill: Bill,
    /// The bill after the change, as long as the order is updating.
    next: Option<Bill>,
    address: Address,
    reason: Option<Rejection>,
}

/// While an order is updating or deleting it takes no other change: the saga that makes the change ends it.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    #[default]
    Pending,
    Confirmed,
    Cancelled,
    Updating,
    Deleting,
    Deleted,
}

#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Address {
    region: String,
    /// Street, number and all else that the carrier needs.
    line: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
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
    /// Changes the quantities and the payment. A line left out is removed; prices stay as they were.
    Update {
        #[schemars(length(max = MAX_LINES))]
        lines: Vec<Wanted>,
        payment: Vec<Share>,
    },
    /// Makes the change for good; its saga does so.
    CompleteUpdate {},
    /// Calls the order off.
    Delete {},
    /// Deletes the order for good; the saga of the deletion does so.
    CompleteDelete {},
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderEvent {
    OrderCreated { user_id: String, lines: Vec<Line>, total: u64, payment: Vec<Part>, address: Address },
    OrderConfirmed {},
    OrderCancelled { reason: Rejection },
    OrderUpdateRequested { previous: Bill, next: Bill },
    OrderUpdated(Bill),
    OrderUpdateReverted { reason: Rejection },
    OrderDeleteRequested { lines: Vec<Line> },
    OrderDeleted {},
    OrderDeleteReverted { reason: Rejection },
}

/// An order of a user.
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
    /// The reason why it was cancelled, or why the last change or deletion was not made; null otherwise.
    reason: Option<Rejection>,
}

impl Aggregate for Order {
    const NAME: &str = "order";
    const STATE_VERSION: u32 = 2;
    const COMPENSABLE: &[&str] = &["create", "update", "delete"];
    const READERS: Option<Readers> = Some(Readers { owner: "user_id", roles: &[CLERK] });
    type Command = OrderCommand;
    type Event = OrderEvent;
    type View = OrderView;

    fn decide(
        order: Option<&Self>,
        command: OrderCommand,
        context: &Context,
    ) -> Result<Vec<OrderEvent>, Error> {
        let event = match (command, order) {
            (OrderCommand::Create { user_id, lines, payment, address }, None) => {
                context.caller.must_be_or_have(&user_id, CLERK)?;
                let Bill { lines, total, payment } = Bill::new(&lines, &payment)?;
                OrderEvent::OrderCreated { user_id, lines, total, payment, address }
            }
            (OrderCommand::Create { .. }, Some(_)) => return Err(context.already_exists().into()),
            (_, None) => return Err(context.not_found().into()),
            (OrderCommand::Confirm {}, Some(order)) => {
                let message = "Only a pending order can be confirmed.";
                order.must_be(Status::Pending, "order-not-pending", message)?;
                OrderEvent::OrderConfirmed {}
            }
            (OrderCommand::Update { lines, payment }, Some(order)) => {
                context.caller.must_be_or_have(&order.user_id, CLERK)?;
                order.must_be_confirmed()?;
                let next = order.bill.changed_to(&lines, &payment)?;
                delivery_must_be_preparing(&context.aggregate_id)?;
                OrderEvent::OrderUpdateRequested { previous: order.bill.clone(), next }
            }
            (OrderCommand::CompleteUpdate {}, Some(order)) => {
                OrderEvent::OrderUpdated(order.must_have_next()?)
            }
            (OrderCommand::Delete {}, Some(order)) => {
                context.caller.must_be_or_have(&order.user_id, CLERK)?;
                order.must_be_confirmed()?;
                OrderEvent::OrderDeleteRequested { lines: order.bill.lines.clone() }
            }
            (OrderCommand::CompleteDelete {}, Some(order)) => {
                let message = "No deletion of this order has been asked for.";
                order.must_be(Status::Deleting, "order-not-deleting", message)?;
                OrderEvent::OrderDeleted {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: OrderEvent) {
        let (status, reason) = match event {
            OrderEvent::OrderCreated { user_id, lines, total, payment, address } => {
                *self = Self { user_id, bill: Bill { lines, total, payment }, address, ..Self::default() };
                (Status::Pending, None)
            }
            OrderEvent::OrderConfirmed {} => (Status::Confirmed, None),
            OrderEvent::OrderCancelled { reason } => (Status::Cancelled, Some(reason)),
            OrderEvent::OrderUpdateRequested { next, .. } => {
                self.next = Some(next);
                (Status::Updating, None)
            }
            OrderEvent::OrderUpdated(bill) => {
                self.bill = bill;
                self.next = None;
                (Status::Confirmed, None)
            }
            OrderEvent::OrderUpdateReverted { reason } => {
                self.next = None;
                (Status::Confirmed, Some(reason))
            }
            OrderEvent::OrderDeleteRequested { .. } => (Status::Deleting, None),
            OrderEvent::OrderDeleted {} => (Status::Deleted, None),
            OrderEvent::OrderDeleteReverted { reason } => (Status::Confirmed, Some(reason)),
        };
        self.status = status;
        self.reason = reason;
    }

    /// Once its saga has ended, a change is not taken back any more.
    fn compensate(
        &self,
        event: OrderEvent,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<OrderEvent>, Error> {
        let reason = reason.clone();
        match (event, self.status) {
            (OrderEvent::OrderCreated { .. }, Status::Pending) => {
                Ok(Some(OrderEvent::OrderCancelled { reason }))
            }
            (OrderEvent::OrderCreated { .. }, Status::Cancelled) => Ok(None),
            (OrderEvent::OrderUpdateRequested { .. }, Status::Updating) => {
                Ok(Some(OrderEvent::OrderUpdateReverted { reason }))
            }
            (OrderEvent::OrderUpdateRequested { previous, .. }, Status::Confirmed)
                if self.bill == previous =>
            {
                Ok(None)
            }
            (OrderEvent::OrderDeleteRequested { .. }, Status::Deleting) => {
                Ok(Some(OrderEvent::OrderDeleteReverted { reason }))
            }
            (OrderEvent::OrderDeleteRequested { .. }, Status::Confirmed) => Ok(None),
            _ => Err(context.not_compensable().into()),
        }
    }

    fn view(&self, id: &str) -> OrderView {
        let Bill { lines, total, payment } = self.bill.clone();
        OrderView {
            id: id.to_owned(),
            user_id: self.user_id.clone(),
            status: self.status,
            lines,
            total,
            payment,
            address: self.address.clone(),
            reason: self.reason.clone(),
        }
    }
}

impl Order {
    fn must_be(&self, status: Status, code: &str, message: &str) -> Result<(), Rejection> {
        if self.status == status {
            return Ok(());
        }
        Err(self.rejection(code, message))
    }

    fn must_be_confirmed(&self) -> Result<(), Rejection> {
        let message = "Only a confirmed order can be changed or deleted.";
        self.must_be(Status::Confirmed, "order-not-confirmed", message)
    }

    fn must_have_next(&self) -> Result<Bill, Rejection> {
        let message = "No change of this order has been asked for.";
        self.next.clone().ok_or_else(|| self.rejection("order-not-updating", message))
    }

    fn rejection(&self, code: &str, message: &str) -> Rejection {
        Rejection::new(code, message).with(json!({ "status": self.status }))
    }
}

/// A delivery: each service declares the part of others that it needs.
#[derive(Deserialize)]
struct Delivery {
    status: String,
}

/// Spares hopeless changes their saga. The saga itself relies on holding the delivery, not on this answer.
fn delivery_must_be_preparing(order_id: &str) -> Result<(), Error> {
    let delivery: Delivery = services::query("delivery", "delivery", json!({ "id": order_id }))?;
    if delivery.status != "preparing" {
        let message = "An order can only be changed while its delivery is in preparation.";
        let details = json!({ "status": delivery.status });
        return Err(Rejection::new("delivery-under-way", message).with(details).into());
    }
    Ok(())
}
