//! The payment of an order, under the order's id.

use kontor_sdk::{config, prelude::*};

use crate::gateway;

/// Configuration key: the amount above which a card is declined. If it is not set there is no limit.
pub(crate) const CARD_LIMIT: &str = "card-limit";

/// Configuration key: the amount above which there are not enough points. If it is not set there is no limit.
pub(crate) const POINTS_LIMIT: &str = "points-limit";

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Payment {
    status: Status,
    charge: Charge,
}

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    #[default]
    Authorized,
    Cancelled,
}

/// An amount, and the methods by which it is paid.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Charge {
    /// In the smallest unit of the currency.
    pub(crate) amount: u64,
    /// The parts that add up to the amount.
    pub(crate) methods: Vec<Part>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Part {
    method: Method,
    /// In the smallest unit of the currency.
    amount: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    Card,
    Points,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PaymentCommand {
    /// Takes the money for an order.
    Authorize {
        /// In the smallest unit of the currency.
        amount: u64,
        /// The parts that add up to the amount.
        methods: Vec<Part>,
    },
    /// Takes another amount than before, or takes it in another way.
    Change {
        /// In the smallest unit of the currency.
        amount: u64,
        /// The parts that add up to the amount.
        methods: Vec<Part>,
    },
    /// Gives the money back.
    Cancel {},
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PaymentEvent {
    PaymentAuthorized(Charge),
    PaymentChanged { previous: Charge, amount: u64, methods: Vec<Part> },
    PaymentCancelled {},
}

/// The payment of an order, under the order's id.
#[derive(Serialize, JsonSchema)]
pub(crate) struct PaymentView {
    id: String,
    status: Status,
    /// In the smallest unit of the currency.
    amount: u64,
    methods: Vec<Part>,
}

impl Aggregate for Payment {
    const NAME: &str = "payment";
    const COMPENSABLE: &[&str] = &["authorize", "change", "cancel"];
    type Command = PaymentCommand;
    type Event = PaymentEvent;
    type View = PaymentView;

    fn decide(
        payment: Option<&Self>,
        command: PaymentCommand,
        context: &Context,
    ) -> Result<Vec<PaymentEvent>, Error> {
        let event = match (command, payment) {
            (PaymentCommand::Authorize { amount, methods }, None) => {
                let charge = Charge { amount, methods };
                charge.check_limits()?;
                gateway::authorize(&charge, context)?;
                PaymentEvent::PaymentAuthorized(charge)
            }
            (PaymentCommand::Authorize { .. }, Some(_)) => return Err(context.already_exists().into()),
            (_, None) => return Err(context.not_found().into()),
            (PaymentCommand::Change { amount, methods }, Some(payment)) => {
                let charge = Charge { amount, methods };
                payment.must_be_authorized()?;
                charge.check_limits()?;
                gateway::change(&charge, context)?;
                payment.changed_to(charge)
            }
            (PaymentCommand::Cancel {}, Some(payment)) => {
                payment.must_be_authorized()?;
                gateway::cancel(context)?;
                PaymentEvent::PaymentCancelled {}
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: PaymentEvent) {
        match event {
            PaymentEvent::PaymentAuthorized(charge) => *self = Self { status: Status::Authorized, charge },
            PaymentEvent::PaymentChanged { amount, methods, .. } => self.charge = Charge { amount, methods },
            PaymentEvent::PaymentCancelled {} => self.status = Status::Cancelled,
        }
    }

    fn compensate(
        &self,
        event: PaymentEvent,
        _reason: &Rejection,
        context: &Context,
    ) -> Result<Option<PaymentEvent>, Error> {
        Ok(match (event, self.status) {
            (PaymentEvent::PaymentAuthorized(_), Status::Authorized) => {
                gateway::cancel(context)?;
                Some(PaymentEvent::PaymentCancelled {})
            }
            (PaymentEvent::PaymentChanged { previous, .. }, Status::Authorized) => {
                gateway::change(&previous, context)?;
                Some(self.changed_to(previous))
            }
            (PaymentEvent::PaymentCancelled {}, Status::Cancelled) => {
                gateway::authorize(&self.charge, context)?;
                Some(PaymentEvent::PaymentAuthorized(self.charge.clone()))
            }
            _ => None,
        })
    }

    /// Brings the gateway back to the state here: it may have done its part although its answer was lost.
    fn abandon(payment: Option<&Self>, command: &str, context: &Context) -> Result<(), Error> {
        match (payment, command) {
            (None, "authorize") => gateway::withdraw(context),
            (Some(Self { status: Status::Authorized, charge }), _) => gateway::restore(charge, context),
            _ => Ok(()),
        }
    }

    fn view(&self, id: &str) -> PaymentView {
        let Charge { amount, methods } = self.charge.clone();
        PaymentView { id: id.to_owned(), status: self.status, amount, methods }
    }
}

impl Payment {
    fn must_be_authorized(&self) -> Result<(), Rejection> {
        match self.status {
            Status::Authorized => Ok(()),
            Status::Cancelled => Err(Rejection::new("payment-cancelled", "The money has been given back.")),
        }
    }

    fn changed_to(&self, Charge { amount, methods }: Charge) -> PaymentEvent {
        PaymentEvent::PaymentChanged { previous: self.charge.clone(), amount, methods }
    }
}

impl Charge {
    fn check_limits(&self) -> Result<(), Error> {
        let sum = |parts: &[Part]| parts.iter().map(|part| u128::from(part.amount)).sum::<u128>();
        if sum(&self.methods) != self.amount.into() {
            let message = "The methods' amounts do not add up to the amount.";
            return Err(Rejection::new("amount-mismatch", message).into());
        }
        let (card, points): (Vec<_>, Vec<_>) =
            self.methods.iter().cloned().partition(|part| part.method == Method::Card);
        if config(CARD_LIMIT)?.is_some_and(|limit: u64| sum(&card) > limit.into()) {
            return Err(Rejection::new("card-declined", "The amount is above the card's limit.").into());
        }
        if config(POINTS_LIMIT)?.is_some_and(|limit: u64| sum(&points) > limit.into()) {
            return Err(Rejection::new("insufficient-points", "There are not enough points.").into());
        }
        Ok(())
    }
}
