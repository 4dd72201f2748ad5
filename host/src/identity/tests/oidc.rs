use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use oauth2::url::{Url, form_urlencoded};
use serde_json::{Value, json};

use super::signer::Signer;
use super::*;

/// An issuer that answers every code with the same ID token, right or wrong.
struct Provider {
    url: String,
    signer: Signer,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// The issuer that the provider says it is.
    named: String,
    keys: String,
    answer: String,
    /// The last request with a code.
    asked: String,
}

impl Provider {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let signer = Signer::es256();
        let keys = json!({"keys": [signer.jwk("one")]}).to_string();
        let script = Arc::new(Mutex::new(Script { named: url.clone(), keys, ..Script::default() }));
        let (at, scripted) = (url.clone(), script.clone());
        thread::spawn(move || {
            listener.incoming().for_each(|connection| answer(connection.unwrap(), &at, &scripted));
        });
        Self { url, signer, script }
    }

    /// Returns the section of a host that signs browsers in here.
    fn section(&self) -> String {
        let url = &self.url;
        format!(
            "[[issuers]]\nissuer = '{url}'\naudience = ['api']\njwks = '{url}/keys'\nalgorithms = ['ES256']\n\
             roles = 'roles'\n[oidc]\nissuer = '{url}'\nclient_id = 'kontor'\nurl = 'http://127.0.0.1:7070'\n"
        )
    }
}

/// Answers one request.
fn answer(connection: TcpStream, at: &str, script: &Mutex<Script>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let head: Vec<String> =
        reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).unwrap();
    let mut script = script.lock().unwrap();
    let text = match head[0].split(' ').nth(1).unwrap() {
        "/keys" => script.keys.clone(),
        "/token" => {
            script.asked = String::from_utf8(body).unwrap();
            script.answer.clone()
        }
        _ => json!({
            "issuer": script.named, "authorization_endpoint": format!("{at}/authorize"),
            "token_endpoint": format!("{at}/token"), "jwks_uri": format!("{at}/keys"),
        })
        .to_string(),
    };
    let (mut connection, length) = (connection, text.len());
    let head = format!("content-type: application/json\r\nconnection: close\r\ncontent-length: {length}");
    write!(connection, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{text}").unwrap();
}

/// Returns the pair of name and value that a browser keeps of `Set-Cookie`.
fn kept(set_cookie: &str) -> &str {
    set_cookie.split(';').next().unwrap()
}

