//! The services of the host: what runs, what ran, and to put others in their place.

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::builtin::MAX_REASON_LENGTH;
use super::page::{Page, after_and_limit};
use super::parameters::Parameters;
use super::{Call, Site, Tables, command, headers, json, upload};
use crate::clock::Time;
use crate::contract::{Manifest, Method, Problem, Schema};
use crate::deploy::{DeployError, Options, Report};
use crate::deployed::{ActName, GateResult, HistoryEntry, Release, Running};
use crate::model::{Digest, Json, Version};

/// The code of the deployer's rejection of a grant that it cannot read.
const INVALID_GRANT: &str = "invalid-grant";

/// A service as operators see it.
#[derive(Serialize)]
struct Plugin<'m> {
    service: &'m str,
    version: &'m str,
    digest: Digest,
    #[serde(flatten)]
    deployment: Option<Deployment<'m>>,
    aggregates: Vec<&'m str>,
    sagas: Vec<&'m str>,
    queries: Vec<&'m str>,
    routes: Vec<PluginRoute<'m>>,
    /// The version of the read model, if the service has one.
    read_model: Option<u32>,
}

/// Since when a service runs as it does.
#[derive(Serialize)]
struct Deployment<'r> {
    since: Time,
    by: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'r str>,
    /// What it was granted with its deployment.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    grants: &'r [String],
}

#[derive(Serialize)]
struct PluginRoute<'m> {
    method: Method,
    path: &'m str,
}

/// What happened to one service.
#[derive(Serialize)]
struct Entry<'e> {
    /// The version of the stream of deployments.
    version: Version,
    time: Time,
    actor: &'e str,
    act: ActName,
    service: &'e str,
    /// What ran from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Released<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'e str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    gates: &'e [GateResult],
}

#[derive(Serialize)]
struct Released<'e> {
    version: &'e str,
    digest: Digest,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    grants: &'e [String],
}

/// The body of a rollback.
#[derive(Deserialize)]
struct Back {
    /// The digest to go back to, or as much of its beginning as no other has.
    to: Option<String>,
    note: Option<String>,
    #[serde(default)]
    allow_breaking: Vec<String>,
}

/// `GET /admin/plugins`
pub(super) fn list(site: &Site, tables: &Tables) -> Result<Response, Problem> {
    let running = site.edge.deployer.running();
    let plugin = |(digest, manifest)| {
        let since = running.iter().find(|running| running.release.digest == digest);
        Plugin::new(digest, manifest, since)
    };
    let services = tables.deployed.services().map(|service| (service.digest(), &**service.manifest()));
    json(StatusCode::OK, &json!({"items": services.map(plugin).collect::<Vec<_>>()}))
}

impl<'m> Plugin<'m> {
    fn new(digest: Digest, manifest: &'m Manifest, running: Option<&'m Running>) -> Self {
        let deployment = |running: &'m Running| Deployment {
            since: running.since,
            by: &running.by,
            note: running.note.as_deref(),
            grants: &running.release.grants,
        };
        let routes = manifest.routes.iter();
        Self {
            service: &manifest.service,
            version: &manifest.version,
            digest,
            deployment: running.map(deployment),
            aggregates: manifest.aggregates.iter().map(|aggregate| &*aggregate.name).collect(),
            sagas: manifest.sagas.iter().map(|saga| &*saga.name).collect(),
            queries: manifest.queries.iter().map(|query| &*query.name).collect(),
            routes: routes.map(|route| PluginRoute { method: route.method, path: &route.path }).collect(),
            read_model: manifest.read_model.as_ref().map(|model| model.version),
        }
    }
}

/// `GET /admin/plugins/history`, in the order of the log.
pub(super) async fn history(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    let parameters = Parameters::parse(call.query)?.only(&["after", "limit"])?;
    let (after, limit) = after_and_limit(&parameters)?;
    let entries = site.edge.deployer.history(after, limit).await?;
    // A deployment of several services is not divided, so a page may have more entries than were asked for.
    let entries = entries.iter().map(Entry::from).collect();
    json(StatusCode::OK, &Page::new(entries, limit, |entry: &Entry<'_>| entry.version))
}

impl<'e> From<&'e HistoryEntry> for Entry<'e> {
    fn from(entry: &'e HistoryEntry) -> Self {
        let released = |release: &'e Release| Released {
            version: &release.version,
            digest: release.digest,
            grants: &release.grants,
        };
        Self {
            version: entry.version,
            time: entry.time,
            actor: &entry.actor,
            act: entry.act,
            service: &entry.service,
            release: entry.release.as_ref().map(released),
            replaced: entry.replaced,
            reason: entry.reason.as_deref(),
            note: entry.note.as_deref(),
            gates: &entry.gates,
        }
    }
}

/// `PUT /admin/plugins`: 200 and the report if the components run now, or would.
pub(super) async fn deploy(
    site: &Site,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    headers::same_site(call.headers)?;
    let actor = headers::actor(call.headers)?;
    let options = options(call.query, &["dry-run", "note", "sample", "allow-breaking", "grant"])?;
    let uploads = upload::read(call.headers, body).await?;
    json(StatusCode::OK, &site.edge.deployer.deploy(uploads, options, actor).await?)
}

/// `POST /admin/plugins/{service}/rollback`
pub(super) async fn roll_back(
    site: &Site,
    schema: &Schema,
    call: &Call<'_>,
    body: &mut BodyDataStream,
) -> Result<Response, Problem> {
    let Back { to, note, allow_breaking } = command::received(site, schema, call, body).await?;
    let options = Options { note, allow_breaking, ..Options::default() };
    let (service, actor) = (call.placeholder("service")?, headers::actor(call.headers)?);
    json(StatusCode::OK, &site.edge.deployer.roll_back(&service, to.as_deref(), options, actor).await?)
}

