//! The reasons why an HTTP request of a component has no answer.

use wasmtime_wasi_http::Error as WasiError;

/// The reason why a request has no answer. The component gets the kind as an error code of `wasi:http`, the
/// host's log gets the sentence.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct HttpFailure {
    /// The kind of failure.
    pub kind: HttpFailureKind,
    /// Names the service and the cause, and the remedy if the operator has one.
    pub sentence: String,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFailureKind {
    /// The call, the origin or the method is not allowed.
    Denied,
    /// The address needs a grant with `private = true`.
    PrivateAddress,
    /// The name stands for no address.
    NoAddress,
    /// The connection was not accepted, or its peer is not trusted.
    Unreachable,
    /// The connection ended before the answer did, or the answer is not HTTP.
    BrokenOff,
    /// The exchange exceeded its time limit.
    TooSlow,
    /// The service has too many pending requests.
    TooMany,
    /// The request's body exceeds its limit.
    RequestTooLarge,
    /// The component has not written the whole body that it declared.
    RequestIncomplete,
    /// The response's body exceeds its limit.
    ResponseTooLarge,
}

impl HttpFailureKind {
    /// Returns whether the server or the way to it is down, and not the request wrong.
    pub(super) fn is_outage(self) -> bool {
        match self {
            Self::NoAddress | Self::Unreachable | Self::BrokenOff | Self::TooSlow => true,
            Self::Denied
            | Self::PrivateAddress
            | Self::TooMany
            | Self::RequestTooLarge
            | Self::RequestIncomplete
            | Self::ResponseTooLarge => false,
        }
    }
}

impl HttpFailure {
    /// Creates a failure.
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
