//! Text that is easy to read: colors on a terminal, and durations in two units.

use std::io::stdout;

use kontor::saga::SagaState;
use kontor::telemetry::has_colors;

/// The style of an output: plain or colored.
#[derive(Clone, Copy)]
pub(super) struct Style {
    colored: bool,
}

/// A color, by its number in the escape sequences of terminals (ECMA-48).
#[derive(Clone, Copy)]
pub(super) enum Color {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

impl Style {
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { colored: false };
    #[cfg(test)]
    pub(super) const COLORED: Self = Self { colored: true };

    /// Returns the style of standard output.
    pub(super) fn of_output() -> Self {
        Self { colored: has_colors(&stdout()) }
    }

    /// Returns the text in a color, if the output has colors.
    pub(super) fn paint(self, color: Color, text: &str) -> String {
        if self.colored { format!("\x1b[{}m{text}\x1b[0m", color as u8) } else { text.to_owned() }
    }

    /// Returns the name of a state. Red: the saga needs an operator.
    pub(super) fn state(self, state: SagaState) -> String {
        match state {
            SagaState::Parked => self.paint(Color::Red, state.as_str()),
            SagaState::Unwinding | SagaState::Compensated => self.paint(Color::Yellow, state.as_str()),
            SagaState::Completed => self.paint(Color::Green, state.as_str()),
            SagaState::Running | SagaState::Waiting | SagaState::Resolved => state.as_str().to_owned(),
        }
    }
}

/// Returns a duration as `12ms`, `1.5s`, `2m 5s`, `3h 20m` or `12d 4h`.
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
    fn spans_have_at_most_two_units() {
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
    fn a_parked_saga_is_red_if_the_output_has_colors() {
        assert_eq!(Style::COLORED.state(SagaState::Parked), "\x1b[31mparked\x1b[0m");
        assert_eq!(Style::PLAIN.state(SagaState::Parked), "parked");
    }
}
