//! `kontor new`: writes a service to start from.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

/// The names in the templates of the service, of its types, and of the checkout of the SDK.
const SERVICE: &str = "service-name";
const TYPE: &str = "ServiceName";
const CHECKOUT: &str = "sdk-folder";

/// The files that only a service in the repository has.
const MEMBER: [(&str, &str); 1] = [("Cargo.toml", include_str!("new/member.toml"))];

/// The files that only a service outside the repository has.
const PACKAGE: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("new/package.toml")),
    ("rustfmt.toml", include_str!("../../../rustfmt.toml")),
    (".gitignore", "/target\n"),
];

/// The files that every service has.
const FILES: [(&str, &str); 6] = [
    ("src/lib.rs", include_str!("new/lib.rs")),
    ("src/aggregate.rs", include_str!("new/aggregate.rs")),
    ("src/read_model.rs", include_str!("new/read_model.rs")),
    ("src/read_model.sql", include_str!("new/read_model.sql")),
    ("tests/rules.rs", include_str!("new/rules.rs")),
    ("tests/queries.rs", include_str!("new/queries.rs")),
];

/// Names whose type or package has another meaning in the code of a service.
const RESERVED: &str = "aggregate alloc command context core default deserialize err error json-schema \
                        kontor kontor-sdk kontor-testkit list none ok option page page-limit query \
                        read-model recorded-event rejection result saga schemars self serde serde-json \
                        serialize service some sql-error std string vec";

const EXAMPLES: &str = "\
Examples:
  kontor new wishlist
  kontor new gift-card --dir services/gift-card --sdk ../kontor
  cd plugins && kontor new wishlist

The service has one aggregate with two commands, a read model with one query, routes and tests. It builds,
passes its tests and can be deployed as it stands: change it from there.";

/// Write a service to start from, with its tests
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct New {
    /// The name of the service and of its aggregate, such as gift-card
    #[arg(value_parser = service_name)]
    service: String,
    /// The folder to write; it must be empty or not exist yet [default: the service's name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A checkout of the Kontor repository, for its SDK and testkit [default: the nearest one above the
    /// folder]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Lower-case words with dashes between them; each begins with a letter, so that serde calls the events like
/// the service.
fn service_name(text: &str) -> Result<String, String> {
    let is_word = |word: &str| {
        word.starts_with(|letter: char| letter.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !text.split('-').all(is_word) {
        return Err(
            "a service has a name like gift-card: words of small letters and digits, with dashes between"
                .to_owned(),
        );
    }
    if RESERVED.split_whitespace().any(|reserved| reserved == text) {
        return Err(format!("{text} has another meaning in the code of a service; choose another name"));
    }
    Ok(text.to_owned())
}

impl New {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let dir = self.dir.clone().unwrap_or_else(|| self.service.clone().into());
        let place =
            resolved(&dir).with_context(|| format!("{} cannot be the folder of a service", dir.display()))?;
        let checkout = Checkout::of(&place, self.sdk.as_deref())?;
        ensure!(
            is_free(&dir).with_context(|| format!("cannot read {}", dir.display()))?,
            "{} exists and is not empty; name another folder with --dir",
            dir.display()
        );
        let own: &[_] = if checkout.is_home { &MEMBER } else { &PACKAGE };
        for (name, template) in FILES.iter().chain(own) {
            let file = dir.join(name);
            let text = filled(template, &self.service, &checkout.path);
            write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let next = self.next(checkout.is_home);
        if json {
            writeln!(out, "{}", json!({"service": self.service, "dir": dir, "next": next}))?;
        } else {
            let place = if checkout.is_home { &checkout.root } else { &dir };
            writeln!(out, "The service {} is written. Next, in {}:", self.service, place.display())?;
            next.iter().try_for_each(|command| writeln!(out, "  {command}"))?;
        }
        Ok(())
    }

    /// Returns the commands that build, test and deploy the service.
    fn next(&self, is_home: bool) -> [String; 3] {
        let Self { service, .. } = self;
        if is_home {
            return [
                "cargo xtask build".to_owned(),
                // With the features of the whole workspace, so that nothing else is compiled again.
                "cargo test --workspace --test rules --test queries".to_owned(),
                format!("kontor deploy target/plugins/{service}.wasm"),
            ];
        }
        let component = service.replace('-', "_");
        [
            "cargo build --release --target wasm32-wasip2".to_owned(),
            "cargo test".to_owned(),
            format!("kontor deploy target/wasm32-wasip2/release/{component}.wasm"),
        ]
    }
}

/// The checkout with the SDK and the testkit of a service.
struct Checkout {
    root: PathBuf,
    /// The path to `root`, as the manifest of the service names it.
    path: String,
    /// True if the service is one of the repository's own plugins.
    is_home: bool,
}

impl Checkout {
    /// Returns the checkout that was `given`, or the nearest one above `dir`, the [`resolved`] folder of the
    /// service.
    fn of(dir: &Path, given: Option<&Path>) -> anyhow::Result<Self> {
        let upwards = || dir.ancestors().skip(1).find(|folder| is_checkout(folder));
        let root = match given {
            Some(given) => {
                let root = given.canonicalize().unwrap_or_else(|_| given.to_owned());
                ensure!(is_checkout(&root), "{} is not a checkout of the Kontor repository", given.display());
                root
            }
            None => match upwards() {
                Some(root) => root.to_owned(),
                None => bail!(
                    "there is no checkout of the Kontor repository above {}; name one with --sdk",
                    dir.display()
                ),
            },
        };
        let is_home = dir.parent() == Some(&root.join("plugins"));
        let path = match dir.strip_prefix(&root) {
            Ok(below) => vec![".."; below.iter().count()].join("/"),
            Err(_) => root.display().to_string(),
        };
        Ok(Self { root, path, is_home })
    }
}

/// Returns the whole path without links and dots. Its end need not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let path = absolute(path)?;
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            Ok(resolved(parent)?.join(name))
        }
        (outcome, ..) => outcome,
    }
}

