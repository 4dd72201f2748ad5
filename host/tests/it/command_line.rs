//! The program `kontor` as a shell sees it: the source of each setting, error messages, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

fn kontor(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontor"));
    command.args(arguments).env_clear();
    command
}

/// Returns the exit code and the text on standard error.
fn failure(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    // These addresses are invalid: the error names the one that was used, and no host starts.
    const FLAG: &str = "10.0.0.1:1";
    const ENVIRONMENT: &str = "10.0.0.2:1";
    const FILE: &str = "10.0.0.3:1";
    let table = [
        (true, true, true, FLAG),
        (true, true, false, FLAG),
        (true, false, true, FLAG),
        (false, true, true, ENVIRONMENT),
        (false, true, false, ENVIRONMENT),
        (false, false, true, FILE),
    ];
    for (flag, environment, file, taken) in table {
        let folder = tempfile::tempdir().unwrap();
        let mut serve = kontor(&["serve"]);
        serve.current_dir(folder.path());
        if flag {
            serve.args(["--listen", FLAG]);
        }
        if environment {
            serve.env("KONTOR_LISTEN", ENVIRONMENT);
        }
        if file {
            fs::write(folder.path().join("kontor.toml"), format!("listen = '{FILE}'")).unwrap();
        }
        let (code, error) = failure(serve.output().unwrap());
        assert_eq!(code, Some(2), "{error}");
        let expected = format!("error: listening on {taken} is refused");
        assert!(error.starts_with(&expected), "flag {flag}, environment {environment}, file {file}: {error}");
    }
}

#[test]
fn errors_are_printed_once_with_their_causes_and_an_exit_code() {
    let table = [
        (
            vec!["serve", "--config", "/nowhere.toml"],
            2,
            "error: the configuration /nowhere.toml cannot be read: ",
        ),
        (vec!["serve", "--lisen", "127.0.0.1:1"], 2, "error: unexpected argument '--lisen'"),
        (vec!["events", "--stream", "order"], 2, "error: invalid value 'order' for '--stream"),
        (vec!["plugins", "--host", "ftp://x"], 2, "error: ftp://x is not the address of a host"),
    ];
    for (arguments, exit, start) in table {
        let (code, error) = failure(kontor(&arguments).output().unwrap());
        assert_eq!(code, Some(exit), "{arguments:?}: {error}");
        assert!(error.starts_with(start), "{arguments:?}: {error}");
        assert_eq!(error.matches("error:").count(), 1, "{arguments:?}: {error}");
    }
}

#[test]
fn the_host_comes_from_the_flag_then_the_environment_then_the_profile() {
    // Nothing listens on these ports: the error names the one that was called.
    let [flag, environment, prod, default] = [1, 2, 3, 4].map(|port| format!("http://127.0.0.1:{port}"));
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("kontor");
    fs::create_dir(&directory).unwrap();
    let profiles = directory.join("profiles.toml");
    fs::write(&profiles, format!("[default]\nhost = '{default}'\n[prod]\nhost = '{prod}'\n")).unwrap();
    let table: [(&[&str], Option<&str>, i32, &str); 6] = [
        (&["--host", &flag], Some(&environment), 4, &flag),
        (&[], Some(&environment), 4, &environment),
        (&["--profile", "prod"], None, 4, &prod),
        (&[], None, 4, &default),
        (&["--profile", "prod"], Some(&environment), 2, "the profile prod is for"),
        (&["--profile", "test"], None, 2, "there is no profile test; there are default, prod"),
    ];
    let run = |arguments: &[&str], environment: Option<&str>| {
        let mut nodes = kontor(&[&["nodes"], arguments].concat());
        nodes.env("HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
        if let Some(host) = environment {
            nodes.env("KONTOR_HOST", host);
        }
        failure(nodes.output().unwrap())
    };
    let (code, error) = run(&[], None);
    assert_eq!(code, Some(2));
    assert!(error.contains(&format!("type `chmod 600 {}`", profiles.display())), "{error}");

    fs::set_permissions(&profiles, fs::Permissions::from_mode(0o600)).unwrap();
    for (arguments, environment, exit, part) in table {
        let (code, error) = run(arguments, environment);
        assert_eq!(code, Some(exit), "{arguments:?} {environment:?}: {error}");
        assert!(error.contains(part), "{arguments:?} {environment:?}: {error}");
    }
}
