//! Callers of a host with `[auth]`: tokens, JWTs of a foreign issuer, and a user at a browser.

use std::fs;
use std::net::TcpListener;

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::http::{Client, Reply};
use crate::common::nats::{configured, python};
use crate::common::nodes::{self, when};
use crate::common::oidc::{Provider, sign_in};
use crate::common::{Host, Site};

/// Returns the token that the host has made for the operator.
fn first_token(site: &Site) -> String {
    fs::read_to_string(site.data().join("operator.token")).unwrap().trim().to_owned()
}

fn get(host: &Client, path: &str, token: &str) -> Reply {
    host.get_with(path, &[("authorization", &format!("Bearer {token}"))])
}

fn post(host: &Client, path: &str, token: &str, body: &Value) -> Reply {
    host.post(path, &[("authorization", &format!("Bearer {token}"))], body)
}

/// Makes a token, and returns it with its id.
fn make(host: &Host, operator: &str, subject: &str, roles: &[&str]) -> (String, String) {
    let body = json!({"subject": subject, "roles": roles});
    let made = post(host, "/admin/tokens", operator, &body);
    assert_eq!((made.status, made.headers["cache-control"].as_bytes()), (201, b"no-store".as_slice()));
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let text = |member: &str| made[member].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

#[track_caller]
fn refused(reply: &Reply, code: &str) {
    let problem: Value = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((reply.status, &problem["code"]), (401, &json!(code)), "{problem}");
    assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"kontor\", error=\"invalid_token\"");
}

#[test]
fn an_event_has_the_subject_of_the_token_that_its_command_came_with() {
    let site = Site::new("[auth]");
    let host = site.start();
    let operator = first_token(&site);
    assert!(host.log().contains("operator.token"), "the log says where the first token is");
    let (ann, id) = make(&host, &operator, "ann", &["operator"]);
    let product = json!({"name": "Pot", "unit_price": 1_999, "quantity": 3});
    let bearer = format!("Bearer {ann}");
    let headers = [("authorization", &*bearer), ("kontor-actor", "bob")];
    let reply = host.send("PUT", "/products/pot", &headers, &product.to_string());
    assert!(reply.status < 300, "{}", reply.text);
    let events: Value = serde_json::from_str(&get(&host, "/streams/product/pot", &operator).text).unwrap();
    let event = &events["items"][0];
    let by = ["actor", "on_behalf_of", "via"].map(|member| &event[member]);
    assert_eq!(by, [&json!("ann"), &json!("bob"), &Value::Null], "a name is no subject: {events}");
    let stream = get(&host, &format!("/streams/token/{id}"), &operator).text;
    let stream: Value = serde_json::from_str(&stream).unwrap();
    assert_eq!(
        (&stream["items"][0]["name"], &stream["items"][0]["actor"]),
        (&json!("token-made"), &json!("operator"))
    );
    assert!(!stream.to_string().contains(&ann), "only the hash is in the log");
    let me: Value = serde_json::from_str(&get(&host, "/auth/me", &ann).text).unwrap();
    assert_eq!(me, json!({"subject": "ann", "roles": ["operator"]}));
}

