//! Durable `add-stock` commands of callers that the host identifies, and those of a host that asks nobody.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use tempfile::TempDir;

use crate::add_stock::add_stock_with;
use crate::report::{Report, Round, Series};
use crate::server::{Server, new_data};
use crate::shop;
use crate::turns::Turns;

const ISSUER: &str = "https://id.example";
/// The file in the data directory with the token that a host makes for its operator.
const OPERATOR: &str = "operator.token";

/// Compare commands with a token and with a JWT to those without `[auth]`, in turns
#[derive(clap::Args)]
pub(crate) struct Callers {
    /// Products
    #[arg(long, default_value_t = 64)]
    products: usize,
    #[command(flatten)]
    turns: Turns,
}

/// The way in which the callers of a round say who they are.
#[derive(Clone, Copy)]
enum Signing<'i> {
    Nobody,
    Token,
    Jwt(&'i Issuer),
}

/// An issuer whose keys are in a file.
struct Issuer {
    folder: TempDir,
    jwt: String,
}

impl Callers {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 1)?;
        let issuer = Issuer::new(new_data(&self.turns.data)?)?;
        let (mut nobody, mut token, mut jwt) =
            (Series::new("nobody"), Series::new("token"), Series::new("JWT"));
        for _ in 0..self.turns.rounds {
            for (series, signing) in [
                (&mut nobody, Signing::Nobody),
                (&mut token, Signing::Token),
                (&mut jwt, Signing::Jwt(&issuer)),
            ] {
                series.rounds.push(self.round(signing)?);
            }
        }
        self.turns.print(&Report::new("request", vec![token, jwt], nobody))
    }

    /// Measures a new server, so that no round inherits the log or the backlog of the one before.
    fn round(&self, signing: Signing<'_>) -> anyhow::Result<Round> {
        let folder = new_data(&self.turns.data)?;
        let configuration = folder.path().join("kontor.toml");
        fs::write(&configuration, signing.configuration())?;
        let mut command = self.turns.serve();
        command.arg("--config").arg(&configuration);
        let server = Server::start(command, &self.turns.data)?;
        let header = match signing {
            Signing::Nobody => String::new(),
            Signing::Token => {
                let file = server.data().join(OPERATOR);
                let token = fs::read_to_string(&file);
                header(token.with_context(|| format!("there is no {}", file.display()))?.trim())
            }
            Signing::Jwt(issuer) => header(&issuer.jwt),
        };
        shop::register_with(server.address, self.products, &header)?;
        self.turns.round(server.address, add_stock_with(self.products, &header), || server.cpu_time())
    }
}

fn header(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

impl Signing<'_> {
    /// Returns the `kontor.toml`.
    fn configuration(self) -> String {
        match self {
            Signing::Nobody => String::new(),
            Signing::Token => "[auth]\n".to_owned(),
            Signing::Jwt(issuer) => format!(
                "[[auth.issuers]]\nissuer = {ISSUER:?}\naudience = [\"shop\"]\njwks = {:?}\n\
                 algorithms = [\"EdDSA\"]\nroles = \"roles\"\n",
                issuer.keys()
            ),
        }
    }
}

impl Issuer {
    /// Makes a key, and a token of a clerk that never expires in practice.
    fn new(folder: TempDir) -> anyhow::Result<Self> {
        let wrong = |_| anyhow!("no key can be made");
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(wrong)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| anyhow!("the key is wrong"))?;
        let public = BASE64.encode(pair.public_key());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "bench", "x": public}]});
        let head = json!({"alg": "EdDSA", "kid": "bench", "typ": "JWT"});
        // 2100-01-01T00:00:00Z
        let claims = json!({
            "iss": ISSUER, "aud": "shop", "sub": "cleo", "exp": 4_102_444_800_u64, "roles": ["clerk"],
        });
        let message = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let jwt = format!("{message}.{}", BASE64.encode(pair.sign(message.as_bytes())));
        let issuer = Self { folder, jwt };
        fs::write(issuer.keys(), keys.to_string())?;
        Ok(issuer)
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }
}
