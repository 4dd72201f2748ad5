//! Why a request of a component has no answer.

use wasmtime_wasi_http::Error as WasiError;

/// The component gets the kind as an error code of `wasi:http`, the host's log gets the sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct HttpFailure {
    pub kind: HttpFailureKind,
    /// Names the service and what is in its way; where the operator can do something about it, what.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFailureKind {
    /// Not here, not there, or not with this method.
    Denied,
    /// An address that only a grant with `private = true` reaches.
    PrivateAddress,
    /// The name stands for no address.
    NoAddress,
    /// Nobody took the connection, or not one that can be trusted.
    Unreachable,
    /// The connection ended before the answer did, or what came was no HTTP.
    BrokenOff,
    TooSlow,
    TooMany,
    RequestTooLarge,
    /// The component has not written what it said it would.
    RequestIncomplete,
    ResponseTooLarge,
}

impl HttpFailure {
    pub fn new(kind: HttpFailureKind, sentence: String) -> Self {
        Self { kind, sentence }
    }
}

impl From<HttpFailure> for WasiError {
    fn from(failure: HttpFailure) -> Self {
        match failure.kind {
            HttpFailureKind::Denied => Self::HttpRequestDenied,
            HttpFailureKind::PrivateAddress => Self::DestinationIpProhibited,
            HttpFailureKind::NoAddress => Self::DnsError { rcode: None, info_code: None },
            HttpFailureKind::Unreachable => Self::DestinationUnavailable,
            HttpFailureKind::BrokenOff => Self::ConnectionTerminated,
            HttpFailureKind::TooSlow => Self::HttpResponseTimeout,
            HttpFailureKind::TooMany => Self::ConnectionLimitReached,
            HttpFailureKind::RequestTooLarge | HttpFailureKind::RequestIncomplete => {
                Self::HttpRequestBodySize(None)
            }
            HttpFailureKind::ResponseTooLarge => Self::HttpResponseBodySize(None),
        }
    }
}
