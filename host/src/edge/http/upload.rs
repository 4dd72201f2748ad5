//! The components in the body of a deployment: one as the body itself, or several as the parts of a form.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use multer::{Constraints, Multipart, SizeLimit};

use super::body;
use super::headers::SIGNATURE;
use crate::contract::{Problem, ProblemCode};
use crate::deploy::{MAX_COMPONENT_BYTES, Upload};

/// Maximum time for the components to arrive. The largest one takes as long over a line of 4 Mbit/s.
const ARRIVAL: Duration = Duration::from_secs(300);

/// Maximum size of all components of one deployment, which are in memory together: four of the largest, or a
/// hundred in Rust.
const MAX_FORM_BYTES: u64 = 4 * MAX_COMPONENT_BYTES;

/// Maximum number of components of one deployment: more services than one host runs.
const MAX_COMPONENTS: usize = 256;

/// Reads the components of a deployment, in their order, each with its signature if there are signatures.
pub(super) async fn read(headers: &HeaderMap, body: &mut BodyDataStream) -> Result<Vec<Upload>, Problem> {
    body::check_encoding("The body", headers)?;
    let signatures = signatures(headers)?;
    let arrival = async {
        match content(headers)? {
            Content::Component => Ok(vec![body::collect(bytes(MAX_COMPONENT_BYTES), headers, body).await?]),
            Content::Form { boundary } => parts(boundary, body).await,
        }
    };
    let components = body::in_time(ARRIVAL, arrival).await?;
    if components.iter().all(Vec::is_empty) {
        let detail = "There is no component in the body: send the bytes of a .wasm file.";
        return Err(Problem::new(ProblemCode::NoComponent, detail));
    }
    signed(components, signatures)
}

/// The kind of body.
#[derive(Debug, PartialEq)]
enum Content {
    Component,
    Form { boundary: String },
}

/// Returns the kind of body. One without a content type is a component, as `curl -T order.wasm` sends it.
fn content(headers: &HeaderMap) -> Result<Content, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(Content::Component);
    };
    let value = value.to_str().unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/wasm") {
        return Ok(Content::Component);
    }
    multer::parse_boundary(value).map(|boundary| Content::Form { boundary }).map_err(|error| {
        let code = match error {
            multer::Error::NoBoundary => ProblemCode::InvalidForm,
            _ => ProblemCode::UnsupportedMediaType,
        };
        let detail =
            "Send one component as application/wasm, or several as multipart/form-data with a boundary.";
        Problem::new(code, detail)
    })
}

/// Reads the parts of a form, whatever their names.
async fn parts(boundary: String, body: &mut BodyDataStream) -> Result<Vec<Vec<u8>>, Problem> {
    let limit = SizeLimit::new().whole_stream(MAX_FORM_BYTES).per_field(MAX_COMPONENT_BYTES);
    let mut form = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(limit));
    let mut components = Vec::new();
    while let Some(part) = form.next_field().await.map_err(|error| refused("The form", &error))? {
        let file = part.file_name().or(part.name()).unwrap_or("A part of the form").to_owned();
        body::check_encoding(&file, part.headers())?;
        let component = part.bytes().await.map_err(|error| refused(&file, &error))?;
        if components.len() == MAX_COMPONENTS {
            return Err(invalid_form(format!("A form may have {MAX_COMPONENTS} components at most.")));
        }
        components.push(component.into());
    }
    Ok(components)
}

fn refused(what: &str, error: &multer::Error) -> Problem {
    match error {
        multer::Error::FieldSizeExceeded { limit, .. } => Problem::too_large(what, bytes(*limit)),
        multer::Error::StreamSizeExceeded { limit } => Problem::too_large("The form", bytes(*limit)),
        multer::Error::StreamReadFailed(_) => body::broken_off(),
        error => invalid_form(format!("{what} cannot be read as multipart/form-data: {error}.")),
    }
}

fn invalid_form(detail: String) -> Problem {
    Problem::new(ProblemCode::InvalidForm, detail)
}