/// `DELETE /admin/plugins/{service}`: what ran until now.
pub(super) async fn undeploy(site: &Site, call: &Call<'_>) -> Result<Response, Problem> {
    headers::same_site(call.headers)?;
    let options = options(call.query, &["note", "allow-breaking"])?;
    let (service, actor) = (call.placeholder("service")?, headers::actor(call.headers)?);
    let Release { service, digest, .. } = site.edge.deployer.undeploy(&service, options, actor).await?;
    json(StatusCode::OK, &json!({"service": service, "digest": digest}))
}

/// `known`: the names of the parameters that may be there.
fn options(query: Option<&str>, known: &[&str]) -> Result<Options, Problem> {
    let parameters = Parameters::parse_with_lists(query, &["allow-breaking", "grant"])?.only(known)?;
    let note = parameters.get("note").map(str::to_owned);
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_REASON_LENGTH) {
        return Err(Problem::invalid_parameter(format!(
            "The parameter note may have {MAX_REASON_LENGTH} characters at most."
        )));
    }
    let sample = match parameters.number::<u64>("sample")? {
        Some(0) => return Err(Problem::invalid_parameter("The parameter sample must be at least 1.")),
        sample => sample.map(|streams| usize::try_from(streams).unwrap_or(usize::MAX)),
    };
    Ok(Options {
        dry_run: parameters.flag("dry-run")?,
        note,
        sample,
        allow_breaking: parameters.all("allow-breaking"),
        grants: parameters.all("grant"),
        from_directory: false,
    })
}

/// A gate refused a deployment.
fn gate_refused(report: &Report) -> Problem {
    let detail = format!("Nothing was changed: {}.", report.why_refused().unwrap_or_default());
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "gate-refused", detail);
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
                let detail = "Another deployment is under way. Try again when it has ended.";
                Self::new(StatusCode::CONFLICT, "deployment-under-way", detail)
            }
            DeployError::Rejected(rejection) if rejection.code == INVALID_GRANT => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, rejection.code, rejection.message)
            }
            DeployError::Rejected(rejection) => rejection.into(),
            DeployError::ShuttingDown => Self::shutting_down(),
            DeployError::Record(error) => error.into(),
            DeployError::Sagas(error) => error.into(),
            DeployError::Store(error) => {
                tracing::error!(%error, "the components of a deployment cannot be kept in the data directory");
                let detail = "The host cannot keep the components in its data directory, and its log says why. \
                              Nothing was deployed.";
                Self::unavailable("components-not-kept", detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::response::IntoResponse as _;
    use serde_json::Value;

    use super::*;
    use crate::contract::fixtures::manifest;
    use crate::deploy::{Report, ServiceReport};
    use crate::deployed::{GateName, GateOutcome};
    use crate::model::Rejection;

    fn release() -> Release {
        let digest = Digest::of(b"component");
        Release { service: "order".into(), version: "1.0.0".to_owned(), digest, grants: Vec::new() }
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

    #[test]
    fn a_service_says_since_when_it_runs() {
        let note = Some("spring sale".to_owned());
        let running = Running { release: release(), since: Time(0), by: "ada".into(), note, before: vec![] };
        let plugin = json!(Plugin::new(release().digest, &manifest(), Some(&running)));
        assert_eq!(plugin["since"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&plugin["by"], &plugin["note"]), (&json!("ada"), &json!("spring sale")));
        let unknown = json!(Plugin::new(release().digest, &manifest(), None));
        assert_eq!((&unknown["service"], unknown.get("since")), (&json!("order"), None));
    }

    #[test]
    fn an_entry_of_the_history_has_what_there_is_to_say() {
        let undeployed = HistoryEntry {
            version: Version::new(7),
            time: Time(0),
            actor: "ada".into(),
            act: ActName::Undeployed,
            service: "order".into(),
            release: None,
            replaced: Some(release().digest),
            reason: None,
            note: None,
            gates: Vec::new(),
        };
        let expected = json!({
            "version": 7, "time": "1970-01-01T00:00:00.000Z", "actor": "ada", "act": "undeployed", "service": "order",
            "replaced": release().digest,
        });
        assert_eq!(json!(Entry::from(&undeployed)), expected);
        let deployed = HistoryEntry {
            act: ActName::Deployed,
            release: Some(release()),
            gates: vec![refused()],
            ..undeployed
        };
        let entry = json!(Entry::from(&deployed));
        assert_eq!(entry["release"], json!({"version": "1.0.0", "digest": release().digest}));
        assert_eq!(entry["gates"][0]["gate"], "history");
    }

    #[test]
    fn what_is_asked_for_stands_in_the_query() {
        let known = &["dry-run", "note", "sample", "allow-breaking", "grant"];
        let query = "dry-run=true&note=spring%20sale&sample=9&grant=a&allow-breaking=x&grant=b";
        let expected = Options {
            dry_run: true,
            note: Some("spring sale".to_owned()),
            sample: Some(9),
            allow_breaking: vec!["x".to_owned()],
            grants: vec!["a".to_owned(), "b".to_owned()],
            from_directory: false,
        };
        assert_eq!(options(Some(query), known).unwrap(), expected);
        assert_eq!(options(None, known).unwrap(), Options::default());
        let long = format!("note={}", "ä".repeat(MAX_REASON_LENGTH + 1));
        for refused in ["dry-run=yes", "sample=0", "sample=all", "note=a&note=b", "force=true", &long] {
            assert_eq!(options(Some(refused), known).unwrap_err().code(), "invalid-parameter", "{refused}");
        }
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
