//! The rules for HTTP requests of components, and the sentences that say which rule denied a request.

use std::net::IpAddr;
use std::time::Duration;

use hyper::{Method, Uri};

use super::{HttpFailure, HttpFailureKind as Kind};
use crate::contract::{HttpGrant, HttpOrigin, is_public};

/// Fails unless the manifest asks for the origin of the URL.
pub(super) fn check_asked(service: &str, asked: &[HttpOrigin], url: &Uri) -> Result<(), HttpFailure> {
    if HttpOrigin::of(url).is_some_and(|origin| asked.contains(&origin)) {
        return Ok(());
    }
    let sentence = format!(
        "{service} may not call {}: its manifest does not ask for that origin; only another version of the \
         component can",
        shown(url)
    );
    Err(HttpFailure::new(Kind::Denied, sentence))
}

/// Returns the failure of a request to an origin that is not granted.
pub(super) fn not_granted(service: &str, origin: &HttpOrigin, method: &Method) -> HttpFailure {
    let to_add = grant_to_add(service, origin, method.as_str());
    let sentence = format!("{service} may not call {origin}, which is not granted: {to_add}");
    HttpFailure::new(Kind::Denied, sentence)
}

/// Fails unless the operator has granted the method.
pub(super) fn check_method(service: &str, grant: &HttpGrant, method: &Method) -> Result<(), HttpFailure> {
    if grant.methods.iter().any(|granted| granted.as_str() == method.as_str()) {
        return Ok(());
    }
    let sentence = format!(
        "{service} may not send {method} to {}: add \"{method}\" to the methods of that origin under \
         [[grants.{service}.http]] in kontor.toml",
        grant.origin
    );
    Err(HttpFailure::new(Kind::Denied, sentence))
}

/// Returns the instruction for the operator to grant an origin.
pub(crate) fn grant_to_add(service: &str, origin: &HttpOrigin, method: &str) -> String {
    let entry =
        format!("add [[grants.{service}.http]] with origin = \"{origin}\" and methods = [\"{method}\"]");
    match origin.is_private() {
        true => format!("{entry} and private = true to kontor.toml"),
        false => format!("deploy it with --grant http:{origin}, or {entry} to kontor.toml"),
    }
}

/// Fails unless every address of the origin's name may be connected to.
pub(super) fn check_addresses(
    service: &str,
    grant: &HttpGrant,
    addresses: &[IpAddr],
) -> Result<(), HttpFailure> {
    let origin = &grant.origin;
    if addresses.is_empty() {
        return Err(no_address(service, origin, "the name stands for no address"));
    }
    match addresses.iter().find(|address| !grant.private && !is_public(**address)) {
        None => Ok(()),
        Some(address) => {
            let sentence = format!(
                "{service} may not call {origin}: it stands for {address}, which is no public address; \
                 `private = true` under [[grants.{service}.http]] in kontor.toml allows it"
            );
            Err(HttpFailure::new(Kind::PrivateAddress, sentence))
        }
    }
}

pub(super) fn wrong_operation(service: &str, operation: &str) -> HttpFailure {
    let why = match operation {
        "run" => "a saga acts only through commands",
        "answer" => "a query answers from what the host has",
        _ => "it follows from events alone",
    };
    let sentence =
        format!("{service} may not use HTTP in {operation}: {why}; HTTP is for decide and compensate");
    HttpFailure::new(Kind::Denied, sentence)
}

pub(super) fn too_many(service: &str, limit: usize) -> HttpFailure {
    let sentence = format!(
        "{service} has {limit} requests under way, which is the limit: limits.http_concurrency in kontor.toml"
    );
    HttpFailure::new(Kind::TooMany, sentence)
}

pub(super) fn too_slow(service: &str, target: &str, limit: Duration) -> HttpFailure {
    let sentence = format!(
        "{service} has no answer to {target} after {} ms, which is the limit: \
         limits.http_time_ms in kontor.toml",
        limit.as_millis()
    );
    HttpFailure::new(Kind::TooSlow, sentence)
}

pub(super) fn request_too_large(service: &str, bytes: usize, limit: usize) -> HttpFailure {
    let sentence = format!(
        "{service} may not send a request of {bytes} bytes, the limit is {limit}: \
         limits.http_request_bytes in kontor.toml"
    );
    HttpFailure::new(Kind::RequestTooLarge, sentence)
}

pub(super) fn incomplete(service: &str, bytes: usize) -> HttpFailure {
    let sentence = format!(
        "{service} has not sent a request that broke off after {bytes} bytes: the component did not end it"
    );
    HttpFailure::new(Kind::RequestIncomplete, sentence)
}

