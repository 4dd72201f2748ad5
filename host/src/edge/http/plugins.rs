//! The services of the host, for operators: the running ones, their history, deploy, rollback and undeploy.

use axum::body::BodyDataStream;

use super::header_docs::{KONTOR_ACTOR, KONTOR_SIGNATURE};
use super::route::{Content, FromBody, Head, HostRoute, Json as JsonBody, Request};
use super::upload;
use crate::api::{
    DeployProgress, DeployQuery, Page, PageQuery, Plugin, PluginChange, PluginList, RollbackRequest,
    UndeployQuery, UndeployedPlugin, page_size,
};
use crate::contract::{Method, Problem, ProblemCode};
use crate::deploy::{DeployError, Options, Report, Upload};
use crate::deployed::Release;
use crate::error::Chain;
use crate::model::{AUDITOR, DEPLOYER, Json, MONITOR, Version};

pub(super) fn routes() -> Vec<HostRoute> {
    vec![
        HostRoute::get("/admin/plugins", "plugins.list", list)
            .roles(&[DEPLOYER, MONITOR, AUDITOR])
            .summary("Lists the deployed services."),
        HostRoute::new(Method::Put, "/admin/plugins", "plugins.deploy", deploy)
            .roles(&[DEPLOYER])
            .summary("Deploys components: runs the gates, then swaps them for the running ones.")
            .headers(&[KONTOR_ACTOR, KONTOR_SIGNATURE]),
        HostRoute::get("/admin/plugins/progress", "plugins.progress", progress)
            .roles(&[DEPLOYER, MONITOR, AUDITOR])
            .summary("Shows how far the deployment in progress is."),
        HostRoute::get("/admin/plugins/history", "plugins.history", history)
            .roles(&[DEPLOYER, MONITOR, AUDITOR])
            .summary("Lists every deployment, rollback and removal, newest last."),
        HostRoute::post("/admin/plugins/{service}/rollback", "plugins.rollback", roll_back)
            .roles(&[DEPLOYER])
            .summary("Rolls a service back to a component that ran before.")
            .headers(&[KONTOR_ACTOR]),
        HostRoute::new(Method::Delete, "/admin/plugins/{service}", "plugins.undeploy", undeploy)
            .roles(&[DEPLOYER])
            .summary("Undeploys a service. Its events stay in the log.")
            .headers(&[KONTOR_ACTOR]),
    ]
}

async fn list(request: Request) -> Result<JsonBody<PluginList>, Problem> {
    let deployer = &request.server().host.deployer;
    let running = deployer.running();
    let services = request.tables().deployed.services();
    let plugin = |(digest, manifest)| {
        let running = running.iter().find(|running| running.release.digest == digest);
        Plugin::new(digest, manifest, running)
    };
    let items = services.map(|service| (service.digest(), &**service.manifest())).map(plugin).collect();
    Ok(JsonBody(PluginList { items, warnings: deployer.warnings().collect() }))
}

/// Returns the gate that a component is at, if one is examined.
async fn progress(request: Request) -> Result<JsonBody<DeployProgress>, Problem> {
    Ok(JsonBody(DeployProgress { step: request.server().host.deployer.step() }))
}

/// Returns the changes in the order of the log.
async fn history(
    request: Request<PageQuery<Version>>,
) -> Result<JsonBody<Page<PluginChange, Version>>, Problem> {
    let (after, limit) = (request.query.after.unwrap_or_default(), page_size(request.query.limit));
    let entries = request.server().host.deployer.history(after, limit).await?;
    // A deployment of several services is not divided, so a page may have more items than its limit.
    let items = entries.into_iter().map(PluginChange::from).collect();
    Ok(JsonBody(Page::new(items, limit, |change: &PluginChange| change.version)))
}

/// Returns the report of the gates if the components run now, or would.
async fn deploy(request: Request<DeployQuery, Components>) -> Result<JsonBody<Report>, Problem> {
    let DeployQuery { dry_run, note, sample, allow_breaking, grant } = request.query.clone();
    let sample = sample.map(|streams| usize::try_from(streams).unwrap_or(usize::MAX));
    let options = Options { dry_run, note, sample, allow_breaking, grants: grant, from_directory: false };
    let caller = request.actor();
    let deployer = request.server().host.deployer.clone();
    Ok(JsonBody(deployer.deploy(request.body.0, options, &caller).await?))
}

async fn roll_back(request: Request<(), JsonBody<RollbackRequest>>) -> Result<JsonBody<Report>, Problem> {
    let RollbackRequest { to, note, allow_breaking } = request.body.0.clone();
    let options = Options { note, allow_breaking, ..Options::default() };
    let (service, deployer) = (request.path("service")?, &request.server().host.deployer);
    Ok(JsonBody(deployer.roll_back(&service, to.as_deref(), options, &request.actor()).await?))
}

