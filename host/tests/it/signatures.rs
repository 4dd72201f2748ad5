//! Signed deployments: what a signature is worth at a deployment, a rollback and a start.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kontor::deploy::signature::{Envelope, SigningKey, Statement};
use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, FOR_THANKS, digest_of, fixture, folder, next_inventory, plugin, rebuilt};
use crate::common::nodes::{self, both_up, level, when};
use crate::common::{Ended, Host, Site, ended, kontor};

/// A host with the inventory, the next version of it, and a signing key.
struct Signed {
    site: Site,
    plugins: TempDir,
    files: TempDir,
    /// The configuration of a host that trusts the key.
    trusting: String,
}

impl Signed {
    fn new() -> Self {
        let (site, plugins) = deploy::site(&[("inventory", plugin("inventory"))], "");
        let files = folder(&[("old", plugin("inventory")), ("next", next_inventory("next"))]);
        let key = files.path().join("deploy.key");
        let made = ended(&mut kontor(&["sign", "--new-key", key.to_str().unwrap()])).stdout;
        let trusting = made.split_once("\n\n").unwrap().1.to_owned();
        Self { site, plugins, files, trusting }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    /// Signs a component for a time.
    #[track_caller]
    fn sign(&self, component: &str, expires: &str) {
        let key = self.path("deploy.key");
        let signed = ended(&mut kontor(&["sign", component, "--key", &key, "--expires", expires]));
        assert!(signed.status.success(), "{}", signed.stderr);
    }

    /// Signs the component in the directory of the host.
    fn sign_in_directory(&self) {
        self.sign(self.plugins.path().join("inventory.wasm").to_str().unwrap(), "1h");
    }

    /// Deploys a component with the signature beside it. Returns the exit code, and the line of the gate.
    fn deploy(&self, host: &Host, name: &str, more: &[&str]) -> (Option<i32>, String) {
        let [file, signature] = [".wasm", ".wasm.sig"].map(|end| self.path(&format!("{name}{end}")));
        let line = ["deploy", &file, "--signature", &signature, "--host", host.url()];
        let Ended { status, stdout, stderr } = ended(&mut kontor(&[&line[..], more].concat()));
        let gate = stdout.lines().find(|line| line.starts_with("signature"));
        (status.code(), gate.unwrap_or(&stderr).split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn roll_back(host: &Host) -> (Option<i32>, String) {
        let Ended { status, stderr, .. } =
            ended(&mut kontor(&["rollback", "inventory", "--host", host.url()]));
        (status.code(), stderr)
    }
}

#[test]
fn an_older_signed_version_does_not_pass_for_the_one_of_today() {
    let signed = Signed::new();
    signed.site.configure(&signed.trusting);
    signed.sign_in_directory();
    let host = signed.site.start();
    for name in ["old", "next"] {
        signed.sign(&signed.path(&format!("{name}.wasm")), "1h");
    }
    let (code, gate) = signed.deploy(&host, "next", &[]);
    assert_eq!(code, Some(0), "{gate}");
    assert!(gate.contains("a trusted key has signed inventory 0.2.0, until "), "{gate}");

    let (code, gate) = signed.deploy(&host, "old", &[]);
    assert_eq!(code, Some(3), "{gate}");
    assert!(gate.contains("refused") && gate.contains("0.1.0 is older than 0.2.0"), "{gate}");
    let (_, gate) = signed.deploy(&host, "old", &["--allow-breaking", "downgrade:inventory"]);
    assert!(gate.contains("passed"), "{gate}");

    let (code, error) = Signed::roll_back(&host);
    assert_eq!(code, Some(0), "a rollback goes back by intent: {error}");
    let (code, gate) = signed.deploy(&host, "old", &["--dry-run"]);
    assert_eq!(code, Some(3), "the version that ran before the rollback still counts: {gate}");
}

#[test]
fn a_statement_is_for_one_component_until_it_expires() {
    let signed = Signed::new();
    signed.site.configure(&signed.trusting);
    signed.sign_in_directory();
    let host = signed.site.start();
    let next = signed.path("next.wasm");
    let signature = signed.path("next.wasm.sig");
    let key: SigningKey = fs::read_to_string(signed.path("deploy.key")).unwrap().parse().unwrap();
    signed.sign(&next, "1h");
    let text = fs::read_to_string(&signature).unwrap();
    let trusted = [key.public()];
    let statement = || Envelope::read(text.as_bytes()).unwrap().open(&trusted).unwrap();
    let sealed = |statement: Statement| Envelope::seal(&statement, &key).unwrap().text().unwrap();
    let table = [
        (BASE64.encode([7; 64]), "sign the component again"),
        (sealed(Statement { service: "order".into(), ..statement() }), "the signature is for order 0.2.0"),
        (sealed(Statement { version: "9.0.0".to_owned(), ..statement() }), "is for inventory 9.0.0"),
        (sealed(Statement { expires: kontor::clock::Time(0), ..statement() }), "has expired at 1970-01-01"),
        (text.clone(), "passed"),
    ];
    for (envelope, says) in table {
        fs::write(&signature, envelope).unwrap();
        let (code, gate) = signed.deploy(&host, "next", &["--dry-run"]);
        assert_eq!(code == Some(0), says == "passed", "{gate}");
        assert!(gate.contains(says), "{gate}");
    }
}

#[test]
fn a_host_starts_only_what_a_trusted_key_has_signed() {
    let signed = Signed::new();
    signed.site.start().stop();
    signed.site.configure(&signed.trusting);
    let Ended { status, stderr, .. } = signed.site.fail_to_start(signed.plugins.path());
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("may not run without a trusted signature"), "{stderr}");
    assert!(stderr.contains("inventory.wasm.sig: the component is not signed"), "{stderr}");

    // The way out that the error names. The envelope then stays in the log.
    signed.sign_in_directory();
    signed.site.start().stop();
    fs::remove_file(signed.plugins.path().join("inventory.wasm.sig")).unwrap();
    signed.site.start().stop();
}

#[test]
fn a_service_whose_statement_has_expired_survives_a_restart_but_is_not_rolled_back_to() {
    let signed = Signed::new();
    // Without keys, the host keeps the envelope and asks nothing of it.
    signed.sign(signed.plugins.path().join("inventory.wasm").to_str().unwrap(), "0s");
    signed.site.start().stop();
    signed.site.configure(&signed.trusting);
    let host = signed.site.start();
    assert!(host.log().contains("a statement has expired"), "{}", host.log());
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")));

    signed.sign(&signed.path("next.wasm"), "1h");
    let (code, gate) = signed.deploy(&host, "next", &[]);
    assert_eq!(code, Some(0), "{gate}");
    let (code, error) = Signed::roll_back(&host);
    assert_eq!(code, Some(3));
    assert!(error.contains("the signed statement has expired"), "{error}");
}

/// Starts two hosts of one log, of which only the one on the right trusts the key. Returns them with their
/// sites.
fn cluster(signed: &Signed, server: &NatsServer) -> [(Site, Host); 2] {
    signed.sign_in_directory();
    [("left", ""), ("right", &*signed.trusting)].map(|(name, keys)| {
        let configuration = nodes::configuration(name, server, &server.url());
        let site = Site::with_plugins(signed.plugins.path(), &format!("{configuration}{keys}"));
        let host = site.start();
        (site, host)
    })
}

#[test]
fn a_host_with_keys_does_not_run_what_another_host_has_deployed_without_a_signature() {
    let (signed, server) = (Signed::new(), NatsServer::start());
    let [(_left_site, left), (_right_site, right)] = cluster(&signed, &server);
    both_up(&left);
    right.register("tea", 450, 10);
    let (old, next) = (digest_of(&plugin("inventory")), digest_of(&next_inventory("next")));
    let report = left.deploy(&next_inventory("next"), "").ok();
    let on_right = report["hosts"].as_array().unwrap().iter().find(|host| host["name"] == "right").unwrap();
    let refusal = "may not run here without a trusted signature";
    assert_eq!(on_right["runs"], false, "{report}");
    assert!(on_right["warnings"].to_string().contains(refusal), "{report}");
    assert_eq!((left.digest("inventory"), right.digest("inventory")), (next.clone(), old.clone()));

    // It goes on with the version before, and says why everywhere.
    right.await_warning(refusal);
    let followed = |host: &Host| host.metric("kontor_deployment_followed");
    assert_eq!((followed(&left), followed(&right)), (1.0, 0.0));
    let listed = ended(&mut kontor(&["plugins", "--host", right.url()])).stdout;
    assert!(
        listed.contains("warning: this host does not run the last deployment: inventory 0.2.0"),
        "{listed}"
    );
    right.register("pot", 1_999, 3);
    level([&left, &right]);
    assert_eq!(left.get("/products/pot").ok()["available"], 3);
    let problem = right.deploy(&rebuilt(plugin("inventory")), "").problem(409, "host-behind");
    assert!(problem["detail"].as_str().unwrap().contains(refusal), "{problem}");
    right.roll_back("inventory", &json!({})).problem(409, "host-behind");
    let lines = right.log().lines().filter(|line| line.contains(refusal)).count();
    assert_eq!(lines, 1, "it tries again and again, and says so once: {}", right.log());

    // The same component with a signature is the way out.
    signed.sign(&signed.path("next.wasm"), "1h");
    let (code, gate) = signed.deploy(&left, "next", &[]);
    assert_eq!(code, Some(0), "{gate}");
    when(|| json!(right.digest("inventory")), |digest| *digest == json!(next));
    assert_eq!(followed(&right), 1.0);
    assert_eq!(right.get("/admin/plugins").ok().get("warnings"), None);
}

#[test]
fn a_rollback_on_another_host_is_a_way_out_too() {
    let (signed, server) = (Signed::new(), NatsServer::start());
    let [(_left_site, left), (right_site, right)] = cluster(&signed, &server);
    both_up(&left);
    left.deploy(&next_inventory("next"), "").ok();
    right.await_warning("may not run here");
    assert!(right.stop().success());
    let Ended { stderr, .. } = right_site.fail_to_start(signed.plugins.path());
    assert!(stderr.contains("may not run without a trusted signature"), "{stderr}");
    left.roll_back("inventory", &json!({})).ok();
    let right = right_site.start();
    assert_eq!(right.digest("inventory"), digest_of(&plugin("inventory")));
    assert_eq!(right.get("/readyz").ok().get("warnings"), None);
}

#[test]
fn a_host_with_keys_runs_no_saga_on_a_component_without_a_signature() {
    const PRODUCTS: usize = 8;
    let (signed, server) = (Signed::new(), NatsServer::start());
    let [(_left_site, left), (_right_site, right)] = cluster(&signed, &server);
    both_up(&left);
    left.deploy(&fixture("thanks"), FOR_THANKS).ok();
    right.await_warning("may not run here");
    for product in 0..PRODUCTS {
        left.register(&format!("product-{product}"), 1, 1);
    }
    // Those that belong to the host on the right do not begin, and say why.
    let sagas = |host: &Host| host.get("/admin/sagas?saga=thank").ok()["items"].take();
    let in_state = |sagas: &Value, state: &str| {
        sagas.as_array().unwrap().iter().filter(|saga| saga["state"] == state).count()
    };
    let stuck = |sagas: &Value| {
        let why = |saga: &&Value| saga["why"].to_string().contains("may not run on this host");
        sagas.as_array().unwrap().iter().filter(why).count()
    };
    let seen = when(
        || sagas(&right),
        |sagas| in_state(sagas, "completed") + stuck(sagas) == PRODUCTS && stuck(sagas) > 0,
    );
    assert_eq!((in_state(&seen, "running"), in_state(&seen, "parked")), (stuck(&seen), 0), "{seen}");

    // They begin on the version that is signed.
    let file = signed.path("thanks.wasm");
    fs::write(&file, rebuilt(fixture("thanks"))).unwrap();
    signed.sign(&file, "1h");
    let (code, gate) = signed.deploy(&left, "thanks", &["--grant", "event:product.product-registered"]);
    assert_eq!(code, Some(0), "{gate}");
    when(|| sagas(&right), |sagas| in_state(sagas, "completed") == PRODUCTS);
}
