//! The condition of a command on the version of its stream.

use super::Version;

/// A set of versions of a stream that has events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Any version.
    Any,
    /// One of these.
    Of(Vec<Version>),
}

impl Versions {
    fn contain(&self, version: Version) -> bool {
        match self {
            Self::Any => version > Version::START,
            Self::Of(versions) => versions.contains(&version),
        }
    }
}

/// The condition on the version that a stream has before a command (RFC 9110, 13.1). The default always
/// holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The version must be one of these (`If-Match`). `None`: it may be any, and there may be no events.
    pub one_of: Option<Versions>,
    /// The version must be none of these (`If-None-Match`).
    pub none_of: Option<Versions>,
}

impl Precondition {
    /// Returns whether the condition holds for a stream at this version.
    pub fn holds(&self, version: Version) -> bool {
        self.one_of.as_ref().is_none_or(|versions| versions.contain(version))
            && self.none_of.as_ref().is_none_or(|versions| !versions.contain(version))
    }

    /// Returns the version that the stream must have, if it is only one.
    pub fn expected(&self) -> Option<Version> {
        match &self.one_of {
            Some(Versions::Of(versions)) if versions.len() == 1 => versions.first().copied(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_the_versions_that_it_names() {
        let of = |versions: &[u64]| Some(Versions::Of(versions.iter().map(|v| Version::new(*v)).collect()));
        for (one_of, none_of, holds) in [
            (None, None, [true, true, true]),
            (Some(Versions::Any), None, [false, true, true]),
            (of(&[0]), None, [true, false, false]),
            (of(&[2, 1]), None, [false, true, true]),
            (of(&[]), None, [false, false, false]),
            (None, Some(Versions::Any), [true, false, false]),
            (None, of(&[1]), [true, false, true]),
            (Some(Versions::Any), of(&[1]), [false, false, true]),
        ] {
            let condition = Precondition { one_of, none_of };
            assert_eq!(
                [0, 1, 2].map(|version| condition.holds(Version::new(version))),
                holds,
                "{condition:?}"
            );
        }
    }
}
