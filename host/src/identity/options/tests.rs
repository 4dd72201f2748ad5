use super::*;

fn parse(text: &str) -> Result<AuthOptions, String> {
    let options: AuthOptions = toml::from_str(text).map_err(|error| error.to_string())?;
    options.check().map(|()| options).map_err(|error| error.to_string())
}

/// Returns a section with an issuer, and more of its keys.
fn issuer(name: &str, more: &str) -> String {
    format!(
        "[[issuers]]\nissuer = '{name}'\naudience = ['shop']\njwks = 'keys.json'\nalgorithms = ['RS256']\n\
         {more}\n"
    )
}

/// Returns a section with an issuer that signs browsers in, and more keys of that.
fn with_oidc(more: &str) -> String {
    issuer("i", "") + &format!("[oidc]\nissuer = 'i'\nurl = 'https://h'\n{more}\n")
}

#[test]
fn a_sign_in_has_defaults() {
    let options = parse(&with_oidc("client_id = 'c'\nclient_secret = { env = 'S' }")).unwrap().oidc.unwrap();
    assert_eq!((&*options.scopes, options.session_s), (&["openid".to_owned()][..], 28_800));
    assert!(options.is_secure());
}

#[test]
fn an_issuer_has_defaults() {
    let options = parse(&issuer("https://id.example", "")).unwrap();
    let [issuer] = &*options.issuers else { panic!("one issuer") };
    assert_eq!((issuer.subject.as_str(), issuer.leeway_s, &*issuer.prefix), ("sub", 60, ""));
    assert_eq!(issuer.jwks, KeysPlace::File("keys.json".into()));
    assert_eq!((&issuer.roles, issuer.roles_map.len()), (&None, 0));
}

#[test]
fn only_algorithms_with_a_public_key_can_be_named() {
    for name in ["none", "HS256", "HS384", "HS512", "rs256", "RS1"] {
        let text = issuer("i", "").replace("RS256", name);
        let error = parse(&text).unwrap_err();
        assert!(error.contains("unknown variant"), "{name}: {error}");
    }
}

#[test]
fn a_section_that_cannot_be_used_is_named_with_its_key() {
    let of = |more: &str| issuer("i", more);
    for (text, expected) in [
        ("nats_roles = ['A']".to_owned(), "auth.nats_roles: \"A\" is no role"),
        ("socket_roles = ['']".to_owned(), "auth.socket_roles: \"\" is no role"),
        ("[certificates]\n'CN=a' = ['B']".to_owned(), "auth.certificates: \"CN=a\": \"B\" is no role"),
        (
            "[certificates]\nnats = ['b']".to_owned(),
            "auth.certificates: \"nats\" is a name of the host's own",
        ),
        (issuer("", ""), "auth.issuers: \"\": `issuer` must not be empty"),
        (of("").replace("['shop']", "[]"), "auth.issuers: \"i\": `audience` must name"),
        (of("").replace("'RS256'", ""), "auth.issuers: \"i\": `algorithms` must name at least one"),
        (of("leeway_s = 601"), "auth.issuers: \"i\": `leeway_s` must be at most 600"),
        (of("prefix = \"a\\n\""), "auth.issuers: \"i\": `prefix` must have at most 64 bytes"),
        (of("roles_map = { a = 'B' }"), "auth.issuers: \"i\": \"B\" is no role"),
        (
            of("").replace("keys.json", "http://id.example/keys"),
            "auth.issuers: \"i\": http://id.example/keys",
        ),
        (
            "[oidc]\nissuer = 'j'\nclient_id = 'c'\nurl = 'https://h'".to_owned(),
            "auth.oidc: the issuer \"j\"",
        ),
        (with_oidc("client_id = ''"), "auth.oidc: `client_id` must not be empty"),
        (with_oidc("client_id = 'c'\nscopes = ['email']"), "auth.oidc: `scopes` must have \"openid\""),
        (with_oidc("client_id = 'c'\nsession_s = 59"), "auth.oidc: `session_s` must be from 60"),
        (with_oidc("client_id = 'c'").replace("https://h", "http://h"), "auth.oidc: http://h must be https"),
        (of("") + &of(""), "auth.issuers: \"i\" is there twice"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(
        parse("[[issuers]]\nissuer = 'i'").unwrap_err().contains("missing field"),
        "the rest is required"
    );
}

#[test]
fn people_of_two_issuers_cannot_have_the_same_name() {
    for (one, other, allowed) in [
        ("", "", false),
        ("", "staff:", false),
        ("staff:", "staff:", false),
        ("staff:", "staff:x:", false),
        ("staff:", "shop:", true),
    ] {
        let of = |name: &str, prefix: &str| issuer(name, &format!("prefix = '{prefix}'"));
        let text = of("i", one) + &of("j", other);
        assert_eq!(parse(&text).is_ok(), allowed, "{one:?} beside {other:?}");
    }
}

#[test]
fn keys_come_over_https_or_from_this_machine() {
    for (url, allowed) in [
        ("https://id.example/keys", true),
        ("http://127.0.0.1:8080/keys", true),
        ("http://[::1]:8080/keys", true),
        ("http://localhost/keys", true),
        ("http://id.example/keys", false),
        ("http://127.0.0.1:80@id.example/keys", false),
        ("http://127.0.0.1.id.example/keys", false),
        ("http://", false),
    ] {
        assert_eq!(check_url(url).is_ok(), allowed, "{url}");
    }
}

#[test]
fn a_path_leads_to_a_claim() {
    let claims = serde_json::json!({
        "sub": "ann", "realm_access": {"roles": ["clerk"]}, "https://shop.example/roles": "all", "a.b": 1,
        "a": {"b": 2},
    });
    for (path, expected) in [
        ("sub", serde_json::json!("ann")),
        ("realm_access.roles", serde_json::json!(["clerk"])),
        ("https://shop.example/roles", serde_json::json!("all")),
        ("a.b", serde_json::json!(1)),
    ] {
        assert_eq!(ClaimPath::from(path).of(&claims), Some(&expected), "{path}");
    }
    for path in ["", "sub.x", "realm_access.none", "none"] {
        assert_eq!(ClaimPath::from(path).of(&claims), None, "{path}");
    }
}
