//! Deployed services and their history. The reply to a deployment is [`crate::deploy::Report`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::contract::{Manifest, Method};
use crate::deployed::{ActName, GateResult, GateStep, HistoryEntry, Kept, Release, Running};
use crate::model::{Actor, AggregateName, Digest, QueryName, SagaName, ServiceName, StreamId, Version};

/// A deployed service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plugin {
    /// The name of the service.
    pub service: ServiceName,
    /// The version in its manifest.
    pub version: String,
    /// The SHA-256 digest of its component.
    pub digest: Digest,
    /// The time since which this component runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The operator who deployed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// The note of the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The permissions that were granted with its deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// The names of its aggregates.
    pub aggregates: Vec<AggregateName>,
    /// The names of its sagas.
    pub sagas: Vec<SagaName>,
    /// The names of its queries.
    pub queries: Vec<QueryName>,
    /// Its HTTP routes.
    pub routes: Vec<PluginRoute>,
    /// The version of its read model; null if it has none.
    pub read_model: Option<u32>,
    /// The streams that stay with a newer component since a rollback, because this one cannot fold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
}

/// The deployed services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginList {
    /// The services that run on this host, by name.
    pub items: Vec<Plugin>,
    /// The reason why this host does not run the last deployment of its cluster, and a version that faults
    /// and could not be rolled back; a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The deployment in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployProgress {
    /// The gate that a component is at, and how far it is. `null`: no component is examined.
    pub step: Option<GateStep>,
}

/// An HTTP route of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginRoute {
    /// The method.
    pub method: Method,
    /// The path with its placeholders: `/orders/{id}`.
    pub path: String,
}

impl Plugin {
    /// `running`: the service in the history of deployments, if it is there.
    pub fn new(digest: Digest, manifest: &Manifest, running: Option<&Running>) -> Self {
        let routes = manifest.routes.iter();
        Self {
            service: manifest.service.clone(),
            version: manifest.version.clone(),
            digest,
            since: running.map(|running| running.since),
            by: running.map(|running| running.by.clone()),
            note: running.and_then(|running| running.note.clone()),
            grants: running.map(|running| running.release.grants.clone()).unwrap_or_default(),
            aggregates: manifest.aggregates.iter().map(|aggregate| aggregate.name.clone()).collect(),
            sagas: manifest.sagas.iter().map(|saga| saga.name.clone()).collect(),
            queries: manifest.queries.iter().map(|query| query.name.clone()).collect(),
            routes: routes
                .map(|route| PluginRoute { method: route.method, path: route.path.clone() })
                .collect(),
            read_model: manifest.read_model.as_ref().map(|model| model.version),
            kept: running.and_then(|running| running.kept.clone()),
        }
    }
}

/// A deployment, rollback or removal of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginChange {
    /// The version of the stream of deployments. Services that were deployed together have the same.
    pub version: Version,
    /// The time of the change.
    pub time: Time,
    /// The operator who made it.
    pub actor: Actor,
    /// The kind of change.
    pub act: ActName,
    /// The name of the service.
    pub service: ServiceName,
    /// The release that ran from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<PluginRelease>,
    /// The digest of the component that ran until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Digest>,
    /// The reason of a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The streams that stay with the component that ran until a rollback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<StreamId>,
    /// The note of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The findings of the gates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
}

/// One version of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginRelease {
    /// The version in its manifest.
    pub version: String,
    /// The SHA-256 digest of its component.
    pub digest: Digest,
    /// The permissions that were granted with its deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
}

impl From<Release> for PluginRelease {
    fn from(Release { version, digest, grants, .. }: Release) -> Self {
        Self { version, digest, grants }
    }
}

impl From<HistoryEntry> for PluginChange {
    fn from(entry: HistoryEntry) -> Self {
        Self {
            version: entry.version,
            time: entry.time,
            actor: entry.actor,
            act: entry.act,
            service: entry.service,
            release: entry.release.map(PluginRelease::from),
            replaced: entry.replaced,
            reason: entry.reason,
            kept: entry.kept,
            note: entry.note,
            gates: entry.gates,
        }
    }
}

/// The parameters of `PUT /admin/plugins`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeployQuery {
    /// Dry run: runs the gates and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub note: Option<String>,
    /// Number of streams of each aggregate to fold. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sample: Option<u64>,
    /// A break to allow, as its gate names it: `command:order/create` or `downgrade:order`. May be repeated.
    #[serde(default)]
    pub allow_breaking: Vec<String>,
    /// A permission to grant: `command:payment.authorize`, `event:order.order-created`, `service:payment`,
    /// `subject:orders.>` or `http:https://payments.example`. May be repeated.
    #[serde(default)]
    pub grant: Vec<String>,
}

/// The parameters of `DELETE /admin/plugins/{service}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UndeployQuery {
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub note: Option<String>,
    /// A break to allow: `service:payment`, if another service needs it. May be repeated.
    #[serde(default)]
    pub allow_breaking: Vec<String>,
}

/// Rolls a service back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The digest of the component to roll back to, or a unique prefix. Default: the component before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{1,64}$"))]
    pub to: Option<String>,
    /// The reason. It stays in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_000))]
    pub note: Option<String>,
    /// The breaks to allow, as the gate `history` names them: `state:order`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_breaking: Vec<String>,
}

/// The component that ran until a service was undeployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UndeployedPlugin {
    /// The name of the service.
    pub service: ServiceName,
    /// The SHA-256 digest of the component.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::fixtures::manifest;
    use crate::deployed::{GateName, GateOutcome};

    fn release() -> Release {
        Release::example("1.0.0")
    }

    fn refused() -> GateResult {
        let (gate, outcome) = (GateName::History, GateOutcome::Refused);
        let says = "it cannot fold order/7: see its events, or leave it out".to_owned();
        GateResult { gate, outcome, took_ms: 12, says, findings: vec!["order/7".to_owned()] }
    }

    #[test]
    fn a_service_has_the_time_of_its_deployment_if_it_is_known() {
        let note = Some("spring sale".to_owned());
        let running = Running {
            release: release(),
            since: Time(0),
            by: "ada".into(),
            note,
            before: vec![],
            kept: None,
            trial: None,
            returned: None,
        };
        let plugin = json!(Plugin::new(release().digest, &manifest(), Some(&running)));
        assert_eq!(plugin["since"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&plugin["by"], &plugin["note"]), (&json!("ada"), &json!("spring sale")));
        let unknown = json!(Plugin::new(release().digest, &manifest(), None));
        assert_eq!((&unknown["service"], unknown.get("since")), (&json!("order"), None));
    }

    #[test]
    fn a_change_has_only_the_members_that_apply() {
        let undeployed = HistoryEntry {
            version: Version::new(7),
            time: Time(0),
            actor: "ada".into(),
            act: ActName::Undeployed,
            service: "order".into(),
            release: None,
            replaced: Some(release().digest),
            reason: None,
            kept: Vec::new(),
            note: None,
            gates: Vec::new(),
        };
        let expected = json!({
            "version": 7, "time": "1970-01-01T00:00:00.000Z", "actor": "ada", "act": "undeployed",
            "service": "order",
            "replaced": release().digest,
        });
        assert_eq!(json!(PluginChange::from(undeployed.clone())), expected);
        let deployed = HistoryEntry {
            act: ActName::Deployed,
            release: Some(release()),
            gates: vec![refused()],
            ..undeployed
        };
        let entry = json!(PluginChange::from(deployed));
        assert_eq!(entry["release"], json!({"version": "1.0.0", "digest": release().digest}));
        assert_eq!(entry["gates"][0]["gate"], "history");
    }
}
