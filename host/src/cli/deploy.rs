//! `kontor deploy`: deploys components into a running host.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use uuid::Uuid;

use super::client::{ActorArgument, Client, HostArgument};
use super::exit::Unusable;
use super::{gates, progress};

const EXAMPLES: &str = "\
Examples:
  kontor deploy target/plugins/order.wasm
  kontor deploy order.wasm report.wasm --note 'spring sale'
  kontor deploy order.wasm --dry-run
  kontor deploy order.wasm --grant command:payment.authorize --grant service:payment
  kontor deploy payment.wasm --grant http:https://payments.example
  kontor deploy order.wasm --allow-breaking 'route:GET /orders' --allow-breaking query:sales
  kontor deploy order.wasm --signature order.wasm.sig

The gates test a component before it runs: it is compatible with the running version, its permissions are
granted, it folds every stream of its aggregates and replays every open saga. Then it replaces the running
version at once: calls in progress end on their version, and none is refused. Several components go live
together or not at all. The exit code is 0 if they run (with --dry-run: if they would), and 3 if a gate
refuses one.";

/// Deploy components into a running host, after its gates have tested them against the log
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deploy {
    /// The components (*.wasm)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print the report of the gates, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// A permission to grant beside those of the configuration: command:payment.authorize,
    /// event:order.order-created, service:payment, subject:orders.> or http:https://payments.example. Here
    /// HTTP is granted for all methods, but not for private addresses and without secret headers, which are
    /// in kontor.toml only
    #[arg(long = "grant", value_name = "GRANT")]
    grants: Vec<String>,
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// A breaking change to allow, as its gate names it: command:order/create, 'route:GET /orders' or
    /// downgrade:order
    #[arg(long, value_name = "CHANGE")]
    allow_breaking: Vec<String>,
    /// Maximum number of streams of each aggregate to fold, for very large logs
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// The signature of each component, in their order: files written by `kontor sign`
    #[arg(long = "signature", value_name = "FILE")]
    signatures: Vec<PathBuf>,
    #[command(flatten)]
    actor: ActorArgument,
    #[command(flatten)]
    host: HostArgument,
}

impl Deploy {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let (content_type, body) = form(&self.files)?;
        let signatures = self.signatures()?;
        let mut headers = vec![("content-type", content_type.as_str()), self.actor.header()];
        headers.extend(signatures.as_deref().map(|signatures| ("kontor-signature", signatures)));
        let (client, parameters) = (Client::of_deployments(&self.host)?, self.parameters());
        let deploy = || client.put("/admin/plugins", &parameters, &headers, &body);
        let response = progress::of_deployment(&client, deploy);
        gates::print(response, Some(&self.host), json, out)
    }

    /// Returns the parameters of the request.
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let dry_run = self.dry_run.then(|| ("dry-run", "true".to_owned()));
        let note = self.note.clone().map(|note| ("note", note));
        let sample = self.sample.map(|streams| ("sample", streams.to_string()));
        let mut parameters: Vec<_> = [dry_run, note, sample].into_iter().flatten().collect();
        parameters.extend(self.allow_breaking.iter().map(|what| ("allow-breaking", what.clone())));
        parameters.extend(self.grants.iter().map(|grant| ("grant", grant.clone())));
        parameters
    }

    /// Returns the signatures in one header; none if the components are not signed.
    fn signatures(&self) -> anyhow::Result<Option<String>> {
        let (files, signatures) = (self.files.len(), self.signatures.len());
        if signatures == 0 {
            return Ok(None);
        }
        if files != signatures {
            let message =
                format!("there are {files} components and {signatures} signatures; give one for each");
            return Err(Unusable(message).into());
        }
        let read = |file: &PathBuf| {
            let text = fs::read_to_string(file);
            text.with_context(|| format!("cannot read {}", file.display()))
                .map(|text| BASE64.encode(text.trim()))
        };
        let texts: Vec<String> = self.signatures.iter().map(read).collect::<anyhow::Result<_>>()?;
        Ok(Some(texts.join(",")))
    }
}

