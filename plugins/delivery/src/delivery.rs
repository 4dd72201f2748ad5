//! The delivery of an order, under the order's id.

use kontor_sdk::{config, prelude::*};

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
pub(crate) struct Address {
    region: String,
    /// Street, number and all else that the carrier needs.
    line: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
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
#[serde(rename_all = "kebab-case")]
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
    ) -> Result<Vec<DeliveryEvent>, Error> {
        let event = match (command, delivery) {
            (DeliveryCommand::Schedule { address }, None) => {
                address.must_be_deliverable()?;
                DeliveryEvent::DeliveryScheduled { address }
            }
            (DeliveryCommand::Schedule { .. }, Some(_)) => return Err(context.already_exists().into()),
            (_, None) => return Err(context.not_found().into()),
            (DeliveryCommand::Hold {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryEvent::DeliveryHeld {}
            }
            (DeliveryCommand::Resume {}, Some(delivery)) => {
                let message = "Only a held delivery can be resumed.";
                delivery.must_be(Status::Held, "delivery-not-held", message)?;
                DeliveryEvent::DeliveryResumed {}
            }
            (DeliveryCommand::Cancel {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryEvent::DeliveryCancelled {}
            }
            (DeliveryCommand::Start {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryEvent::DeliveryStartRequested {}
            }
            (DeliveryCommand::ConfirmStart {}, Some(delivery)) => {
                let message = "No start of this delivery has been asked for.";
                delivery.must_be(Status::Starting, "delivery-not-starting", message)?;
                DeliveryEvent::DeliveryStarted {}
            }
            (DeliveryCommand::Complete {}, Some(delivery)) => {
                let message = "Only a delivery in transit can be completed.";
                delivery.must_be(Status::InTransit, "delivery-not-in-transit", message)?;
                DeliveryEvent::DeliveryCompleted {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: DeliveryEvent) {
        self.status = match event {
            DeliveryEvent::DeliveryScheduled { address } => {
                self.address = address;
                Status::Preparing
            }
            DeliveryEvent::DeliveryHeld {} => Status::Held,
            DeliveryEvent::DeliveryResumed {} | DeliveryEvent::DeliveryStartRefused { .. } => {
                Status::Preparing
            }
            DeliveryEvent::DeliveryCancelled {} => Status::Cancelled,
            DeliveryEvent::DeliveryStartRequested {} => Status::Starting,
            DeliveryEvent::DeliveryStarted {} => Status::InTransit,
            DeliveryEvent::DeliveryCompleted {} => Status::Delivered,
        };
    }

    /// A delivery that has left can only be brought back by an operator.
    fn compensate(
        &self,
        event: DeliveryEvent,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<DeliveryEvent>, Error> {
        use DeliveryEvent::*;
        use Status::*;

        Ok(match (event, self.status) {
            // Nothing of an order that is not placed leaves the stock, so a start that has been requested
            // meanwhile can only be rejected.
            (DeliveryScheduled { .. }, Preparing | Held | Starting) => Some(DeliveryCancelled {}),
            (DeliveryHeld {}, Held) => Some(DeliveryResumed {}),
            (DeliveryResumed {}, Preparing) => Some(DeliveryHeld {}),
            (DeliveryCancelled {}, Cancelled) => Some(DeliveryScheduled { address: self.address.clone() }),
            (DeliveryStartRequested {}, Starting) => Some(DeliveryStartRefused { reason: reason.clone() }),
            (DeliveryHeld {} | DeliveryCancelled {}, _) => None,
            (DeliveryResumed {}, Starting) | (_, InTransit | Delivered) => {
                return Err(context.not_compensable().into());
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
    fn must_be_deliverable(&self) -> Result<(), Error> {
        let undeliverable: Vec<String> = config(UNDELIVERABLE_REGIONS)?.unwrap_or_default();
        if undeliverable.contains(&self.region) {
            let rejection =
                Rejection::new("undeliverable", format!("Nothing is delivered to {}.", self.region));
            return Err(rejection.with(json!({ "region": self.region })).into());
        }
        Ok(())
    }
}
