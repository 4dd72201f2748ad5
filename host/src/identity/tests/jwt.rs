use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::signer::{Signer, message};
use super::*;

const ISSUER: &str = "https://id.example";

/// Returns the claims of a token that is valid for an hour, with changes to them; null removes one.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "shop", "sub": "ann", "exp": NOW_S + 3_600, "iat": NOW_S, "roles": ["clerk"],
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}

fn header() -> Value {
    json!({"alg": "ES256", "typ": "JWT", "kid": "one"})
}

fn key_set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// Returns the section for an issuer, with more of its keys.
fn section(keys: &str, more: &str) -> String {
    format!(
        "[[issuers]]\nissuer = '{ISSUER}'\naudience = ['shop', 'api']\njwks = '{keys}'\n\
         algorithms = ['ES256', 'EdDSA']\nroles = 'roles'\n{more}"
    )
}

/// Starts an identity with an issuer whose keys are in a file.
async fn with_file(site: &Site, keys: &[Value], more: &str) -> Identity {
    let file = site.data.path().join("keys.json");
    std::fs::write(&file, key_set(keys)).unwrap();
    site.start(&section(file.to_str().unwrap(), more)).await.unwrap()
}

async fn of_claims(identity: &Identity, signer: &Signer, changes: Value) -> Result<(String, String), String> {
    caller(identity, &format!("Bearer {}", signer.token(&header(), &claims(changes)))).await
}

#[tokio::test]
async fn a_token_is_valid_if_all_of_its_claims_are() {
    let (site, signer) = (Site::new(), Signer::es256());
    let identity = with_file(&site, &[signer.jwk("one")], "").await;
    let ann = || somebody("ann", "clerk");
    let claim = |name: &str| Err(format!("the token's claim `{name}` is missing or malformed"));
    let expired = || Err("the token has expired".to_owned());
    let not_yet = || Err("the token is not valid yet".to_owned());
    let audience = || Err(NotIdentified::Audience.to_string());
    let issuer = || Err(NotIdentified::Issuer.to_string());
    let mut wrong = Vec::new();
    for (changes, expected) in [
        (json!({}), ann()),
        (json!({"aud": ["other", "api"]}), ann()),
        (json!({"aud": "other"}), audience()),
        (json!({"aud": []}), audience()),
        (json!({"aud": null}), claim("aud")),
        (json!({"aud": 7}), claim("aud")),
        (json!({"iss": "https://id.example/"}), issuer()),
        (json!({"iss": "https://evil.example"}), issuer()),
        (json!({"iss": null}), claim("iss")),
        (json!({"iss": 7}), claim("iss")),
        (json!({"exp": NOW_S - 30}), ann()),
        (json!({"exp": NOW_S - 59}), ann()),
        (json!({"exp": NOW_S - 60}), expired()),
        (json!({"exp": 0}), expired()),
        (json!({"exp": -1}), claim("exp")),
        (json!({"exp": 1e300}), claim("exp")),
        (json!({"exp": 253_402_300_799_u64}), ann()),
        (json!({"exp": (NOW_S as f64) + 0.5}), ann()),
        (json!({"exp": null}), claim("exp")),
        (json!({"exp": (NOW_S + 60).to_string()}), claim("exp")),
        (json!({"nbf": NOW_S + 60}), ann()),
        (json!({"nbf": NOW_S + 61}), not_yet()),
        (json!({"nbf": "now"}), claim("nbf")),
        (json!({"sub": null}), claim("sub")),
        (json!({"sub": ""}), claim("sub")),
        (json!({"sub": 7}), claim("sub")),
        (json!({"sub": "a\nb"}), claim("sub")),
        (json!({"sub": "nats"}), claim("sub")),
        (json!({"sub": "anonymous"}), claim("sub")),
        (json!({"sub": "x".repeat(200)}), claim("sub")),
        (json!({"roles": null}), somebody("ann", "")),
        (json!({"roles": 7}), somebody("ann", "")),
        (json!({"roles": "openid clerk"}), somebody("ann", "clerk openid")),
        (json!({"roles": ["b", "a", 7, "b", "Not_A_Role"]}), somebody("ann", "a b")),
    ] {
        let found = of_claims(&identity, &signer, changes.clone()).await;
        if found != expected {
            wrong.push((changes, found, expected));
        }
    }
    assert!(wrong.is_empty(), "changes, found, expected: {wrong:#?}");
}

#[tokio::test]
async fn a_caller_has_at_most_32_roles() {
    let (site, signer) = (Site::new(), Signer::es256());
    let identity = with_file(&site, &[signer.jwk("one")], "").await;
    let roles = |number: usize| (0..number).map(|role| format!("role-{role}")).collect::<Vec<_>>();
    assert!(of_claims(&identity, &signer, json!({"roles": roles(32)})).await.is_ok());
    let refused = of_claims(&identity, &signer, json!({"roles": roles(40)})).await.unwrap_err();
    assert!(refused.starts_with("the token has more than 32 roles"), "{refused}");
    let map = "roles_map = { role-39 = 'clerk' }\nprefix = 'staff:'";
    let identity = with_file(&site, &[signer.jwk("one")], map).await;
    let found = of_claims(&identity, &signer, json!({"roles": roles(40)})).await;
    assert_eq!(found, somebody("staff:ann", "clerk"));
}

