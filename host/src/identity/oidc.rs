//! The sign-in of browsers: the code flow of OpenID Connect with PKCE. `oauth2` makes the requests, the
//! issuer's entry in the configuration verifies the ID token.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use oauth2::basic::{BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenType};
use oauth2::{
    AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardRevocableToken, StandardTokenIntrospectionResponse, StandardTokenResponse, TokenUrl,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::sync::OnceCell;

use super::NotIdentified;
use super::issuer::Issuer;
use super::options::{OidcOptions, check_url};
use super::session::{CookieName, Cookies, Session};
use super::token::NoRandomness;
use crate::clock::SharedClock;
use crate::model::Caller;

/// The route to which the issuer sends the browser back.
pub(crate) const CALLBACK: &str = "/auth/callback";
/// The longest time for one answer of the issuer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The largest answer of the issuer in bytes: an ID token with many claims.
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// The longest time between the two halves of a sign-in, in seconds: who types a password may look for it.
const SIGN_IN_S: u64 = 600;
/// The longest path to return to. It is in a cookie, and a browser takes 4 KiB of one.
const MAX_BACK: usize = 1_024;

/// The sign-in of browsers.
pub(super) struct Oidc {
    options: OidcOptions,
    issuer: Arc<Issuer>,
    secret: Option<ClientSecret>,
    cookies: Cookies,
    clock: SharedClock,
    /// Read from the issuer when the first browser signs in.
    endpoints: OnceCell<Endpoints>,
}

/// The reply to a browser: a place to go to, and cookies to set.
#[derive(Debug)]
pub struct Redirect {
    /// The URL or the path.
    pub location: String,
    /// The values of `Set-Cookie`.
    pub cookies: Vec<String>,
}

/// The user who is signed in at a browser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SignedIn {
    /// The name; null if nobody is signed in.
    pub subject: Option<crate::model::Actor>,
    /// The roles.
    pub roles: Vec<crate::model::Role>,
    /// The value of `Kontor-CSRF` for requests with the cookie of this session; missing without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
}

