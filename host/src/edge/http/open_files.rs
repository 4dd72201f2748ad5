//! The open files that the system allows the process: each connection is one of them.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::HttpLimits;
use crate::error::Chain;

/// Open files of the host itself: its databases with a reader for each query, and its own requests.
const OWN: u64 = 1_024;

/// The open files of the process.
#[derive(Clone, Copy)]
pub(crate) struct OpenFiles {
    pub(crate) open: u64,
    /// The number that the system allows.
    pub(crate) limit: u64,
}

impl OpenFiles {
    /// Returns the numbers of this moment. `None`: the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self { open, limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) })
    }
}

impl HttpLimits {
    /// Raises the process's limit of open files as far as it may, and fits the connections into it.
    pub(crate) fn fit_open_files(self) -> Self {
        let allowed = raise();
        let connections = connections(allowed, self.connections);
        if connections < self.connections {
            tracing::warn!(
                "the system allows this process {allowed} open files, so it takes at most {connections} \
                 connections at a time instead of {}: raise its limit, e.g. with `ulimit -n` or LimitNOFILE=",
                self.connections
            );
        }
        Self { connections, ..self }
    }
}

/// Returns the number of open files that are allowed.
fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None: no limit.
    let (current, maximum) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    if current >= maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), maximum: Some(maximum) }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "failed to raise the limit of open files");
            current
        }
    }
}

/// Returns the connections, at most `most`, for which `allowed` open files are enough.
fn connections(allowed: u64, most: usize) -> usize {
    let left = allowed - OWN.min(allowed / 2);
    usize::try_from(left).map_or(most, |left| most.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_host_the_files_that_it_needs_itself() {
        for (allowed, expected) in
            [(u64::MAX, 10_000), (20_000, 10_000), (4_096, 3_072), (1_024, 512), (0, 0)]
        {
            assert_eq!(connections(allowed, 10_000), expected, "{allowed}");
        }
    }
}