#[tokio::test]
async fn a_role_of_the_host_counts_only_if_the_map_names_it() {
    let (site, signer) = (Site::new(), Signer::es256());
    let identity = with_file(&site, &[signer.jwk("one")], "roles_map = { 'Shop Admins' = 'operator' }").await;
    let roles = async |roles: &[&str]| of_claims(&identity, &signer, json!({"roles": roles})).await;
    assert_eq!(roles(&["operator"]).await, somebody("ann", ""));
    assert_eq!(roles(&["Shop Admins", "clerk"]).await, somebody("ann", "operator"));
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let (site, signer, other) = (Site::new(), Signer::es256(), Signer::es256());
    let ed = Signer::eddsa();
    let shared = json!({"kty": "oct", "kid": "shared", "k": "AAAA"});
    let identity = with_file(&site, &[signer.jwk("one"), ed.jwk("two"), shared], "").await;
    let claims = claims(json!({}));
    let none = |alg: &str| message(&json!({"alg": alg, "kid": "one"}), &claims) + ".";
    let valid = signer.token(&header(), &claims);
    let (head, _) = valid.rsplit_once('.').unwrap();
    let with = |header: Value| signer.token(&header, &claims);
    let algorithm = NotIdentified::Algorithm.to_string();
    let signature = NotIdentified::Signature.to_string();
    let key = NotIdentified::Key.to_string();
    let malformed = NotIdentified::NoToken.to_string();
    for (token, expected) in [
        (none("none"), &algorithm),
        (none("None"), &algorithm),
        (none("ES256"), &signature),
        (signer.confused(&claims), &algorithm),
        (with(json!({"alg": "HS256", "kid": "shared"})), &algorithm),
        (with(json!({"alg": "RS256", "kid": "one"})), &algorithm),
        (other.token(&header(), &claims), &signature),
        (head.to_owned() + ".AAAA", &signature),
        (with(json!({"alg": "ES256", "kid": "two"})), &key),
        (with(json!({"alg": "ES256", "kid": "shared"})), &key),
        (with(json!({"alg": "ES256", "kid": "three"})), &key),
        (with(json!({"alg": "EdDSA", "kid": "two"})), &signature),
        (with(json!({"alg": "ES256", "kid": "one", "crit": ["exp"], "exp": 1})), &malformed),
        (with(json!({"alg": "ES256", "kid": 7})), &algorithm),
        (with(json!({"kid": "one"})), &algorithm),
    ] {
        let found = caller(&identity, &format!("Bearer {token}")).await;
        assert_eq!(found.as_ref().unwrap_err(), expected, "{token}");
    }
    let own_key = json!({"alg": "ES256", "jwk": other.jwk("one"), "jku": "https://evil.example/keys"});
    let found = caller(&identity, &format!("Bearer {}", other.token(&own_key, &claims))).await;
    assert_eq!(found.unwrap_err(), signature, "a key that comes with the token is no key");
    let by_ed = ed.token(&json!({"alg": "EdDSA", "kid": "two"}), &claims);
    assert_eq!(caller(&identity, &format!("Bearer {by_ed}")).await, somebody("ann", "clerk"));
}

#[tokio::test]
async fn a_token_without_the_id_of_a_key_is_for_the_only_one_that_fits() {
    let (site, signer) = (Site::new(), Signer::es256());
    let token = signer.token(&json!({"alg": "ES256"}), &claims(json!({})));
    let bearer = format!("Bearer {token}");
    let identity = with_file(&site, &[signer.jwk("one"), Signer::eddsa().jwk("two")], "").await;
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"));
    let identity = with_file(&site, &[signer.jwk("one"), Signer::es256().jwk("two")], "").await;
    assert_eq!(caller(&identity, &bearer).await.unwrap_err(), NotIdentified::Key.to_string());
}

#[tokio::test]
async fn a_verified_token_still_expires_and_ends_with_its_key() {
    let (site, signer) = (Site::new(), Signer::es256());
    let identity = with_file(&site, &[signer.jwk("one")], "leeway_s = 0").await;
    let token = |seconds: u64| signer.token(&header(), &claims(json!({"exp": NOW_S + seconds})));
    let (short, long) = (format!("Bearer {}", token(20)), format!("Bearer {}", token(3_600)));
    for bearer in [&short, &long, &short] {
        assert_eq!(caller(&identity, bearer).await, somebody("ann", "clerk"));
    }
    site.clock.advance_s(20);
    assert_eq!(caller(&identity, &short).await.unwrap_err(), "the token has expired");
    // The issuer replaces its key; a token with the new one makes the host read the keys again.
    let new = Signer::es256();
    std::fs::write(site.data.path().join("keys.json"), key_set(&[new.jwk("new")])).unwrap();
    let by_new = new.token(&json!({"alg": "ES256", "kid": "new"}), &claims(json!({"sub": "ben"})));
    assert_eq!(caller(&identity, &format!("Bearer {by_new}")).await, somebody("ben", "clerk"));
    assert_eq!(caller(&identity, &long).await.unwrap_err(), NotIdentified::Key.to_string());
}

