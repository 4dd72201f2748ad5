//! The codes of all problems that the host itself answers with, each with its status and its documentation,
//! once: the body of a problem, `GET /problems/{code}`, the OpenAPI document and docs/reference/problems.md
//! follow from this table.

use hyper::StatusCode;

/// A group of codes: a section of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemGroup {
    /// The request itself is wrong.
    Request,
    /// Its subject does not exist.
    Absence,
    /// It does not fit the current state.
    State,
    /// The host cannot answer it now.
    Availability,
    /// A technical failure, of a service or of the host.
    Fault,
}

/// Defines the codes from their rows: the meaning as the doc comment, then status, name and title, then the
/// advice.
macro_rules! problem_codes {
    ($($group:ident {$(
        $(#[doc = $meaning:literal])+
        $code:ident = $status:ident, $name:literal, $title:literal, $advice:literal;
    )+})+) => {
        /// A problem code of the host. The codes of rejections are the services' own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($($(#[doc = $meaning])+ $code,)+)+
        }

        impl ProblemCode {
            /// All codes, in the order of the reference.
            pub const ALL: &[Self] = &[$($(Self::$code),+),+];

            /// Returns the code as it stands on the wire.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$code => $name),+),+ }
            }

            /// Returns the HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $($(Self::$code => StatusCode::$status),+),+ }
            }

            /// Returns the title.
            pub const fn title(self) -> &'static str {
                match self { $($(Self::$code => $title),+),+ }
            }

            /// Returns the meaning in one or two sentences.
            pub fn meaning(self) -> &'static str {
                // Each line of a doc comment begins with a space.
                match self { $($(Self::$code => concat!($($meaning),+)),+),+ }.trim_start()
            }

            /// Returns the action to take.
            pub const fn advice(self) -> &'static str {
                match self { $($(Self::$code => $advice),+),+ }
            }

            /// Returns the group.
            pub const fn group(self) -> ProblemGroup {
                match self { $($(Self::$code)|+ => ProblemGroup::$group),+ }
            }
        }
    };
}

