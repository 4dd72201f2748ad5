use serde_json::json;

use super::*;
use crate::saga::Retry;

#[test]
fn the_defaults_are_sound() {
    Config::default().check().unwrap();
}

#[test]
fn an_override_goes_before_the_file_and_the_file_before_the_default() {
    // file, override, result
    let table = [
        ("", None, "127.0.0.1:7070"),
        ("listen = '127.0.0.1:1'", None, "127.0.0.1:1"),
        ("", Some("127.0.0.1:2"), "127.0.0.1:2"),
        ("listen = '127.0.0.1:1'", Some("127.0.0.1:2"), "127.0.0.1:2"),
    ];
    for (file, given, expected) in table {
        let mut config = Config::parse(file).unwrap();
        let listen = given.map(|address| address.parse().unwrap());
        config.apply(Overrides { listen, ..Overrides::default() });
        assert_eq!(config.listen.to_string(), expected, "file {file:?}, override {given:?}");
    }
}

#[test]
fn durations_are_numbers_of_milliseconds() {
    let text = "[limits]\ncall_time_ms = 1\nwait_ms = 2\nhttp_time_ms = 3\n\
                [deploy]\nhistory_time_ms = 4\nrollback = { window_ms = 0 }\n\
                [jetstream]\nsilence_ms = 60_000\n\
                [retries]\nundo = { attempts = 1, first_wait_ms = 5, longest_wait_ms = 6 }";
    let Config { limits, deploy, jetstream, retries, .. } = Config::parse(text).unwrap();
    let read = [limits.call_time, limits.wait, limits.http_time, deploy.history_time, deploy.rollback.window];
    assert_eq!(read, [1, 2, 3, 4, 0].map(Duration::from_millis));
    assert_eq!(jetstream.heartbeat_timeout, Duration::from_secs(60));
    assert_eq!(retries.undo, Retry::new(1, Duration::from_millis(5), Duration::from_millis(6)));
    assert!(Config::parse("[limits]\nwait_ms = -1").is_err());
}

