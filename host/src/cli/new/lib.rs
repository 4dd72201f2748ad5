//! The service service-name.

use kontor_sdk::prelude::*;

mod aggregate;
mod read_model;

use aggregate::ServiceName;
use read_model::List;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("service-name", env!("CARGO_PKG_VERSION"), "The purpose of the service, in one sentence.")
        .aggregate::<ServiceName>()
        .read_model(read_model::all())
        .query::<List>()
        .put("/service-name/{id}", command::<ServiceName>("open"))
        .post("/service-name/{id}/close", command::<ServiceName>("close"))
        .get("/service-name/{id}", view::<ServiceName>())
        .get("/service-name", query::<List>())
}
