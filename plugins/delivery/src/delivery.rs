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
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum DeliveryEvent {
    DeliveryScheduled { address: Address },
    DeliveryHeld {},
    DeliveryResumed {},
    DeliveryCancelled {},
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
    const COMPENSABLE: &[&str] = &["schedule", "hold", "resume", "cancel"];
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
                delivery.must_be_held()?;
                DeliveryResumed {}
            }
            (Cancel {}, Some(delivery)) => {
                delivery.must_be_preparing()?;
                DeliveryCancelled {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: DeliveryEvent) {
        match event {
            DeliveryScheduled { address } => *self = Self { status: Status::Preparing, address },
            DeliveryHeld {} => self.status = Status::Held,
            DeliveryResumed {} => self.status = Status::Preparing,
            DeliveryCancelled {} => self.status = Status::Cancelled,
        }
    }

    fn compensate(
        &self,
        event: DeliveryEvent,
        _reason: &Rejection,
        _context: &Context,
    ) -> Result<Option<DeliveryEvent>, Rejection> {
        Ok(match (event, self.status) {
            (DeliveryScheduled { .. }, Status::Preparing | Status::Held) => Some(DeliveryCancelled {}),
            (DeliveryHeld {}, Status::Held) => Some(DeliveryResumed {}),
            (DeliveryResumed {}, Status::Preparing) => Some(DeliveryHeld {}),
            (DeliveryCancelled {}, Status::Cancelled) => {
                Some(DeliveryScheduled { address: self.address.clone() })
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
        match self.status {
            Status::Preparing => Ok(()),
            _ => Err(Rejection::new(
                "delivery-under-way",
                "Only a delivery in preparation can be held or called off.",
            )),
        }
    }

    fn must_be_held(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Held => Ok(()),
            _ => Err(Rejection::new("delivery-not-held", "Only a held delivery can be resumed.")),
        }
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
