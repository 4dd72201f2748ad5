//! A stand-in with the deployer's face and nothing behind it.
#![allow(clippy::todo, unused_variables, clippy::unused_async, reason = "a stand-in")]

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::report::{Gate, Report};
use crate::clock::Time;
use crate::error::CallError;
use crate::model::{Digest, Rejection, Version};

pub struct Deployer;

pub struct Upload {
    pub wasm: Vec<u8>,
    pub signature: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub dry_run: bool,
    pub note: Option<String>,
    pub sample: Option<usize>,
    pub allow_breaking: Vec<String>,
    pub grants: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("a gate refuses the deployment")]
    Refused(Box<Report>),
    #[error("another deployment is under way")]
    UnderWay,
    #[error(transparent)]
    Rejected(Rejection),
    #[error(transparent)]
    Call(CallError),
    #[error("a component cannot be kept")]
    Store(#[source] io::Error),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub service: Arc<str>,
    pub version: String,
    pub digest: Digest,
    pub grants: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    pub release: Release,
    pub since: Time,
    pub by: Arc<str>,
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActName {
    Deployed,
    RolledBack,
    Undeployed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    pub version: Version,
    pub time: Time,
    pub actor: Arc<str>,
    pub act: ActName,
    pub service: Arc<str>,
    pub release: Option<Release>,
    pub replaced: Option<Digest>,
    pub reason: Option<String>,
    pub note: Option<String>,
    pub gates: Vec<Gate>,
}

impl Deployer {
    pub async fn deploy(
        &self,
        uploads: Vec<Upload>,
        options: Options,
        actor: &str,
    ) -> Result<Report, DeployError> {
        todo!()
    }

    pub async fn roll_back(
        &self,
        service: &str,
        to: Option<&str>,
        options: Options,
        actor: &str,
    ) -> Result<Report, DeployError> {
        todo!()
    }

    pub async fn undeploy(
        &self,
        service: &str,
        options: Options,
        actor: &str,
    ) -> Result<Release, DeployError> {
        todo!()
    }

    pub async fn history(&self, after: Version, limit: usize) -> Result<Vec<HistoryEntry>, CallError> {
        todo!()
    }

    pub fn running(&self) -> Vec<Running> {
        Vec::new()
    }
}