fn parameter(pairs: form_urlencoded::Parse<'_>, name: &str) -> String {
    pairs
        .into_iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// Signs a browser in with an ID token with these changes. Returns the caller of its next request.
async fn sign_in(
    identity: &Identity,
    provider: &Provider,
    changes: &Value,
) -> Result<(String, String), String> {
    let begun = identity.begin_sign_in(Some("/orders")).await.map_err(|error| error.to_string())?;
    let url = Url::parse(&begun.location).unwrap();
    let of_url = |name: &str| parameter(url.query_pairs(), name);
    let mut claims = json!({
        "iss": provider.url, "aud": "kontor", "sub": "ann", "exp": NOW_S + 3_600, "roles": ["clerk"],
        "nonce": of_url("nonce"),
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let token = provider.signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
    let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": token});
    provider.script.lock().unwrap().answer = answer.to_string();
    let (cookie, state) = (kept(&begun.cookies[0]), of_url("state"));
    let finished = identity.finish_sign_in(&[cookie], Some(&state), Ok("code")).await;
    let finished = finished.map_err(|error| error.to_string())?;
    assert_eq!(finished.location, "/orders");
    let asked = provider.script.lock().unwrap().asked.clone();
    let verifier = parameter(form_urlencoded::parse(asked.as_bytes()), "code_verifier");
    assert_eq!(of_url("code_challenge"), BASE64.encode(Sha256::digest(verifier)), "PKCE");
    assert_eq!(of_url("code_challenge_method"), "S256");
    assert_eq!(of_url("redirect_uri"), "http://127.0.0.1:7070/auth/callback");
    let cookies = vec![kept(&finished.cookies[0])];
    shown(identity.caller(Evidence { cookies, ..Evidence::default() }).await)
}

#[tokio::test]
async fn a_browser_is_signed_in_by_an_id_token_that_is_for_it() {
    let (site, provider) = (Site::new(), Provider::start());
    let identity = site.start(&provider.section()).await.unwrap();
    let unusable = |why: String| Err(format!("the issuer's ID token cannot be used: {why}"));
    let claim = |name: &str| unusable(NotIdentified::Claim(name.to_owned()).to_string());
    let mut wrong = Vec::new();
    for (changes, expected) in [
        (json!({}), somebody("ann", "clerk")),
        (json!({"nonce": "another"}), claim("nonce")),
        (json!({"nonce": null}), claim("nonce")),
        (json!({"aud": "api"}), unusable(NotIdentified::Audience.to_string())),
        (json!({"exp": NOW_S - 60}), unusable(NotIdentified::Expired.to_string())),
        (json!({"iss": "https://evil.example"}), unusable(NotIdentified::Issuer.to_string())),
        (json!({"sub": ""}), claim("sub")),
    ] {
        let found = sign_in(&identity, &provider, &changes).await;
        if found != expected {
            wrong.push((changes, found, expected));
        }
    }
    assert!(wrong.is_empty(), "changes, found, expected: {wrong:#?}");
}

#[tokio::test]
async fn a_sign_in_ends_in_the_browser_and_in_the_time_in_which_it_began() {
    let (site, provider) = (Site::new(), Provider::start());
    let identity = site.start(&provider.section()).await.unwrap();
    let [mine, others] =
        [identity.begin_sign_in(None).await.unwrap(), identity.begin_sign_in(None).await.unwrap()];
    let state = |redirect: &Redirect| {
        let url = Url::parse(&redirect.location).unwrap();
        parameter(url.query_pairs(), "state")
    };
    let finish = async |cookies: &[&str], state: Option<&str>, code: Result<&str, &str>| {
        identity.finish_sign_in(cookies, state, code).await.unwrap_err()
    };
    let mine_kept = [kept(&mine.cookies[0])];
    for (cookies, state) in [
        (&[][..], Some(state(&mine))),
        (&mine_kept[..], Some(state(&others))),
        (&mine_kept[..], Some(String::new())),
        (&mine_kept[..], None),
    ] {
        let error = finish(cookies, state.as_deref(), Ok("code")).await;
        assert!(matches!(error, SignInError::NotBegun), "{error}");
    }
    let denied = finish(&mine_kept, Some(&state(&mine)), Err("access_denied")).await;
    assert_eq!(denied.to_string(), "the issuer has refused: access_denied");
    site.clock.advance_s(600);
    let late = finish(&mine_kept, Some(&state(&mine)), Ok("code")).await;
    assert!(matches!(late, SignInError::NotBegun), "{late}");
}

#[tokio::test]
async fn a_session_ends_and_an_effect_takes_more_than_its_cookie() {
    let (site, provider) = (Site::new(), Provider::start());
    let identity = site.start(&provider.section()).await.unwrap();
    let begun = identity.begin_sign_in(Some("https://evil.example")).await.unwrap();
    let url = Url::parse(&begun.location).unwrap();
    let of_url = |name: &str| parameter(url.query_pairs(), name);
    let claims = json!({
        "iss": provider.url, "aud": "kontor", "sub": "ann", "exp": NOW_S + 60, "nonce": of_url("nonce"),
    });
    let token = provider.signer.token(&json!({"alg": "ES256", "kid": "one"}), &claims);
    let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": token});
    provider.script.lock().unwrap().answer = answer.to_string();
    let (begun, state) = ([kept(&begun.cookies[0])], of_url("state"));
    let finished = identity.finish_sign_in(&begun, Some(&state), Ok("code")).await.unwrap();
    assert_eq!(finished.location, "/", "no place outside is returned to");
    let cookie = kept(&finished.cookies[0]);
    let cookies = || vec![cookie];
    let ann = identity.caller(Evidence { cookies: cookies(), ..Evidence::default() }).await.unwrap();
    let SignedIn { csrf, .. } = identity.signed_in(&ann, &[cookie]);
    for (csrf, expected) in [(csrf.as_deref(), Ok("ann")), (Some("x"), Err(())), (None, Err(()))] {
        let evidence = Evidence { cookies: cookies(), csrf, has_effect: true, ..Evidence::default() };
        let found = identity.caller(evidence).await.map(|caller| caller.actor()).map_err(|_| ());
        assert_eq!(found, expected.map(Into::into), "{csrf:?}");
    }
    site.clock.advance_s(8 * 60 * 60);
    let after = identity.caller(Evidence { cookies: cookies(), ..Evidence::default() }).await;
    assert_eq!(after.unwrap(), Caller::default(), "a browser whose session has ended is nobody's");
}

#[tokio::test]
async fn an_issuer_that_is_another_one_signs_nobody_in() {
    let (site, provider) = (Site::new(), Provider::start());
    let identity = site.start(&provider.section()).await.unwrap();
    provider.script.lock().unwrap().named = "https://evil.example".to_owned();
    let error = sign_in(&identity, &provider, &json!({})).await.unwrap_err();
    assert!(error.contains("it says that it is \"https://evil.example\""), "{error}");
    provider.script.lock().unwrap().named.clone_from(&provider.url);
    assert_eq!(
        sign_in(&identity, &provider, &json!({})).await,
        somebody("ann", "clerk"),
        "it is asked again"
    );
}