pub(super) fn response_too_large(service: &str, origin: &HttpOrigin, limit: usize) -> HttpFailure {
    let sentence = format!(
        "{service} gets no answer from {origin} of more than {limit} bytes: \
         limits.http_response_bytes in kontor.toml"
    );
    HttpFailure::new(Kind::ResponseTooLarge, sentence)
}

pub(super) fn no_address(service: &str, origin: &HttpOrigin, why: &str) -> HttpFailure {
    HttpFailure::new(Kind::NoAddress, format!("{service} has no answer from {origin}: {why}"))
}

/// Returns a URL without its query, which may hold secrets.
pub(super) fn shown(url: &Uri) -> String {
    HttpOrigin::of(url)
        .map_or_else(|| "an invalid URL".to_owned(), |origin| format!("{origin}{}", url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    fn origin(text: &str) -> HttpOrigin {
        text.parse().unwrap()
    }

    fn grant(private: bool) -> HttpGrant {
        let methods = vec![contract::Method::Post, contract::Method::Put];
        HttpGrant { origin: origin("https://pay.example"), methods, private, headers: Default::default() }
    }

    /// Compares an answer with the kind of failure and with parts of its sentence.
    #[track_caller]
    fn check(answer: Result<(), HttpFailure>, expected: Option<(Kind, &[&str])>) {
        match (answer, expected) {
            (Ok(()), None) => {}
            (Err(failure), Some((kind, parts))) => {
                assert_eq!(failure.kind, kind, "{failure}");
                for part in parts {
                    assert!(failure.sentence.contains(part), "{part:?} is missing in: {failure}");
                }
            }
            (answer, expected) => panic!("expected {expected:?}, got {answer:?}"),
        }
    }

    #[test]
    fn a_request_to_an_origin_that_the_manifest_does_not_ask_for_is_denied() {
        let asked = [origin("https://pay.example"), origin("http://127.0.0.1:9090")];
        let denied: Option<(Kind, &[&str])> = Some((Kind::Denied, &["payment may not call", "manifest"]));
        let table = [
            ("https://pay.example/authorizations?x=1", None),
            ("https://PAY.example:443/", None),
            ("http://127.0.0.1:9090", None),
            ("http://pay.example/", denied),
            ("https://pay.example:8443/", denied),
            ("https://pay.example.evil.example/", denied),
            ("https://pay.example@evil.example/", denied),
            ("http://127.0.0.1/", denied),
            ("/authorizations", denied),
        ];
        for (url, expected) in table {
            check(check_asked("payment", &asked, &url.parse().unwrap()), expected);
        }
    }

    #[test]
    fn an_origin_is_called_with_the_methods_that_are_granted() {
        let delete: &[&str] = &["DELETE to https://pay.example", "add \"DELETE\"", "[[grants.payment.http]]"];
        let table = [
            ("POST", None),
            ("PUT", None),
            ("DELETE", Some((Kind::Denied, delete))),
            ("post", Some((Kind::Denied, &["add \"post\""][..]))),
        ];
        for (method, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            check(check_method("payment", &grant(false), &method), expected);
        }
    }

    #[test]
    fn the_failure_of_a_missing_grant_says_how_to_grant_it() {
        let entry = ["[[grants.payment.http]]", "origin = \"https://pay.example\"", "methods = [\"POST\"]"];
        let denied = not_granted("payment", &origin("https://pay.example"), &Method::POST);
        check(Err(denied), Some((Kind::Denied, &entry)));
    }

    #[test]
    fn one_address_that_is_not_public_denies_the_request() {
        let denied: Option<(Kind, &[&str])> =
            Some((Kind::PrivateAddress, &["10.0.0.1", "`private = true`", "[[grants.payment.http]]"]));
        let unknown: Option<(Kind, &[&str])> = Some((Kind::NoAddress, &["no address"]));
        let table: [(bool, &[&str], _); 6] = [
            (false, &["1.1.1.1", "2606:4700:4700::1111"], None),
            (false, &["1.1.1.1", "10.0.0.1"], denied),
            (false, &["10.0.0.1"], denied),
            (true, &["10.0.0.1", "::1"], None),
            (false, &[], unknown),
            (true, &[], unknown),
        ];
        for (private, addresses, expected) in table {
            let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            check(check_addresses("payment", &grant(private), &addresses), expected);
        }
    }

    #[test]
    fn a_call_that_may_not_use_http_gets_the_reason() {
        for (operation, why) in
            [("run", "only through commands"), ("answer", "a query"), ("project", "events")]
        {
            check(Err(wrong_operation("payment", operation)), Some((Kind::Denied, &[operation, why])));
        }
    }
}
