use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::signer::Signer;
use super::*;

/// An identity with an issuer, for all inputs.
static UNDER_TEST: LazyLock<(Runtime, Identity, Site)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let site = Site::new();
    let file = site.data.path().join("keys.json");
    std::fs::write(&file, serde_json::json!({"keys": [Signer::es256().jwk("one")]}).to_string()).unwrap();
    let section = format!(
        "[[issuers]]\nissuer = 'i'\naudience = ['a']\njwks = '{}'\nalgorithms = ['ES256', 'RS256', 'EdDSA']",
        file.display()
    );
    let identity = runtime.block_on(site.start(&section)).unwrap();
    (runtime, identity, site)
});

fn refused(authorization: &str) -> Result<(), TestCaseError> {
    let (runtime, identity, _) = &*UNDER_TEST;
    let evidence = Evidence { authorization: Some(authorization), ..Evidence::default() };
    prop_assert!(runtime.block_on(identity.caller(evidence)).is_err());
    Ok(())
}

/// Returns texts that are close to the header of a JWT.
fn json() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"ES256\"".to_owned()),
        Just("\"none\"".to_owned()),
        Just("\"one\"".to_owned()),
        Just("\"i\"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("[]".to_owned()),
        Just("{\"kty\":\"RSA\",\"n\":\"\",\"e\":\"\"}".to_owned()),
        ".{0,20}",
    ];
    let name = prop::sample::select(vec![
        "alg", "kid", "typ", "crit", "jwk", "x5c", "iss", "aud", "exp", "nbf", "sub", "zip", "enc", "b64",
    ]);
    prop::collection::vec((name, value), 0..6).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #[test]
    fn no_text_is_somebody(text in any::<String>()) {
        refused(&text)?;
        refused(&format!("Bearer {text}"))?;
        refused(&format!("Bearer kontor_{text}"))?;
    }

    #[test]
    fn no_three_parts_are_somebody(
        header in json(), claims in json(), signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let (header, claims) = (encode(header.as_bytes()), encode(claims.as_bytes()));
        refused(&format!("Bearer {header}.{claims}.{}", encode(&signature)))?;
    }

    #[test]
    fn no_key_set_and_no_configuration_panics(text in any::<String>(), value in json()) {
        for text in [text.clone(), value.clone(), format!("{{\"keys\":[{value}]}}"), format!("[{text}]")] {
            // Err: nearly always; that nothing panics is all that is shown.
            let _ = serde_json::from_str::<serde_json::Value>(&text);
            let _ = toml::from_str::<AuthOptions>(&text).map(|options| options.check());
            let _ = keys::KeySet::parse(text);
        }
    }
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
