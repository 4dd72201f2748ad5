//! Places in an order: numbers of different types, so that a place in one order cannot be confused with a
//! place in another.

/// Defines the type of the places in one order: the numbers from 1, and 0 for the place before the first.
macro_rules! place {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(u64);

        impl $name {
            /// The place before the first.
            pub const START: Self = Self(0);
            /// The last possible place.
            pub const MAX: Self = Self(u64::MAX);

            /// Returns the place with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the number of the place.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the place right after this one.
            pub const fn next(self) -> Self {
                self.after(1)
            }

            /// Returns the place `count` places after this one, and at most [`Self::MAX`].
            pub const fn after(self, count: usize) -> Self {
                Self(self.0.saturating_add(count as u64))
            }

            /// Returns the place `count` places before this one, and at least [`Self::START`].
            pub const fn before(self, count: usize) -> Self {
                Self(self.0.saturating_sub(count as u64))
            }

            /// Returns the number of places from `earlier` to this one; 0 if this one does not come later.
            pub const fn distance_from(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

pub(crate) use place;

place! {
    /// The place of an event in the global order of the log, from 1. [`Position::START`] is before the first.
    ///
    /// A version does not fit:
    ///
    /// ```compile_fail,E0308
    /// use kontor::model::{Position, Version};
    ///
    /// let position: Position = Version::new(7);
    /// ```
    Position
}

place! {
    /// The place of an event in its stream, from 1. [`Version::START`] is the version of an empty stream.
    ///
    /// Neither a position nor a plain number fits:
    ///
    /// ```compile_fail,E0308
    /// use kontor::model::{Position, Version};
    ///
    /// let version: Version = Position::new(7);
    /// ```
    ///
    /// ```compile_fail,E0308
    /// let version: kontor::model::Version = 7;
    /// ```
    Version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_plain_number_in_json() {
        let version = Version::new(7);
        assert_eq!(serde_json::to_string(&version).unwrap(), "7");
        assert_eq!(serde_json::from_str::<Version>("7").unwrap(), version);
        assert_eq!(serde_json::from_str::<Position>("18446744073709551615").unwrap(), Position::MAX);
        for bad in ["-1", "7.5", "\"7\"", "null"] {
            assert!(serde_json::from_str::<Version>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_can_be_parsed_from_its_text() {
        for place in [Position::START, Position::new(7), Position::MAX] {
            assert_eq!(place.to_string().parse::<Position>().unwrap(), place);
        }
        for bad in ["", "-1", "7.5", "18446744073709551616"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn places_are_ordered_and_stop_at_both_ends() {
        let [four, seven] = [4, 7].map(Position::new);
        assert!(Position::START < four && four < seven && seven < Position::MAX);
        assert_eq!((four.after(3), seven.before(3), four.next()), (seven, four, Position::new(5)));
        assert_eq!((seven.distance_from(four), four.distance_from(seven)), (3, 0));
        assert_eq!((four.before(5), Position::MAX.next()), (Position::START, Position::MAX));
    }
}