/// Returns the files as a form (RFC 7578), after its content type.
fn form(files: &[PathBuf]) -> anyhow::Result<(String, Vec<u8>)> {
    // Random enough that no file has it by chance.
    let boundary = Uuid::now_v7().simple();
    let mut form = Vec::new();
    for file in files {
        let wasm = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = part_name(file);
        write!(
            form,
            "--{boundary}\r\ncontent-disposition: form-data; name=\"component\"; filename=\"{name}\"\r\n\
             content-type: application/wasm\r\n\r\n"
        )?;
        form.extend(wasm);
        form.extend(b"\r\n");
    }
    write!(form, "--{boundary}--\r\n")?;
    Ok((format!("multipart/form-data; boundary={boundary}"), form))
}

/// Returns a file's name with all characters replaced that could end its header.
fn part_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.replace(|letter: char| letter == '"' || letter == '\\' || letter.is_control(), "_")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::{Ran, kontor, ok};
    use super::*;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        deploy: Deploy,
    }

    fn parsed(arguments: &[&str]) -> Deploy {
        Line::parse_from(["deploy"].iter().chain(arguments)).deploy
    }

    #[test]
    fn files_and_options_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let [order, report] = ["order.wasm", "report.wasm"].map(|name| folder.path().join(name));
        fs::write(&order, "one").unwrap();
        fs::write(&report, "two").unwrap();
        let live = r#"{"dry_run":false,"live":true,"services":[],"gates":[]}"#;
        let files = [order.to_str().unwrap(), report.to_str().unwrap()];
        let line = ["deploy", files[0], files[1], "--grant", "service:payment", "--sample", "9", "--json"];
        let Ran { requests, printed, error, .. } = kontor(&line, vec![ok(live)]);
        assert_eq!((printed, error), (format!("{live}\n"), None));

        let request = &requests[0];
        let start = "PUT /admin/plugins?sample=9&grant=service%3Apayment HTTP/1.1 --";
        let (boundary, _) = request.strip_prefix(start).unwrap().split_once("\r\n").unwrap();
        let part = |file: &str, wasm: &str| {
            format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"component\"; filename=\"{file}\"\r\n\
                 content-type: application/wasm\r\n\r\n{wasm}\r\n"
            )
        };
        let form = part("order.wasm", "one") + &part("report.wasm", "two") + &format!("--{boundary}--");
        assert_eq!(*request, format!("{}{form}", start.strip_suffix("--").unwrap()));
    }

    #[test]
    fn options_go_into_the_query() {
        let line = [
            "order.wasm",
            "--dry-run",
            "--note",
            "spring sale",
            "--sample",
            "9",
            "--allow-breaking",
            "read-model",
            "--allow-breaking",
            "query:sales",
            "--grant",
            "service:payment",
        ];
        let expected = [
            ("dry-run", "true"),
            ("note", "spring sale"),
            ("sample", "9"),
            ("allow-breaking", "read-model"),
            ("allow-breaking", "query:sales"),
            ("grant", "service:payment"),
        ];
        assert_eq!(parsed(&line).parameters(), expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(parsed(&["order.wasm"]).parameters(), []);
        for rejected in [&["deploy"][..], &["deploy", "order.wasm", "--sample", "0"]] {
            assert!(Line::try_parse_from(rejected).is_err(), "{rejected:?}");
        }
    }

    #[test]
    fn either_each_component_has_a_signature_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("order.sig");
        fs::write(&file, "ada\n").unwrap();
        let signature = file.to_str().unwrap();
        let signed = |line: &[&str]| parsed(line).signatures().map_err(|error| error.to_string());
        let two = ["a.wasm", "b.wasm", "--signature", signature, "--signature", signature];
        assert_eq!(signed(&two).unwrap().as_deref(), Some("YWRh,YWRh"));
        assert_eq!(signed(&["a.wasm"]).unwrap(), None);
        let expected = "there are 2 components and 1 signatures; give one for each";
        assert_eq!(signed(&two[..4]).unwrap_err(), expected);
        assert_eq!(signed(&["a.wasm", "--signature", "/nowhere"]).unwrap_err(), "cannot read /nowhere");
    }

    #[test]
    fn the_name_of_a_file_cannot_end_its_header() {
        assert_eq!(part_name(Path::new("dir/a\"b\\c\r\nd.wasm")), "a_b_c__d.wasm");
    }
}
