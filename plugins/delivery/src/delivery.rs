//! The delivery of an order, under the order's id.

use kontor_sdk::{config, prelude::*};

use DeliveryCommand::*;
use DeliveryEvent::*;

/// The configured list of regions that nothing is delivered to; unset: there is none.
pub(crate) const UNDELIVERABLE_REGIONS: &str = "undeliverable-regions";

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Delivery {
    status: Status,
    address: Address,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    #[default]
    Preparing,
    /// Must not start, because the order is being changed.
    Held,
    /// About to leave: the stock is being taken out.
    Starting,
    InTransit,
    Delivered,
    Cancelled,
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
pub(crate) enum DeliveryCommand {
    /// Plans the delivery of an order.
    Schedule { address: Address },
    /// Keeps the delivery from starting while its order changes.
    Hold {},
    /// Lets a held delivery go on.
    Resume {},
    /// Calls the delivery off.
    Cancel {},
    /// Sends the order out.
    Start {},
    /// Tells that all of the order has left the stock; the saga of the start does so.
    ConfirmStart {},
    /// Tells that the order has arrived.
    Complete {},
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum DeliveryEvent {
    DeliveryScheduled { address: Address },
    DeliveryHeld {},
    DeliveryResumed {},
    DeliveryCancelled {},
    DeliveryStartRequested {},
    DeliveryStartRefused { reason: Rejection },
    DeliveryStarted {},
    DeliveryCompleted {},
}

/// The delivery of an order, under the order's id.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DeliveryView {
    id: String,
    status: Status,
    address: Address,
}

impl Aggregate for Delivery {
    const NAME: &str = "delivery";
    const COMPENSABLE: &[&str] = &["schedule", "hold", "resume", "cancel", "start"];
    type Command = DeliveryCommand;
    type Event = DeliveryEvent;
    type View = DeliveryView;

    fn decide(
        delivery: Option<&Self>,
        command: DeliveryCommand,
        context: &Context,
    ) -> Result<Vec<DeliveryEvent>, Rejection> {
        let event = match (command, delivery) {
            (Schedule { address }, None) => {
                address.must_be_deliverable()?;
                DeliveryScheduled { address }
            }
            (Schedule { .. }, Some(_)) => return Err(context.already_exists()),
            (_, None) => return Err(context.not_found()),
            (Hold {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryHeld {}
            }
            (Resume {}, Some(delivery)) => {
                let message = "Only a held delivery can be resumed.";
                delivery.must_be(Status::Held, "delivery-not-held", message)?;
                DeliveryResumed {}
            }
            (Cancel {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryCancelled {}
            }
            (Start {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryStartRequested {}
            }
            (ConfirmStart {}, Some(delivery)) => {
                let message = "No start of this delivery has been asked for.";
                delivery.must_be(Status::Starting, "delivery-not-starting", message)?;
                DeliveryStarted {}
            }
            (Complete {}, Some(delivery)) => {
                let message = "Only a delivery in transit can be completed.";
                delivery.must_be(Status::InTransit, "delivery-not-in-transit", message)?;
                DeliveryCompleted {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: DeliveryEvent) {
        self.status = match event {
            DeliveryScheduled { address } => {
                self.address = address;
                Status::Preparing
            }
            DeliveryHeld {} => Status::Held,
            DeliveryResumed {} | DeliveryStartRefused { .. } => Status::Preparing,
            DeliveryCancelled {} => Status::Cancelled,
            DeliveryStartRequested {} => Status::Starting,
            DeliveryStarted {} => Status::InTransit,
            DeliveryCompleted {} => Status::Delivered,
        };
    }

    /// What has left needs a person to bring it back.
    fn compensate(
        &self,
        event: DeliveryEvent,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<DeliveryEvent>, Rejection> {
        use Status::*;
        Ok(match (event, self.status) {
            // Nothing of an order that is not placed leaves the stock, so a start that has been asked for meanwhile can
            // only be refused.
            (DeliveryScheduled { .. }, Preparing | Held | Starting) => Some(DeliveryCancelled {}),
            (DeliveryHeld {}, Held) => Some(DeliveryResumed {}),
            (DeliveryResumed {}, Preparing) => Some(DeliveryHeld {}),
            (DeliveryCancelled {}, Cancelled) => Some(DeliveryScheduled { address: self.address.clone() }),
            (DeliveryStartRequested {}, Starting) => Some(DeliveryStartRefused { reason: reason.clone() }),
            (DeliveryHeld {} | DeliveryCancelled {}, _) => None,
            (DeliveryResumed {}, Starting) | (_, InTransit | Delivered) => {
                return Err(context.not_compensable());
            }
            _ => None,
        })
    }

    fn view(&self, id: &str) -> DeliveryView {
        DeliveryView { id: id.to_owned(), status: self.status, address: self.address.clone() }
    }
}

impl Delivery {
    fn must_be_preparing(&self) -> Result<(), Rejection> {
        let message = "Only a delivery in preparation can be held, started or called off.";
        self.must_be(Status::Preparing, "delivery-under-way", message)
    }

    fn must_be(&self, status: Status, code: &str, message: &str) -> Result<(), Rejection> {
        if self.status == status {
            return Ok(());
        }
        Err(Rejection::new(code, message).with(json!({ "status": self.status })))
    }
}

impl Address {
    fn must_be_deliverable(&self) -> Result<(), Rejection> {
        let undeliverable: Vec<String> = config(UNDELIVERABLE_REGIONS).unwrap_or_default();
        if undeliverable.contains(&self.region) {
            let rejection =
                Rejection::new("undeliverable", format!("Nothing is delivered to {}.", self.region));
            return Err(rejection.with(json!({ "region": self.region })));
        }
        Ok(())
    }
}