/// Returns true if the folder is a checkout of the Kontor repository.
fn is_checkout(folder: &Path) -> bool {
    ["sdk", "testkit", "wit"].iter().all(|part| folder.join(part).is_dir())
        && fs::read_to_string(folder.join("sdk/Cargo.toml"))
            .is_ok_and(|text| text.contains("name = \"kontor-sdk\""))
}

/// Returns true if nothing would be overwritten.
fn is_free(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes a file, and its folder.
fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)
}

/// Returns a template with the names of this service. The path of the checkout stands in a TOML string.
fn filled(template: &str, service: &str, checkout: &str) -> String {
    let checkout = checkout.replace('\\', "\\\\").replace('"', "\\\"");
    template.replace(SERVICE, service).replace(TYPE, &type_name(service)).replace(CHECKOUT, &checkout)
}

/// Returns `GiftCard` for `gift-card`.
fn type_name(service: &str) -> String {
    let capitalized = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    service.split('-').map(capitalized).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A folder that looks like a checkout.
    fn checkout() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for part in ["sdk", "testkit", "wit", "plugins"] {
            fs::create_dir(root.path().join(part)).unwrap();
        }
        fs::write(root.path().join("sdk/Cargo.toml"), "[package]\nname = \"kontor-sdk\"\n").unwrap();
        root
    }

    /// Runs the command. Returns its output, or its error.
    fn run(dir: &Path, sdk: Option<&Path>) -> Result<String, String> {
        let new =
            New { service: "gift-card".to_owned(), dir: Some(dir.to_owned()), sdk: sdk.map(Path::to_owned) };
        let mut out = Vec::new();
        new.run(false, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_name_of_a_service_is_in_kebab_case() {
        for name in ["order", "gift-card", "b2b", "a-b-c"] {
            assert_eq!(service_name(name).as_deref(), Ok(name));
        }
        for rejected in [
            "",
            "Order",
            "gift_card",
            "gift--card",
            "-card",
            "card-",
            "area-51",
            "größe",
            "a/b",
            "serde",
            "self",
        ] {
            assert!(service_name(rejected).is_err(), "{rejected}");
        }
    }

    #[test]
    fn the_manifest_fits_the_folder_of_the_service() {
        let (root, outside) = (checkout(), tempfile::tempdir().unwrap());
        let root = root.path().canonicalize().unwrap();
        let absolute = root.display().to_string();
        for (dir, sdk, path, last) in [
            (root.join("plugins/gift-card"), None, None, "kontor deploy target/plugins/gift-card.wasm"),
            (
                root.join("sdk/../a/b"),
                None,
                Some("../.."),
                "kontor deploy target/wasm32-wasip2/release/gift_card.wasm",
            ),
            (
                outside.path().join("c"),
                Some(root.as_path()),
                Some(absolute.as_str()),
                "kontor deploy target/wasm32-wasip2/release/gift_card.wasm",
            ),
        ] {
            let printed = run(&dir, sdk).unwrap();
            assert_eq!(printed.lines().last().unwrap().trim(), last);
            let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap();
            let sdk = match path {
                Some(path) => format!("kontor-sdk = {{ path = \"{path}/sdk\" }}"),
                None => "kontor-sdk.workspace = true".to_owned(),
            };
            assert!(manifest.contains(&sdk), "{manifest}");
        }
    }

    #[test]
    fn every_name_of_the_templates_is_filled_in() {
        let root = checkout();
        let dir = root.path().join("gift-card");
        run(&dir, None).unwrap();
        for (name, _) in FILES.iter().chain(&PACKAGE) {
            let text = fs::read_to_string(dir.join(name)).unwrap();
            for left in [SERVICE, TYPE, CHECKOUT] {
                assert!(!text.contains(left), "{left} is left in {name}");
            }
        }
        let aggregate = fs::read_to_string(dir.join("src/aggregate.rs")).unwrap();
        assert!(aggregate.contains("const NAME: &str = \"gift-card\""), "{aggregate}");
        assert!(aggregate.contains("GiftCardOpened { title: String }"), "{aggregate}");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_refused_with_a_hint() {
        let (root, outside) = (checkout(), tempfile::tempdir().unwrap());
        let taken = root.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("notes"), "mine").unwrap();
        let nowhere = outside.path().join("c");
        for (dir, sdk, expected) in [
            (&taken, None, "exists and is not empty; name another folder with --dir"),
            (&nowhere, None, "name one with --sdk"),
            (&nowhere, Some(outside.path()), "is not a checkout of the Kontor repository"),
        ] {
            let error = run(dir, sdk).unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
        assert_eq!(fs::read_dir(&taken).unwrap().count(), 1, "nothing is written beside it");
    }
}