#[test]
fn a_file_sets_what_it_names_and_leaves_the_rest() {
    let config = Config::parse(
        "data = '/var/lib/kontor'\nlog_format = 'json'\n[limits]\nqueue = 7\n\
         [services.payment]\ncard-limit = 500\nregions = ['north']",
    )
    .unwrap();
    let expected = Config {
        data: PathBuf::from("/var/lib/kontor"),
        log_format: LogFormat::Json,
        limits: Limits { queue: 7, ..Limits::default() },
        services: BTreeMap::from([(
            "payment".to_owned(),
            BTreeMap::from([("card-limit".to_owned(), json!(500)), ("regions".to_owned(), json!(["north"]))]),
        )]),
        ..Config::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_file_the_line_and_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    fs::write(&file, "[limits]\nque = 7\n").unwrap();
    let error = Config::load(in_file(file)).unwrap_err();
    let error = format!("{:#}", anyhow::Error::from(error));
    for part in ["shop.toml", "line 2", "`que`", "did you mean `queue`?"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

fn in_file(file: PathBuf) -> Overrides {
    let place = Place { config: Some(file), ..Place::default() };
    Overrides { place, ..Overrides::default() }
}

#[test]
fn a_file_named_with_a_flag_must_exist() {
    let error = Config::load(in_file(PathBuf::from("/nowhere/kontor.toml"))).unwrap_err();
    assert_eq!(error.to_string(), "the configuration /nowhere/kontor.toml cannot be read");
}

#[test]
fn an_address_that_other_machines_reach_needs_tls_and_authentication() {
    const TLS: &str = "[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'";
    const PROXY: &str = "[http]\ntrusted_proxies = ['10.0.0.0/8']";
    const AUTH: &str = "[auth]";
    // the address, the sections, and those that the refusal says to write
    for (listen, sections, missing) in [
        ("127.0.0.1:7070", vec![], vec![]),
        ("127.8.0.1:0", vec![], vec![]),
        ("[::1]:7070", vec![], vec![]),
        ("0.0.0.0:7070", vec![], vec!["[tls]", "trusted_proxies", AUTH]),
        ("[::]:7070", vec![], vec!["[tls]", "trusted_proxies", AUTH]),
        ("192.168.1.2:7070", vec![TLS], vec![AUTH]),
        ("192.168.1.2:7070", vec![PROXY], vec![AUTH]),
        ("192.168.1.2:7070", vec![AUTH], vec!["[tls]", "trusted_proxies"]),
        ("192.168.1.2:7070", vec![TLS, AUTH], vec![]),
        ("192.168.1.2:7070", vec![PROXY, AUTH], vec![]),
        ("127.0.0.1:7070", vec!["[admin]\nlisten = '0.0.0.0:7071'"], vec!["[tls]", "trusted_proxies", AUTH]),
    ] {
        let config = Config::parse(&format!("listen = '{listen}'\n{}", sections.join("\n"))).unwrap();
        let refusal = config.check().err().map(|error| error.to_string());
        assert_eq!(refusal.is_some(), !missing.is_empty(), "{listen} {sections:?}");
        let refusal = refusal.unwrap_or_default();
        for section in ["[tls]", "trusted_proxies", AUTH] {
            assert_eq!(
                refusal.contains(section),
                missing.contains(&section),
                "{listen} {section}: {refusal}"
            );
        }
    }
}

#[test]
fn values_out_of_their_range_are_named_in_the_error() {
    let table = [
        ("[limits]\nqueue = 0", "limits.queue must be at least 1"),
        ("[limits]\ncall_time_ms = 0", "limits.call_time_ms must be at least 1"),
        ("[limits]\nhttp_concurrency = 0", "limits.http_concurrency must be at least 1"),
        ("[deploy]\nhistory_time_ms = 0", "deploy.history_time_ms must be at least 1"),
        ("[limits]\nhttp_time_ms = 10_000", "limits.http_time_ms must be below 10000"),
        ("[nats]\ncertificate = 'a.pem'", "nats.certificate and nats.key go together"),
        ("[auth]\nnats_roles = ['Clerk']", "auth.nats_roles: \"Clerk\" is no role"),
        ("[nats]\nreplicas = 2", "nats.replicas must be 1, 3 or 5"),
        ("log = 'jetstream'", "log = \"jetstream\" needs NATS servers"),
    ];
    for (file, reason) in table {
        let error = Config::parse(file).unwrap().check().unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
}

#[test]
fn every_path_of_the_file_starts_at_the_file() {
    let text = "data = 'd'\nplugins = '/p'\n[nats]\nca = 'n'\nurl_file = 'u'\n\
                [tls]\ncertificate = 'c'\nkey = 'k'\nclient_ca = 'a'\n[admin]\nsocket = 's'\n\
                [[auth.issuers]]\nissuer = 'i'\naudience = ['shop']\nalgorithms = ['ES256']\njwks = 'j'\n\
                [auth.oidc]\nissuer = 'i'\nclient_id = 'k'\nurl = 'https://h'\nsession_key = { file = 'z' }\n\
                [secrets.payment]\nkey = { file = 'y' }";
    let mut config = Config::parse(text).unwrap();
    config.start_paths_at(Path::new("/etc/kontor"), &text.parse().unwrap());
    let Config { data, plugins, nats, tls, admin, auth, secrets, .. } = config;
    let (tls, auth) = (tls.unwrap(), auth.unwrap());
    let shown = format!(
        "{data:?} {plugins:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        nats.ca,
        nats.url_file,
        tls.certificate,
        tls.key,
        tls.client_ca,
        admin.socket,
        auth.issuers[0].jwks,
        auth.oidc.unwrap().session_key,
        secrets["payment"]["key"],
    );
    assert_eq!(
        shown.replace("/etc/kontor/", "@"),
        "\"@d\" \"/p\" Some(\"@n\") Some(\"@u\") \"@c\" \"@k\" Some(\"@a\") Some(\"@s\") File(\"@j\") \
         Some(File(\"@z\")) File(\"@y\")"
    );
    let mut defaults = Config::default();
    defaults.start_paths_at(Path::new("/etc/kontor"), &toml::Table::new());
    assert_eq!(defaults, Config::default());
}
