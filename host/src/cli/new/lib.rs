//! The service service-name.

use kontor_sdk::prelude::*;

mod aggregate;
mod read_model;

use aggregate::ServiceName;

kontor_sdk::export!(service);

fn service() -> Service {
    Service::new("service-name", env!("CARGO_PKG_VERSION"), "What it is for, in one sentence.")
        .aggregate::<ServiceName>()
        .read_model(read_model::all())
        .query("list", "All of them in the order of their ids.", read_model::list)
        .put("/service-name/{id}", command::<ServiceName>("open"))
        .post("/service-name/{id}/close", command::<ServiceName>("close"))
        .get("/service-name/{id}", view::<ServiceName>())
        .get("/service-name", query("list"))
}
