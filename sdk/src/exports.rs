//! The component's side of the contract, answered from the [`Service`].

use crate::aggregate::Handler;
use crate::bindings::exports::kontor::service::{aggregates, manifest, projections, queries, sagas};
use crate::bindings::kontor::service::types::Rejection;
use crate::service::Service;
use crate::{Error, RecordedEvent, fail};

/// The component that [`export!`](crate::export) makes of a service.
pub trait Component {
    /// Returns the service, which is made once for an instance of the component.
    fn service() -> &'static Service;
}

impl<C: Component> manifest::Guest for C {
    fn describe() -> manifest::Manifest {
        C::service().describe()
    }
}

impl<C: Component> aggregates::Guest for C {
    fn decide(
        target: aggregates::Target,
        command: aggregates::Command,
    ) -> Result<aggregates::Decision, Rejection> {
        (aggregate::<C>(&target.aggregate).decide)(target, command).map_err(rejection)
    }

    fn compensate(
        target: aggregates::Target,
        compensation: aggregates::Compensation,
    ) -> Result<aggregates::Decision, Rejection> {
        (aggregate::<C>(&target.aggregate).compensate)(target, compensation).map_err(rejection)
    }

    fn evolve(target: aggregates::Target) -> Option<aggregates::Folded> {
        (aggregate::<C>(&target.aggregate).evolve)(target).unwrap_or_else(|error| trap(&error))
    }
}

fn aggregate<C: Component>(name: &str) -> &'static Handler {
    let handler = C::service().aggregates.iter().find(|aggregate| aggregate.name == name);
    handler.unwrap_or_else(|| trap(&format!("this service has no aggregate {name}")))
}

impl<C: Component> sagas::Guest for C {
    fn run(name: String, trigger: RecordedEvent) -> Result<(), Rejection> {
        match C::service().sagas.iter().find(|saga| saga.name == name) {
            Some(saga) => (saga.run)(trigger).map_err(rejection),
            None => trap(&format!("this service has no saga {name}")),
        }
    }
}

impl<C: Component> projections::Guest for C {
    fn project(events: Vec<RecordedEvent>) -> Result<(), String> {
        match &C::service().read_model {
            Some(read_model) => read_model.project(&events),
            None => Err("this service has no read model".to_owned()),
        }
    }
}

impl<C: Component> queries::Guest for C {
    fn answer(name: String, arguments: String) -> Result<String, Rejection> {
        match C::service().queries.iter().find(|query| query.name == name) {
            Some(query) => (query.answer)(&arguments).map_err(rejection),
            None => trap(&format!("this service has no query {name}")),
        }
    }
}

/// The rejection of a call. A fault is not an answer: it traps.
fn rejection(error: Error) -> Rejection {
    match error {
        Error::Rejected(rejection) => rejection.into(),
        Error::Fault(reason) => trap(&reason),
    }
}

/// Ends the call as a fault with a sentence.
fn trap(reason: &impl std::fmt::Display) -> ! {
    fail(&reason.to_string())
}

/// Makes the component out of the function that declares its [`Service`].
#[macro_export]
macro_rules! export {
    ($service:path) => {
        struct Component;

        impl $crate::exports::Component for Component {
            fn service() -> &'static $crate::Service {
                static SERVICE: ::std::sync::OnceLock<$crate::Service> = ::std::sync::OnceLock::new();
                SERVICE.get_or_init($service)
            }
        }

        #[cfg(target_arch = "wasm32")]
        $crate::bindings::export_component!(Component with_types_in $crate::bindings);

        // Native linkers do not take the names of the exports. A native build is there to check and test the
        // rules.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> &'static $crate::Service = <Component as $crate::exports::Component>::service;
    };
}