problem_codes! {
    Request {
        /// The body is not UTF-8, or not JSON.
        InvalidJson = BAD_REQUEST, "invalid-json", "Invalid JSON",
            "Correct the body; `detail` names the place.";
        /// A header cannot be read.
        InvalidHeader = BAD_REQUEST, "invalid-header", "Invalid header",
            "Correct the header that `detail` names.";
        /// A parameter of the path or the query string is unknown, repeated or out of range.
        InvalidParameter = BAD_REQUEST, "invalid-parameter", "Invalid parameter",
            "Correct the parameter that `detail` names; `/openapi.json` lists them.";
        /// The text cannot be the id of an aggregate.
        InvalidId = BAD_REQUEST, "invalid-id", "Invalid id",
            "Use an id of the characters that `detail` allows.";
        /// The multipart form of a deployment cannot be read.
        InvalidForm = BAD_REQUEST, "invalid-form", "Invalid form",
            "Send each component as one part of the form, or a single one as `application/wasm`.";
        /// The body of a deployment has no component.
        NoComponent = BAD_REQUEST, "no-component", "No component",
            "Send the bytes of a `.wasm` file.";
        /// The connection ended before the body did.
        IncompleteBody = BAD_REQUEST, "incomplete-body", "Incomplete body",
            "Send the request again.";
        /// The route is for callers that have signed in, and the request says nothing about its caller.
        Unauthenticated = UNAUTHORIZED, "unauthenticated", "Unauthenticated",
            "Send `Authorization: Bearer` with a token; `kontor token new` makes one.";
        /// The token of the request is unknown, expired, revoked or not valid, or the name in the client's
        /// certificate is one of the host's own.
        InvalidToken = UNAUTHORIZED, "invalid-token", "Invalid token",
            "Send a token that is valid; `detail` says what is wrong with this one.";
        /// A browser could not be signed in.
        SignInFailed = BAD_REQUEST, "sign-in-failed", "Sign-in failed",
            "Begin again at `/auth/sign-in`; `detail` says what went wrong.";
        /// The request has the cookie of a session, but not its CSRF token.
        WrongCsrfToken = FORBIDDEN, "wrong-csrf-token", "Wrong CSRF token",
            "Send `csrf` of `GET /auth/me` in the header `Kontor-CSRF`.";
        /// The caller has none of the roles that the route is for, or asks for something of somebody else.
        Forbidden = FORBIDDEN, "forbidden", "Forbidden",
            "Sign in as a caller with one of the roles that `detail` names, or as the owner.";
        /// A browser sent the request for a page of another site.
        CrossSite = FORBIDDEN, "cross-site", "Cross-site request",
            "Send it from the host's own page, or from a program.";
        /// A browser sent the request for a page of another origin.
        ForeignOrigin = FORBIDDEN, "foreign-origin", "Foreign origin",
            "Send it from the host's own page or from a program, or add the origin to `http.origins`.";
        /// The request came without encryption from another machine that is no trusted proxy.
        TlsRequired = FORBIDDEN, "tls-required", "TLS required",
            "Use `https`, or go through the proxy; `http.trusted_proxies` names the proxies.";
        /// The request came without TLS to an address that speaks TLS.
        PlainHttp = BAD_REQUEST, "plain-http", "Plain HTTP",
            "Use `https`. A token in the request could be read on the way: revoke it.";
        /// The header `Host` names another host.
        UnknownHost = MISDIRECTED_REQUEST, "unknown-host", "Unknown host",
            "Call the host by a name of `http.hosts`, by its address, or on its own machine by `localhost`.";
        /// No route has this path.
        UnknownRoute = NOT_FOUND, "unknown-route", "Unknown route",
            "See `GET /openapi.json` for all routes.";
        /// The path exists, but not with this method.
        MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed",
            "Use one of the methods of the header `Allow`.";
        /// The body did not arrive in time.
        BodyTimeout = REQUEST_TIMEOUT, "body-timeout", "Body timeout",
            "Send the request again over a faster connection, or a smaller body.";
        /// The aggregate is not at the version of `If-Match`.
        VersionMismatch = PRECONDITION_FAILED, "version-mismatch", "Version mismatch",
            "Read the aggregate again and decide on its current state.";
        /// The body or message exceeds the limit for its kind.
        PayloadTooLarge = PAYLOAD_TOO_LARGE, "payload-too-large", "Payload too large",
            "Send less, or raise `limits.body_bytes`.";
        /// The body has a content type that the route does not accept.
        UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type",
            "Send `application/json`; a deployment sends `application/wasm` or a form.";
        /// The body has a content encoding.
        UnsupportedEncoding = UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", "Unsupported encoding",
            "Send the body as it is, without `Content-Encoding`.";
        /// The client accepts none of the media types of the reply.
        NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "Not acceptable",
            "Leave `Accept` out, or name a media type of the reply.";
        /// The payload does not follow the command's schema.
        InvalidPayload = UNPROCESSABLE_ENTITY, "invalid-payload", "Invalid payload",
            "Correct the members that `errors` points to.";
        /// The arguments do not follow the query's schema.
        InvalidArguments = UNPROCESSABLE_ENTITY, "invalid-arguments", "Invalid arguments",
            "Correct the arguments that `errors` points to.";
        /// The caller sends more commands than `limits.caller_commands_per_second`. Nothing was done.
        TooManyCommands = TOO_MANY_REQUESTS, "too-many-commands", "Too many commands",
            "Repeat after `Retry-After`; send fewer, or raise the limit.";
        /// Too many sign-ins from the same address have failed.
        TooManySignIns = TOO_MANY_REQUESTS, "too-many-sign-ins", "Too many sign-ins",
            "Repeat after `Retry-After`, with the right token.";
        /// The key belongs to another command or payload.
        IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Idempotency key reused",
            "Use a new key for a new command, and the same payload for a repetition.";
    }
    Absence {
        /// The aggregate, saga, service, read model or dead letter does not exist.
        NotFound = NOT_FOUND, "not-found", "Not found",
            "Check the id; it may have been removed.";
        /// No deployed service has this command, query or subject.
        NotDeployed = NOT_FOUND, "not-deployed", "Not deployed",
            "Deploy the service, or correct the name.";
        /// The host is not connected to NATS, so it has no dead letters.
        NoMessaging = NOT_FOUND, "no-messaging", "No messaging",
            "Configure `nats.url`.";
    }
    State {
        /// Only a parked saga can be retried, skipped or resolved.
        SagaNotParked = CONFLICT, "saga-not-parked", "Saga not parked",
            "See its state with `kontor saga show`.";
        /// The step to skip has not failed, or several have and none is named.
        StepNotFailed = CONFLICT, "step-not-failed", "Step not failed",
            "Name one of the failed steps.";
        /// The stream is not parked in this read model.
        StreamNotParked = CONFLICT, "stream-not-parked", "Stream not parked",
            "See the parked streams with `kontor projections show`.";
        /// The read model is already being rebuilt.
        ReplayUnderWay = CONFLICT, "replay-under-way", "Replay in progress",
            "Wait for its end; `kontor projections` shows the progress.";
        /// A replay cannot start at a time in the future.
        TimeNotCome = CONFLICT, "time-not-come", "Time in the future",
            "Use a time in the past.";
        /// A token cannot expire at a time in the past.
        TimePassed = CONFLICT, "time-passed", "Time in the past",
            "Use a time in the future.";
        /// Another deployment is in progress; there is only one at a time.
        DeploymentUnderWay = CONFLICT, "deployment-under-way", "Deployment in progress",
            "Try again when it has ended.";
        /// This host does not run the last deployment of its cluster, so it makes no other one.
        HostBehind = CONFLICT, "host-behind", "Host behind the last deployment",
            "Deploy through another host, or remove the cause that the detail names.";
        /// There are as many valid tokens as there may be.
        TooManyTokens = CONFLICT, "too-many-tokens", "Too many tokens",
            "Revoke those that nobody uses; `kontor token list` shows the last use of each.";
        /// No earlier release matches, or its component cannot be loaded any more.
        NothingToRollBack = CONFLICT, "nothing-to-roll-back", "Nothing to roll back to",
            "See `kontor plugins --history` for the releases.";
        /// Another service needs the service that is to be removed.
        ServiceInUse = CONFLICT, "service-in-use", "Service in use",
            "Undeploy that one first, or name the break with `--allow-breaking`.";
        /// The text is no grant.
        InvalidGrant = UNPROCESSABLE_ENTITY, "invalid-grant", "Invalid grant",
            "Use `command:<aggregate>.<command>`, `event:<aggregate>.<event>`, `service:<name>`, \
             `subject:<subject>` or `http:<origin>`.";
        /// A gate refused the deployment; nothing was changed.
        GateRefused = UNPROCESSABLE_ENTITY, "gate-refused", "Refused by a gate",
            "Read `report`: the finding of the gate says what to do.";
    }
    Availability {
        /// A bounded queue of the host is full. Nothing was done.
        Busy = SERVICE_UNAVAILABLE, "busy", "Busy",
            "Repeat after `Retry-After`; if it lasts, see `[limits]`.";
        /// The host is shutting down. Nothing was done.
        ShuttingDown = SERVICE_UNAVAILABLE, "shutting-down", "Shutting down",
            "Repeat, at this host later or at another one.";
        /// Other writers changed the same aggregate too often in between. Nothing was done.
        Conflict = SERVICE_UNAVAILABLE, "conflict", "Conflict",
            "Repeat after `Retry-After`.";
        /// The log cannot be written or read now. `detail` says if nothing was done or if the outcome is
        /// unknown.
        LogUnavailable = SERVICE_UNAVAILABLE, "log-unavailable", "Log unavailable",
            "Repeat with the same `Idempotency-Key`. Operators: see `/readyz` and `kontor_log_available`.";
        /// The read model is not built yet, is broken, or exceeded a limit.
        ReadModelUnavailable = SERVICE_UNAVAILABLE, "read-model-unavailable", "Read model unavailable",
            "Repeat after `Retry-After`; see `kontor projections`.";
        /// The host cannot write the components to its data directory. Nothing was deployed.
        ComponentsNotKept = SERVICE_UNAVAILABLE, "components-not-kept", "Components not stored",
            "See the host's log; free the disk, then deploy again.";
        /// The keys of the issuer of a JWT have never been read, and cannot be read now.
        IssuerUnavailable = SERVICE_UNAVAILABLE, "issuer-unavailable", "Issuer unavailable",
            "Repeat after `Retry-After`; operators: see `/readyz`.";
        /// NATS does not answer, so dead letters cannot be read or moved.
        NatsUnavailable = SERVICE_UNAVAILABLE, "nats-unavailable", "NATS unavailable",
            "See that the NATS servers run, then repeat.";
        /// The read model did not reach the position of `Kontor-Position` in time.
        ReadModelBehind = GATEWAY_TIMEOUT, "read-model-behind", "Read model behind",
            "Repeat, or wait longer with `Prefer: wait`.";
        /// The log is not at the position of `Kontor-Position` yet: it is another host's, or the log was
        /// restored.
        PositionAhead = GATEWAY_TIMEOUT, "position-ahead", "Position ahead",
            "Repeat; if it lasts, discard the position.";
        /// The events of one command exceed what the log accepts at once. Nothing was done.
        EventsTooLarge = PAYLOAD_TOO_LARGE, "events-too-large", "Events too large",
            "Split the command; the service must decide smaller events.";
        /// The answer exceeds the size of a NATS message.
        AnswerTooLarge = INTERNAL_SERVER_ERROR, "answer-too-large", "Answer too large",
            "Ask over HTTP, or for less.";
    }
    Fault {
        /// The service's code panicked.
        ComponentTrapped = INTERNAL_SERVER_ERROR, "component-trapped", "Component trapped",
            "Operators: the host's log has the trap; roll the service back or correct it.";
        /// The call exceeded the memory of one instance.
        ComponentOutOfMemory = INTERNAL_SERVER_ERROR, "component-out-of-memory", "Component out of memory",
            "Operators: correct the service, or raise `limits.call_memory_bytes`.";
        /// The call computed or waited longer than its limit.
        ComponentTimeout = GATEWAY_TIMEOUT, "component-timeout", "Component timeout",
            "Operators: correct the service, or raise `limits.call_time_ms`.";
        /// The service answered with something that its manifest does not allow.
        ComponentBrokeContract = BAD_GATEWAY, "component-broke-contract", "Component broke the contract",
            "Operators: the host's log names it; roll the service back or correct it.";
        /// The host itself failed to answer.
        Internal = INTERNAL_SERVER_ERROR, "internal", "Internal error",
            "Report it with the lines of the host's log.";
    }
}

impl ProblemCode {
    /// Returns the code with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// Returns if the same request may succeed a second later.
    pub fn is_transient(self) -> bool {
        let unavailable = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        self.group() == ProblemGroup::Availability && unavailable.contains(&self.status())
    }
}

impl ProblemGroup {
    /// Returns the heading of the section, and the text below it.
    pub fn documentation(self) -> (&'static str, &'static str) {
        match self {
            Self::Request => ("The request", ""),
            Self::Absence => ("Things that are not there", ""),
            Self::State => ("The state of things", ""),
            Self::Availability => (
                "The host is busy or not available",
                "All of these are transient, except `events-too-large` and `answer-too-large`.",
            ),
            Self::Fault => (
                "Faults",
                "A fault is a technical failure, not a decision. Nothing of the command is in the log.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_its_name_in_kebab_case_and_there_once() {
        for code in ProblemCode::ALL {
            let words = code.name().split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
            assert_eq!(words.collect::<String>(), format!("{code:?}"));
            assert_eq!(ProblemCode::named(code.name()), Some(*code));
            assert!(code.meaning().ends_with('.') && code.advice().ends_with('.'), "{code:?}");
        }
    }
}