fn bytes(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Reads `Kontor-Signature`: base64, in the order of the components; an empty item stands for one that is not
/// signed.
fn signatures(headers: &HeaderMap) -> Result<Option<Vec<Option<Vec<u8>>>>, Problem> {
    let Some(value) = headers.get(SIGNATURE) else {
        return Ok(None);
    };
    let item = |text: &str| match text.trim() {
        "" => Some(None),
        text => BASE64.decode(text).ok().map(Some),
    };
    let items = value.to_str().ok().and_then(|text| text.split(',').map(item).collect());
    let refused = || Problem::invalid_header("Kontor-Signature must be base64, as written by `kontor sign`.");
    items.ok_or_else(refused).map(Some)
}

fn signed(
    components: Vec<Vec<u8>>,
    signatures: Option<Vec<Option<Vec<u8>>>>,
) -> Result<Vec<Upload>, Problem> {
    let signatures = signatures.unwrap_or_else(|| vec![None; components.len()]);
    if signatures.len() != components.len() {
        return Err(Problem::invalid_header(format!(
            "Kontor-Signature has {} signatures for {} components: separate them with commas, and leave an \
             item empty for a component that is not signed.",
            signatures.len(),
            components.len()
        )));
    }
    let upload = |(wasm, signature)| Upload { wasm, signature };
    Ok(components.into_iter().zip(signatures).map(upload).collect())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderValue;

    use super::*;

    const FORM: &str = "multipart/form-data; boundary=xx";

    /// Each component as text, with its signature; or the code and the detail of the problem.
    async fn read_as_text(
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Result<Vec<String>, (String, String)> {
        let header = |(name, value): &(&'static str, &str)| {
            (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let headers = headers.iter().map(header).collect();
        let uploads = read(&headers, &mut Body::from(body.to_owned()).into_data_stream()).await;
        let shown = |upload: Upload| {
            let signature =
                upload.signature.map(|signature| format!(" by {}", String::from_utf8(signature).unwrap()));
            String::from_utf8(upload.wasm).unwrap() + &signature.unwrap_or_default()
        };
        uploads
            .map(|uploads| uploads.into_iter().map(shown).collect())
            .map_err(|problem| (problem.code().to_owned(), problem.log_text().to_owned()))
    }

    fn form(components: &[&str]) -> String {
        let part = |component: &&str| {
            format!(
                "--xx\r\ncontent-disposition: form-data; name=\"component\"; \
                 filename=\"a.wasm\"\r\n\r\n{component}\r\n"
            )
        };
        components.iter().map(part).collect::<String>() + "--xx--\r\n"
    }

    /// Returns a form with one more part, which has an encoding.
    fn encoded(form: &str, encoding: &str) -> String {
        let part = format!(
            "--xx\r\ncontent-disposition: form-data; name=\"component\"; filename=\"b.wasm\"\r\n\
             content-encoding: {encoding}\r\n\r\nthree\r\n"
        );
        part + form
    }

    #[tokio::test]
    async fn components_come_as_the_body_or_as_the_parts_of_a_form() {
        let two = form(&["one", "two"]);
        let plain = encoded(&two, "Identity");
        for (headers, body, expected) in [
            (vec![], "one", vec!["one"]),
            (vec![("content-encoding", "identity")], "one", vec!["one"]),
            (vec![("content-type", FORM)], &plain, vec!["three", "one", "two"]),
            (vec![("content-type", "application/wasm")], "one", vec!["one"]),
            (vec![("kontor-signature", "YWRh")], "one", vec!["one by ada"]),
            (vec![("content-type", FORM)], two.as_str(), vec!["one", "two"]),
            (vec![("content-type", FORM), ("kontor-signature", ", YWRh")], &two, vec!["one", "two by ada"]),
        ] {
            assert_eq!(read_as_text(&headers, body).await.unwrap(), expected, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_body_without_components_is_refused_with_advice() {
        let two = form(&["one", "two"]);
        let zipped = encoded(&two, "gzip");
        let too_many = form(&["x"; MAX_COMPONENTS + 1]);
        for (headers, body, code, advice) in [
            (vec![], "", "no-component", "send the bytes of a .wasm file"),
            (vec![("content-type", FORM)], "--xx--\r\n", "no-component", "send the bytes"),
            (vec![("content-type", "text/plain")], "one", "unsupported-media-type", "application/wasm"),
            (vec![("content-type", "multipart/form-data")], &two, "invalid-form", "with a boundary"),
            (vec![("content-type", FORM)], "one", "invalid-form", "cannot be read"),
            (vec![("content-type", FORM)], &too_many, "invalid-form", "256 components at most"),
            (vec![("content-length", "134217729")], "", "payload-too-large", "134217728 bytes at most"),
            (vec![("content-encoding", "gzip")], "one", "unsupported-encoding", "The body is encoded"),
            (vec![("content-type", FORM)], &zipped, "unsupported-encoding", "b.wasm is encoded"),
            (vec![("kontor-signature", "%")], "one", "invalid-header", "`kontor sign`"),
            (
                vec![("content-type", FORM), ("kontor-signature", "YWRh")],
                &two,
                "invalid-header",
                "1 signatures for 2",
            ),
        ] {
            let (found, detail) = read_as_text(&headers, body).await.unwrap_err();
            assert_eq!(found, code, "{headers:?}");
            assert!(detail.contains(advice), "{detail}");
        }
    }

    #[test]
    fn a_part_that_is_too_large_is_named() {
        let error = multer::Error::FieldSizeExceeded { limit: 7, field_name: None };
        let problem = refused("order.wasm", &error);
        assert_eq!(problem.log_text(), "order.wasm may have 7 bytes at most.");
    }
}
