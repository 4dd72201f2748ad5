//! The aggregate, which is opened with a title and closed once.

use kontor_sdk::prelude::*;

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct ServiceName {
    title: String,
    closed: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ServiceNameCommand {
    /// Opens it with a title.
    Open {
        #[schemars(length(min = 1, max = 200))]
        title: String,
    },
    /// Closes it. It cannot be opened again.
    Close {},
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServiceNameEvent {
    ServiceNameOpened { title: String },
    ServiceNameClosed {},
}

/// The part of the state that clients see.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct ServiceNameView {
    pub(crate) id: String,
    title: String,
    closed: bool,
}

impl Aggregate for ServiceName {
    const NAME: &str = "service-name";
    type Command = ServiceNameCommand;
    type Event = ServiceNameEvent;
    type View = ServiceNameView;

    fn decide(
        state: Option<&Self>,
        command: ServiceNameCommand,
        context: &Context,
    ) -> Result<Vec<ServiceNameEvent>, Error> {
        let event = match (command, state) {
            (ServiceNameCommand::Open { title }, None) => ServiceNameEvent::ServiceNameOpened { title },
            (ServiceNameCommand::Open { .. }, Some(_)) => return Err(context.already_exists().into()),
            (ServiceNameCommand::Close {}, None) => return Err(context.not_found().into()),
            (ServiceNameCommand::Close {}, Some(state)) => state.close()?,
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: ServiceNameEvent) {
        match event {
            ServiceNameEvent::ServiceNameOpened { title } => self.title = title,
            ServiceNameEvent::ServiceNameClosed {} => self.closed = true,
        }
    }

    fn view(&self, id: &str) -> ServiceNameView {
        ServiceNameView { id: id.to_owned(), title: self.title.clone(), closed: self.closed }
    }
}

/// The rules.
impl ServiceName {
    fn close(&self) -> Result<ServiceNameEvent, Rejection> {
        if self.closed {
            let message = format!("{} was closed before.", self.title);
            return Err(Rejection::new("already-closed", message));
        }
        Ok(ServiceNameEvent::ServiceNameClosed {})
    }
}
