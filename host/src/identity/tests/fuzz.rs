use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use serde_json::json;
use tokio::runtime::Runtime;

use super::session::CookieName;
use super::signer::Signer;
use super::*;
use crate::contract::Problem;
use crate::contract::fuzz::{is_clear, near_text};

/// Parts of tokens, headers, claims and cookies.
const WORDS: &[&str] = &[
    "Bearer ",
    "bearer  ",
    "Basic ",
    "kontor_",
    "_",
    ".",
    "..",
    "=",
    "; ",
    "eyJhbGciOiJub25lIn0",
    "A",
    "\u{e9}",
];
const ISSUER: &str = "https://id.example";

/// An identity with an issuer and the sign-in of browsers, for all inputs.
struct UnderTest {
    runtime: Runtime,
    identity: Identity,
    signer: Signer,
    /// The headers that are somebody's: a token of Kontor's own, and a JWT.
    valid: [String; 2],
    /// The cookie of a browser that has signed in.
    cookie: String,
    _site: Site,
}

static UNDER_TEST: LazyLock<UnderTest> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let (site, signer) = (Site::new(), Signer::es256());
    let file = site.data.path().join("keys.json");
    std::fs::write(&file, json!({"keys": [signer.jwk("one")]}).to_string()).unwrap();
    let section = format!(
        "[[issuers]]\nissuer = '{ISSUER}'\naudience = ['a']\njwks = '{}'\nroles = 'roles'\n\
         algorithms = ['ES256', 'RS256', 'EdDSA']\n\
         [oidc]\nissuer = '{ISSUER}'\nclient_id = 'kontor'\nurl = 'http://127.0.0.1:7070'\n",
        file.display()
    );
    let identity = runtime.block_on(site.start(&section)).unwrap();
    let new = NewToken { subject: "ann".into(), ..NewToken::default() };
    let (text, _) = runtime.block_on(identity.make_token(new, &Caller::named("ada"))).unwrap();
    let claims = json!({"iss": ISSUER, "aud": "a", "sub": "ann", "exp": NOW_S + 60});
    let jwt = signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
    let session = Session::new(Caller::named("ann"), (NOW_S + 60) * 1_000).unwrap();
    let cookies = Cookies::open(site.data.path(), None, false).unwrap();
    let cookie = cookies.seal(CookieName::Session, &session, 60).unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let valid = [text.reveal().to_owned(), jwt];
    UnderTest { runtime, identity, signer, valid, cookie, _site: site }
});

fn caller_of(authorization: &str) -> Result<Caller, NotIdentified> {
    let UnderTest { runtime, identity, .. } = &*UNDER_TEST;
    let evidence = Evidence { authorization: Some(authorization), ..Evidence::default() };
    runtime.block_on(identity.caller(evidence))
}

fn refused(authorization: &str) -> Result<(), TestCaseError> {
    let caller = caller_of(authorization);
    prop_assert!(caller.is_err(), "{authorization} is {caller:?}");
    caller.err().map_or(Ok(()), |error| is_clear(&Problem::from(error)))
}

/// Returns texts that are close to the members of a JWT.
fn json() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"ES256\"".to_owned()),
        Just("\"none\"".to_owned()),
        Just("\"one\"".to_owned()),
        Just(format!("\"{ISSUER}\"")),
        Just(format!("[\"a\",\"{ISSUER}\"]")),
        any::<u32>().prop_map(|seconds| (NOW_S - 1_000 + u64::from(seconds) % 2_000).to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("[]".to_owned()),
        Just("{\"kty\":\"RSA\",\"n\":\"\",\"e\":\"\"}".to_owned()),
        ".{0,20}",
    ];
    let name = prop::sample::select(vec![
        "alg", "kid", "typ", "crit", "jwk", "x5c", "iss", "aud", "exp", "nbf", "sub", "zip", "enc", "b64",
        "roles",
    ]);
    prop::collection::vec((name, value), 0..6).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        members.join(",")
    })
}

/// Returns a text as a part of a JWT.
fn part(text: &str) -> String {
    BASE64.encode(text)
}

proptest! {
    #[test]
    fn no_text_is_somebody(text in any::<String>()) {
        refused(&text)?;
        refused(&format!("Bearer {text}"))?;
        refused(&format!("Bearer kontor_{text}"))?;
    }

    #[test]
    fn a_token_that_was_changed_is_nobody_s(
        text in near_text(&UNDER_TEST.valid.each_ref().map(|token| format!("Bearer {token}")), WORDS),
    ) {
        let token = bearer(&text).unwrap_or_default();
        match UNDER_TEST.valid.iter().any(|valid| valid == token) {
            true => prop_assert_eq!(caller_of(&text).unwrap().actor(), "ann"),
            false => refused(&text)?,
        }
    }

    #[test]
    fn no_three_parts_are_somebody(
        header in json(), claims in json(), signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let (header, claims) = (part(&format!("{{{header}}}")), part(&format!("{{{claims}}}")));
        refused(&format!("Bearer {header}.{claims}.{}", BASE64.encode(signature)))?;
    }

    #[test]
    fn what_an_issuer_has_signed_is_somebody_or_refused_with_a_sentence(header in json(), claims in json()) {
        let header = part(&format!("{{\"alg\":\"ES256\",\"kid\":\"one\",\"typ\":\"JWT\"{}}}", more(&header)));
        let valid = format!("\"iss\":\"{ISSUER}\",\"aud\":\"a\",\"sub\":\"ann\",\"exp\":{}", NOW_S + 60);
        let claims = part(&format!("{{{valid}{}}}", more(&claims)));
        let token = UNDER_TEST.signer.sign(&format!("{header}.{claims}"));
        if let Err(error) = caller_of(&format!("Bearer {token}")) {
            is_clear(&Problem::from(error))?;
        }
    }

    #[test]
    fn a_cookie_that_was_changed_is_nobody_s(text in near_text(&[&UNDER_TEST.cookie], WORDS)) {
        let UnderTest { runtime, identity, cookie, .. } = &*UNDER_TEST;
        let evidence = Evidence { cookies: vec![&text], ..Evidence::default() };
        let caller = runtime.block_on(identity.caller(evidence)).unwrap();
        prop_assert!(caller == Caller::default() || text.contains(&**cookie), "{text} is {caller:?}");
    }

    #[test]
    fn no_key_set_and_no_configuration_panics(text in any::<String>(), value in json()) {
        for text in [text.clone(), format!("{{{value}}}"), format!("{{\"keys\":[{{{value}}}]}}")] {
            // Err: nearly always; that nothing panics is all that is shown.
            let _ = toml::from_str::<AuthOptions>(&text).map(|options| options.check());
            let _ = keys::KeySet::parse(text);
        }
    }
}

/// Returns members behind others.
fn more(members: &str) -> String {
    if members.is_empty() { String::new() } else { format!(",{members}") }
}

#[test]
fn a_token_has_a_largest_size() {
    let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
    assert_eq!(bearer(&long), Err(NotIdentified::TooLong(MAX_TOKEN_BYTES)));
    for (text, expected) in [
        ("Bearer abc", Ok("abc")),
        ("BEARER abc", Ok("abc")),
        ("Basic YW5uOmFubg==", Err(NotIdentified::Scheme)),
        ("Bearer", Err(NotIdentified::Scheme)),
        ("abc", Err(NotIdentified::Scheme)),
        ("", Err(NotIdentified::Scheme)),
    ] {
        assert_eq!(bearer(text), expected, "{text}");
    }
}
