//! What makes text easy to take in: colours on a terminal, and times as people say them.

use std::io::stdout;

use kontor::saga::SagaState;
use kontor::telemetry::colours;

/// Whether there are colours.
#[derive(Clone, Copy)]
pub(super) struct Style {
    coloured: bool,
}

/// As the escapes of terminals have them (ECMA-48).
#[derive(Clone, Copy)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Style {
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { coloured: false };
    #[cfg(test)]
    pub(super) const COLOURED: Self = Self { coloured: true };

    /// As standard output can show it.
    pub(super) fn of_output() -> Self {
        Self { coloured: colours(&stdout()) }
    }

    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if self.coloured { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }

    /// Red is what needs a person.
    pub(super) fn state(self, state: SagaState) -> String {
        match state {
            SagaState::Parked => self.paint(Colour::Red, state.as_str()),
            SagaState::Unwinding | SagaState::Compensated => self.paint(Colour::Yellow, state.as_str()),
            SagaState::Completed => self.paint(Colour::Green, state.as_str()),
            SagaState::Running | SagaState::Waiting | SagaState::Resolved => state.as_str().to_owned(),
        }
    }
}

/// `12ms`, `1.5s`, `2m 5s`, `3h 20m`, `12d 4h`
pub(super) fn span(time_ms: u64) -> String {
    let seconds = time_ms / 1_000;
    match seconds {
        0 => format!("{time_ms}ms"),
        1..60 => format!("{seconds}.{}s", time_ms % 1_000 / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_two_units_that_matter() {
        for (time_ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (59_960, "59.9s"),
            (125_000, "2m 5s"),
            (12_000_000, "3h 20m"),
            (1_051_200_000, "12d 4h"),
        ] {
            assert_eq!(span(time_ms), text);
        }
    }

    #[test]
    fn what_needs_a_person_is_red_if_there_are_colours() {
        assert_eq!(Style::COLOURED.state(SagaState::Parked), "\x1b[31mparked\x1b[0m");
        assert_eq!(Style::PLAIN.state(SagaState::Parked), "parked");
    }
}