#[tokio::test]
async fn tokens_with_invented_keys_do_not_flood_the_issuer() {
    let (site, signer) = (Site::new(), Signer::es256());
    let (url, requests) = scripted_issuer(vec![key_set(&[signer.jwk("one")]); 2]);
    let identity = site.start(&section(&url, "")).await.unwrap();
    let of = async |id: &str| {
        let token = signer.token(&json!({"alg": "ES256", "kid": id}), &claims(json!({})));
        caller(&identity, &format!("Bearer {token}")).await
    };
    assert_eq!(of("one").await, somebody("ann", "clerk"));
    for number in 0..100 {
        assert_eq!(of(&number.to_string()).await.unwrap_err(), NotIdentified::Key.to_string());
    }
    site.clock.advance_s(10);
    assert_eq!(of("other").await.unwrap_err(), NotIdentified::Key.to_string());
    assert_eq!(requests.join().unwrap(), 2, "one at the start, one after the pause");
}

#[tokio::test]
async fn known_keys_stay_in_use_while_the_issuer_is_away() {
    let (site, signer) = (Site::new(), Signer::es256());
    let (url, requests) = scripted_issuer(vec![key_set(&[signer.jwk("one")])]);
    let bearer = format!("Bearer {}", signer.token(&header(), &claims(json!({}))));
    let other = signer.token(&json!({"alg": "ES256", "kid": "other"}), &claims(json!({})));
    let identity = site.start(&section(&url, "")).await.unwrap();
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"));
    assert_eq!(requests.join().unwrap(), 1);
    // From here on nobody listens at the address.
    site.clock.advance_s(60);
    let unknown = caller(&identity, &format!("Bearer {other}")).await.unwrap_err();
    assert_eq!(unknown, NotIdentified::Key.to_string());
    let [warning] = &*identity.warnings() else { panic!("one warning") };
    assert!(warning.contains(ISSUER) && warning.contains("those from before stay in use"), "{warning}");
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"));
    drop(identity);
    let identity = site.start(&section(&url, "")).await.unwrap();
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"), "after a restart too");
}

#[tokio::test]
async fn without_any_keys_the_problem_is_the_hosts_and_it_passes() {
    let (site, signer) = (Site::new(), Signer::es256());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let identity = site.start(&section(&format!("http://{address}/keys"), "")).await.unwrap();
    let token = signer.token(&header(), &claims(json!({})));
    let evidence = Evidence { authorization: Some(&format!("Bearer {token}")), ..Evidence::default() };
    let error = identity.caller(evidence).await.unwrap_err();
    let problem = crate::contract::Problem::from(error);
    assert_eq!((problem.code(), problem.status().as_u16()), ("issuer-unavailable", 503));
    assert!(problem.is_transient());
}

#[tokio::test]
async fn the_keys_of_a_file_must_be_sound_at_the_start() {
    let site = Site::new();
    let file = site.data.path().join("keys.json");
    let section = section(file.to_str().unwrap(), "");
    for (text, expected) in [
        (None, "cannot be read"),
        (Some("{}"), "it is no JSON Web Key Set"),
        (Some("{\"keys\": []}"), "it has no key that can verify a signature"),
        (Some("{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}, 7]}"), "it has no key that can verify"),
        (
            Some("{\"keys\": [{\"kty\": \"RSA\", \"n\": \"AQAB\", \"e\": \"AQAB\", \"use\": \"enc\"}]}"),
            "no key",
        ),
    ] {
        text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
        let error = site.start(&section).await.err().unwrap();
        let error = crate::error::with_causes(&error);
        assert!(error.contains(ISSUER) && error.contains(expected), "{error}");
    }
}

/// Starts an issuer that answers each connection with the next key set. Returns the URL, and a thread that
/// ends with the last answer and returns their number.
fn scripted_issuer(answers: Vec<String>) -> (String, thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let number = answers.len();
    let answering = thread::spawn(move || {
        for body in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let mut head = [0; 1_024];
            assert!(connection.read(&mut head).unwrap() > 0);
            let length = body.len();
            write!(
                connection,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
        number
    });
    (url, answering)
}

/// The example of RFC 7515, A.2: an RSA signature that somebody else has made.
#[test]
fn the_rsa_signature_of_the_standard_is_verified() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                         cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3X\
                         OiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB-\
                         -f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12j\
                         zDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhW\
                         kWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1\
                           Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kp\
                           aSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9k\
                           G4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpo\
                           Q";
    crypto::install();
    let key = DecodingKey::from_rsa_components(MODULUS, "AQAB").unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.set_required_spec_claims(&["iss"]);
    assert_eq!(decode::<Value>(TOKEN, &key, &validation).unwrap().claims["iss"], "joe");
    let forged = TOKEN.replace("cC4hiUPo", "cC4hiUPp");
    assert!(decode::<Value>(forged, &key, &validation).is_err());
}