#[test]
fn a_token_ends_when_it_is_revoked_and_outlives_a_restart() {
    let site = Site::new("[auth]");
    let host = site.start();
    let operator = first_token(&site);
    let (ann, id) = make(&host, &operator, "ann", &["operator"]);
    let (ben, _) = make(&host, &operator, "ben", &["operator"]);
    assert_eq!(get(&host, "/admin/tokens", &ann).status, 200);
    let revoked = host.send(
        "DELETE",
        &format!("/admin/tokens/{id}?reason=lost"),
        &[("authorization", &format!("Bearer {operator}"))],
        "",
    );
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    refused(&get(&host, "/admin/tokens", &ann), "invalid-token");
    assert!(host.stop().success());
    let host = site.start();
    refused(&get(&host, "/admin/tokens", &ann), "invalid-token");
    let list: Value = serde_json::from_str(&get(&host, "/admin/tokens", &ben).text).unwrap();
    let of = |subject: &str| {
        list["items"].as_array().unwrap().iter().find(|token| token["subject"] == subject).unwrap().clone()
    };
    assert_eq!(
        (&of("ann")["revoked"]["reason"], &of("ann")["revoked"]["by"]),
        (&json!("lost"), &json!("operator"))
    );
    assert!(of("ben")["last_used"].is_string() && of("ann")["last_used"].is_string(), "{list}");
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

#[test]
fn a_wrong_token_is_refused_wherever_it_is_sent() {
    let host = Site::new("[auth]");
    let host = host.start();
    for path in ["/healthz", "/products/pot", "/admin/sagas", "/openapi.json", "/auth/me"] {
        refused(&get(&host, path, "kontor_0000000000000000_x"), "invalid-token");
        refused(&get(&host, path, "eyJhbGciOiJub25lIn0.e30."), "invalid-token");
    }
    let twice = host.get_with("/healthz", &[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
    assert_eq!(twice.status, 400, "{}", twice.text);
    assert_eq!(host.get("/healthz").status, 200);
    let me: Value = serde_json::from_str(&host.get("/auth/me").text).unwrap_or_default();
    assert!(me["subject"].is_null(), "{me}");
}

/// Returns a port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_user_signs_in_with_a_browser_at_a_foreign_provider() {
    let provider = Provider::start(&json!({"sub": "ann", "groups": ["Shop Operators", "others"]}));
    let (url, port) = (provider.url(), free_port());
    let site = Site::new(&format!(
        "[[auth.issuers]]\nissuer = '{url}'\naudience = ['api']\njwks = '{url}/jwks'\n\
         algorithms = ['RS256']\n\
         roles = 'groups'\nroles_map = {{ 'Shop Operators' = 'operator' }}\nprefix = 'staff:'\n\
         [auth.oidc]\nissuer = '{url}'\nclient_id = 'kontor'\nclient_secret = {{ env = 'CLIENT_SECRET' }}\n\
         scopes = ['openid', 'profile']\nurl = 'http://127.0.0.1:{port}'\n"
    ));
    let site = site.with_variable("CLIENT_SECRET", "hush");
    let host = site.start_with(&["--listen", &format!("127.0.0.1:{port}")]);
    let Some(seen) = sign_in(host.url(), "ann", None) else { return };
    assert_eq!((&seen["at_provider"], &seen["back_at"]), (&json!(url), &json!("/auth/me")), "{seen}");
    let me = &seen["me"];
    assert_eq!((&me["subject"], &me["roles"]), (&json!("staff:ann"), &json!(["operator"])));
    assert_eq!(seen["seen_by_scripts"], "", "the cookie is for the browser, not for scripts");
    let statuses = ["without_csrf", "with_wrong_csrf", "with_csrf", "sign_out"].map(|name| &seen[name]);
    assert_eq!(statuses, [403, 403, 201, 204], "{seen}");
    assert_eq!(seen["after"]["subject"], Value::Null, "{seen}");
    let listed = site.data().join("operator.token");
    assert!(!listed.exists(), "who can sign in at the issuer needs no first token");
}

#[test]
fn a_browser_that_did_not_begin_a_sign_in_cannot_end_one() {
    let provider = Provider::start(&json!({"sub": "ann"}));
    let (url, port) = (provider.url(), free_port());
    let site = Site::new(&format!(
        "[[auth.issuers]]\nissuer = '{url}'\naudience = ['api']\njwks = '{url}/jwks'\n\
         algorithms = ['RS256']\n\
         [auth.oidc]\nissuer = '{url}'\nclient_id = 'kontor'\nurl = 'http://127.0.0.1:{port}'\n"
    ));
    let host = site.start_with(&["--listen", &format!("127.0.0.1:{port}")]);
    for (query, cookie) in [
        ("?code=a&state=b", ""),
        ("?code=a", ""),
        ("", ""),
        ("?code=a&state=b", "kontor-sign-in=forged"),
        ("?error=access_denied&state=b", "kontor-sign-in="),
    ] {
        let reply = host.get_with(&format!("/auth/callback{query}"), &[("cookie", cookie)]);
        let problem: Value = serde_json::from_str(&reply.text).unwrap();
        assert_eq!((reply.status, &problem["code"]), (400, &json!("sign-in-failed")), "{query}");
    }
    let forged = host.get_with("/auth/me", &[("cookie", "kontor=forged")]);
    assert_eq!(serde_json::from_str::<Value>(&forged.text).unwrap_or_default()["subject"], Value::Null);
}

/// Returns a request over NATS that registers a product.
fn register(product: &str, authorization: Option<&str>) -> Value {
    let mut headers = json!({"Kontor-Id": product});
    authorization.iter().for_each(|text| headers["Authorization"] = json!(text));
    let body = json!({"name": "A product", "unit_price": 450, "quantity": 3});
    json!({"subject": "kontor.inventory.cmd.product.register", "headers": headers, "body": body})
}

#[test]
fn a_message_of_nats_comes_from_its_token_or_else_from_its_account() {
    let server = NatsServer::start();
    let section = "[auth]\nnats_roles = ['operator']\n";
    let site = Site::new(&format!("{}{section}", configured(&server.url())));
    let host = site.start();
    let operator = first_token(&site);
    let (ann, _) = make(&host, &operator, "ann", &["operator"]);
    let bearer = format!("Bearer {ann}");
    let wanted = [
        register("tea", None),
        register("pot", Some(&bearer)),
        register("cup", Some("Bearer kontor_0000000000000000_x")),
        register("cup", Some("Basic YW5uOg==")),
    ];
    let replies = python(&server.url(), &["request"], &wanted);
    let codes: Vec<_> = replies.iter().map(|reply| reply["body"]["code"].clone()).collect();
    assert_eq!(json!(codes), json!([null, null, "invalid-token", "invalid-token"]), "{replies:#?}");
    for (product, actor) in [("tea", "nats"), ("pot", "ann")] {
        let history = get(&host, &format!("/streams/product/{product}"), &operator).text;
        let history: Value = serde_json::from_str(&history).unwrap();
        assert_eq!(history["items"][0]["actor"], actor, "{history}");
    }
}

#[test]
fn a_request_over_nats_takes_what_the_access_of_its_routes_takes() {
    let server = NatsServer::start();
    let site = Site::new(&format!("{}[auth]\n", configured(&server.url())));
    let host = site.start();
    let operator = first_token(&site);
    let tokens =
        [("ann", &[][..]), ("cleo", &["clerk"])].map(|(name, roles)| make(&host, &operator, name, roles).0);
    let [ann, cleo] = tokens.map(|token| format!("Bearer {token}"));
    let view = json!({"subject": "kontor.inventory.query.product", "headers": {}, "body": {"id": "tea"}});
    let wanted = [register("tea", None), register("tea", Some(&ann)), register("tea", Some(&cleo)), view];
    let replies = python(&server.url(), &["request"], &wanted);
    let codes: Vec<_> = replies.iter().map(|reply| reply["body"]["code"].clone()).collect();
    assert_eq!(json!(codes), json!(["unauthenticated", "forbidden", null, null]), "{replies:#?}");
    let history = get(&host, "/streams/product/tea", &operator).text;
    let history: Value = serde_json::from_str(&history).unwrap();
    let actors: Vec<_> = history["items"].as_array().unwrap().iter().map(|event| &event["actor"]).collect();
    assert_eq!(json!(actors), json!(["cleo"]), "{history}");
}

#[test]
fn a_caller_that_sends_too_many_commands_over_nats_learns_when_to_return() {
    let server = NatsServer::start();
    let sections = "[limits]\ncaller_commands_per_second = 1\ncaller_burst = 1\n\
                    [auth]\nnats_roles = ['clerk']\n";
    let site = Site::new(&format!("{}{sections}", configured(&server.url())));
    let _host = site.start();
    let operator = format!("Bearer {}", first_token(&site));
    let mut wanted: Vec<_> = (0..10).map(|number| register(&format!("tea-{number}"), None)).collect();
    wanted.push(register("pot", Some(&operator)));
    wanted.push(json!({"subject": "kontor.inventory.query.product", "headers": {}, "body": {"id": "tea-0"}}));
    let replies = python(&server.url(), &["request"], &wanted);
    let (of_nobody, others) = replies.split_at(10);
    let refused: Vec<_> = of_nobody.iter().filter(|reply| reply["body"]["status"] == 429).collect();
    assert!(!refused.is_empty() && of_nobody[0]["body"]["code"].is_null(), "{replies:#?}");
    for reply in refused {
        let headers = &reply["headers"];
        let found = (&reply["body"]["code"], &headers["Nats-Service-Error"], &headers["Retry-After"]);
        assert_eq!(found, (&json!("too-many-commands"), &json!("too-many-commands"), &json!("1")));
    }
    // A token has a limit of its own, and queries have none.
    assert!(others.iter().all(|reply| reply["body"]["code"].is_null()), "{others:#?}");
}

#[test]
fn every_host_of_a_cluster_knows_a_token_that_one_has_made() {
    let server = NatsServer::start();
    let [left, right] = ["left", "right"].map(|name| {
        let site = nodes::site(name, &server, &server.url());
        let configuration = fs::read_to_string(site.configuration()).unwrap();
        site.configure(&format!("{configuration}[auth]\n"));
        site
    });
    let one = left.start();
    let operator = first_token(&left);
    let other = right.start();
    assert!(!right.data().join("operator.token").exists(), "there is a token for the operator");
    let (ann, id) = make(&one, &operator, "ann", &["operator"]);
    when(|| json!(get(&other, "/admin/tokens", &ann).status), |status| *status == 200);
    let authorization = format!("Bearer {operator}");
    let path = format!("/admin/tokens/{id}");
    assert_eq!(other.send("DELETE", &path, &[("authorization", &authorization)], "").status, 200);
    when(|| json!(get(&one, "/admin/tokens", &ann).status), |status| *status == 401);
}