async fn undeploy(request: Request<UndeployQuery>) -> Result<JsonBody<UndeployedPlugin>, Problem> {
    let UndeployQuery { note, allow_breaking } = request.query.clone();
    let options = Options { note, allow_breaking, ..Options::default() };
    let (service, deployer) = (request.path("service")?, &request.server().host.deployer);
    let Release { service, digest, .. } = deployer.undeploy(&service, options, &request.actor()).await?;
    Ok(JsonBody(UndeployedPlugin { service, digest }))
}

/// The components of a deployment. Bytes have no schema.
struct Components(Vec<Upload>);

impl FromBody for Components {
    fn content() -> Vec<Content> {
        let form = |_: &mut _| {
            serde_json::json!({
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "string", "contentMediaType": "application/wasm"},
            })
        };
        vec![("application/wasm", |_| serde_json::json!({})), ("multipart/form-data", form)]
    }

    async fn read(_: &HostRoute, head: &Head, body: &mut BodyDataStream) -> Result<Self, Problem> {
        upload::read(&head.headers, body).await.map(Self)
    }
}

/// A gate refused a deployment.
fn gate_refused(report: &Report) -> Problem {
    let detail = format!("Nothing was changed: {}.", report.why_refused().unwrap_or_default());
    let problem = Problem::new(ProblemCode::GateRefused, detail);
    match Json::of(report) {
        Ok(report) => problem.with_report(report),
        // The report has a JSON form always; the sentence stands without it too.
        Err(_) => problem,
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Refused(report) => gate_refused(&report),
            DeployError::UnderWay => {
                let detail = "Another deployment is in progress. Try again when it has ended.";
                Self::new(ProblemCode::DeploymentUnderWay, detail)
            }
            DeployError::Behind(why) => {
                Self::new(ProblemCode::HostBehind, format!("Nothing was changed: {why}."))
            }
            DeployError::Rejected(rejection) => Self::of_host(rejection),
            DeployError::ShuttingDown => Self::shutting_down(),
            DeployError::Record(error) => error.into(),
            DeployError::Read(error) => (&error).into(),
            DeployError::Store(error) => {
                tracing::error!(error = %Chain(&error), "failed to store components; nothing was deployed");
                let detail = "The host cannot store the components in its data directory; its log says why. \
                              Nothing was deployed.";
                Self::new(ProblemCode::ComponentsNotKept, detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use axum::response::IntoResponse as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::deploy::ServiceReport;
    use crate::deployed::{GateName, GateOutcome, GateResult};
    use crate::model::Rejection;

    fn release() -> Release {
        Release::example("1.0.0")
    }

    fn refused() -> GateResult {
        let (gate, outcome) = (GateName::History, GateOutcome::Refused);
        let says = "it cannot fold order/7: see its events, or leave it out".to_owned();
        GateResult { gate, outcome, took_ms: 12, says, findings: vec!["order/7".to_owned()] }
    }

    fn report() -> Report {
        let Release { service, version, digest, .. } = release();
        let services =
            vec![ServiceReport { service, version, digest, replaces: None, gates: vec![refused()] }];
        Report { dry_run: false, live: false, services, gates: Vec::new(), hosts: Vec::new() }
    }

    async fn problem(error: DeployError) -> (u16, Value) {
        let response = Problem::from(error).into_response();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_refusal_of_a_gate_is_its_sentence_and_the_whole_report() {
        let (status, problem) = problem(DeployError::Refused(Box::new(report()))).await;
        assert_eq!((status, &problem["code"]), (422, &json!("gate-refused")));
        let detail = format!("Nothing was changed: the gate history refuses order: {}.", refused().says);
        assert_eq!(problem["detail"], detail);
        assert_eq!(problem["report"], json!(report()));
    }

    #[tokio::test]
    async fn every_other_failure_has_its_status_and_its_code() {
        let rejected = |code: &str| {
            let (code, message) = (code.to_owned(), "No.".to_owned());
            DeployError::Rejected(Rejection { code, message, details: None })
        };
        for (error, status, code) in [
            (DeployError::UnderWay, 409, "deployment-under-way"),
            (DeployError::Behind(Arc::new("this host is late".to_owned())), 409, "host-behind"),
            (rejected("not-found"), 404, "not-found"),
            (rejected("nothing-to-roll-back"), 409, "nothing-to-roll-back"),
            (rejected("invalid-grant"), 422, "invalid-grant"),
            (DeployError::ShuttingDown, 503, "shutting-down"),
            (DeployError::Store(io::Error::other("disk is full")), 503, "components-not-kept"),
        ] {
            let (found, problem) = problem(error).await;
            assert_eq!((found, &problem["code"]), (status, &json!(code)));
            assert!(!problem["detail"].to_string().contains("disk is full"), "{problem}");
        }
    }
}