/// The reason why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The configuration has no `[auth.oidc]`.
    #[error("this host signs no browsers in: auth.oidc is not configured")]
    NotConfigured,
    /// The browser comes back without having been sent, or too late.
    #[error("this sign-in was not begun in this browser, or more than ten minutes ago; begin again")]
    NotBegun,
    /// The issuer has refused.
    #[error("the issuer has refused: {0}")]
    Refused(String),
    /// The issuer answers something that cannot be used.
    #[error("the issuer's answer cannot be used: {0}")]
    Answer(String),
    /// The ID token is not valid.
    #[error("the issuer's ID token cannot be used: {0}")]
    Token(#[from] NotIdentified),
    /// The issuer does not answer.
    #[error("the issuer does not answer")]
    Away(#[source] Box<ureq::Error>),
    /// No secret can be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A cookie cannot be written.
    #[error("the session has no JSON form")]
    Encode(#[from] serde_json::Error),
    /// The task that asks the issuer was stopped.
    #[error("the question to the issuer was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// The addresses of an issuer (OpenID Connect Discovery 1.0).
#[derive(Clone, Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
}

/// A sign-in that has begun, as the browser keeps it, sealed.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    back: String,
    until_ms: u64,
}

/// The part of the issuer's answer that OpenID Connect adds to OAuth 2.0.
#[derive(Debug, Serialize, Deserialize)]
struct IdToken {
    id_token: String,
}

impl ExtraTokenFields for IdToken {}

type Answer = StandardTokenResponse<IdToken, BasicTokenType>;
type OidcClient = Client<
    BasicErrorResponse,
    Answer,
    StandardTokenIntrospectionResponse<IdToken, BasicTokenType>,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

impl Oidc {
    pub(super) fn new(
        options: OidcOptions,
        issuer: Arc<Issuer>,
        secret: Option<ClientSecret>,
        cookies: Cookies,
        clock: SharedClock,
    ) -> Self {
        Self { options, issuer, secret, cookies, clock, endpoints: OnceCell::new() }
    }

    /// Begins a sign-in. `back`: the path to return to.
    pub(super) async fn begin(&self, back: Option<&str>) -> Result<Redirect, SignInError> {
        let client = self.client().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random();
        let mut request = client.authorize_url(CsrfToken::new_random).set_pkce_challenge(challenge);
        for scope in &self.options.scopes {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        let (url, state) = request.add_extra_param("nonce", nonce.secret()).url();
        let begun = Begun {
            state: state.into_secret(),
            nonce: nonce.into_secret(),
            verifier: verifier.into_secret(),
            back: back.filter(|back| is_path(back)).unwrap_or("/").to_owned(),
            until_ms: self.clock.now_ms().saturating_add(SIGN_IN_S * 1_000),
        };
        let cookie = self.cookies.seal(CookieName::SignIn, &begun, SIGN_IN_S)?;
        Ok(Redirect { location: url.into(), cookies: vec![cookie] })
    }

    /// Ends a sign-in with what the issuer has sent the browser back with.
    pub(super) async fn finish(
        &self,
        cookies: &[&str],
        state: Option<&str>,
        code: Result<&str, &str>,
    ) -> Result<Redirect, SignInError> {
        let begun: Begun = self.cookies.read(CookieName::SignIn, cookies).ok_or(SignInError::NotBegun)?;
        let same = state.is_some_and(|state| state.as_bytes().ct_eq(begun.state.as_bytes()).into());
        if !same || begun.until_ms <= self.clock.now_ms() {
            return Err(SignInError::NotBegun);
        }
        let code = code.map_err(|error| SignInError::Refused(error.to_owned()))?.to_owned();
        let (client, verifier) = (self.client().await?, PkceCodeVerifier::new(begun.verifier));
        let exchange = move || {
            let request = client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(verifier);
            request.request(&send)
        };
        // ureq blocks its thread.
        let answer = tokio::task::spawn_blocking(exchange).await?.map_err(|error| match error {
            oauth2::RequestTokenError::ServerResponse(error) => SignInError::Refused(error.to_string()),
            oauth2::RequestTokenError::Request(error) => SignInError::Away(Box::new(error)),
            other => SignInError::Answer(other.to_string()),
        })?;
        let caller = self.of_id_token(&answer.extra_fields().id_token, &begun.nonce).await?;
        let seconds = self.options.session_s;
        let session = Session::new(caller, self.clock.now_ms().saturating_add(seconds * 1_000))?;
        let cookies = vec![
            self.cookies.seal(CookieName::Session, &session, seconds)?,
            self.cookies.remove(CookieName::SignIn),
        ];
        Ok(Redirect { location: begun.back, cookies })
    }

    /// Returns the values of `Set-Cookie` that end a session.
    pub(super) fn sign_out(&self) -> Vec<String> {
        vec![self.cookies.remove(CookieName::Session)]
    }

    /// Returns the session of a browser, if it has one that has not ended. A cookie is sent by itself, so one
    /// that is not valid is no session, and no error.
    pub(super) fn session(&self, cookies: &[&str]) -> Option<Session> {
        let session: Session = self.cookies.read(CookieName::Session, cookies)?;
        (session.until_ms > self.clock.now_ms()).then_some(session)
    }

    async fn of_id_token(&self, token: &str, nonce: &str) -> Result<Caller, SignInError> {
        let audience = std::slice::from_ref(&self.options.client_id);
        let (verified, claims) = self.issuer.verify_for(token, audience).await?;
        match claims.get("nonce").and_then(serde_json::Value::as_str) == Some(nonce) {
            true => Ok(verified.caller),
            false => Err(NotIdentified::Claim("nonce".to_owned()).into()),
        }
    }

    async fn client(&self) -> Result<OidcClient, SignInError> {
        let endpoints = self.endpoints.get_or_try_init(|| self.discover()).await?;
        let unusable = |error: oauth2::url::ParseError| SignInError::Answer(error.to_string());
        let redirect = format!("{}{CALLBACK}", self.options.url.trim_end_matches('/'));
        let mut client = Client::new(ClientId::new(self.options.client_id.clone()))
            .set_auth_uri(AuthUrl::new(endpoints.authorization_endpoint.clone()).map_err(unusable)?)
            .set_token_uri(TokenUrl::new(endpoints.token_endpoint.clone()).map_err(unusable)?)
            .set_redirect_uri(RedirectUrl::new(redirect).map_err(unusable)?);
        if let Some(secret) = &self.secret {
            client = client.set_client_secret(secret.clone());
        }
        Ok(client)
    }

    /// Reads the addresses of the issuer.
    async fn discover(&self) -> Result<Endpoints, SignInError> {
        let issuer = self.issuer.name().to_owned();
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let get = move || {
            let got = agent().get(&url).header("accept", "application/json").call();
            let text = got.and_then(|mut reply| {
                reply.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string()
            });
            text.map_err(|error| SignInError::Away(Box::new(error)))
        };
        let text = tokio::task::spawn_blocking(get).await??;
        let endpoints: Endpoints =
            serde_json::from_str(&text).map_err(|error| SignInError::Answer(error.to_string()))?;
        if endpoints.issuer != issuer {
            return Err(SignInError::Answer(format!("it says that it is {:?}", endpoints.issuer)));
        }
        for url in [&endpoints.authorization_endpoint, &endpoints.token_endpoint] {
            check_url(url).map_err(SignInError::Answer)?;
        }
        Ok(endpoints)
    }
}

/// Returns if a text is a path of this host, and nothing that a browser takes for another one.
fn is_path(text: &str) -> bool {
    let inside = text.starts_with('/') && !text.starts_with("//") && !text.contains('\\');
    inside && text.len() <= MAX_BACK && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_LIMIT))
        .build()
        .into()
}

/// Sends a request of `oauth2`.
fn send(request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
    let (parts, mut body) = agent().run(request)?.into_parts();
    let bytes = body.with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
    Ok(HttpResponse::from_parts(parts, bytes))
}

/// Reads the secret of the client.
pub(super) fn secret_of(options: &OidcOptions) -> Result<Option<ClientSecret>, io::Error> {
    let read = options.client_secret.as_ref().map(crate::contract::SecretSource::read).transpose();
    Ok(read.map_err(io::Error::other)?.map(|secret| ClientSecret::new(secret.reveal().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_returns_to_a_path_of_this_host_only() {
        for path in ["/", "/orders?limit=5", "/a//b", "/#x"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "orders", "//evil.example", "/\\evil.example", "https://evil.example", "/a b", "/\n"]
        {
            assert!(!is_path(path), "{path:?}");
        }
        assert!(!is_path(&format!("/{}", "x".repeat(MAX_BACK))));
    }
}
