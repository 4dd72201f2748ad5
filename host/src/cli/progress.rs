//! Progress bars on standard error, if that is a terminal.

use std::io::{IsTerminal as _, stderr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kontor::api::DeployProgress;
use kontor::model::Position;

use super::client::Client;

/// The time between two requests for the progress of a deployment: often enough for a reader.
const PAUSE: Duration = Duration::from_millis(250);
/// A count with its end.
const COUNTED: &str = "{msg} {human_pos} of {human_len} {bar:20} {eta}";
/// Work without a count.
const WORKING: &str = "{spinner} {msg}";

fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    bar.set_style(style(template));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // Err: impossible, because both templates are sound.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Returns a function that shows how far the events of a log are `done`, such as "exported".
pub(super) fn of_events(done: &'static str) -> impl FnMut(Position, Position) {
    let bar = bar(COUNTED).with_message(done);
    move |position, end| {
        bar.set_length(end.get());
        bar.set_position(position.get());
        if position == end {
            bar.finish_and_clear();
        }
    }
}

/// Shows how far a deployment or a rollback is while `deploy` waits for its end.
pub(super) fn of_deployment<T>(client: &Client, deploy: impl FnOnce() -> T) -> T {
    if !stderr().is_terminal() {
        return deploy();
    }
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let bar = bar(WORKING).with_message("waiting for the host");
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(PAUSE) {
                show(&bar, client);
            }
            bar.finish_and_clear();
        });
        let deployed = deploy();
        drop(ended);
        deployed
    })
}

fn show(bar: &ProgressBar, client: &Client) {
    // Err: the reply to the deployment says what is wrong; an older host does not know the route.
    let Ok(text) = client.get("/admin/plugins/progress", &[]) else { return };
    let Ok(DeployProgress { step: Some(step) }) = serde_json::from_str(&text) else { return };
    bar.set_length(step.of);
    bar.set_position(step.done);
    bar.set_message(format!("{}: {}", &step.digest.to_string()[..8], step.gate));
    bar.set_style(style(if step.of > 0 { COUNTED } else { WORKING }));
}
