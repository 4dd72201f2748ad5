//! Subjects with wildcards, as the servers compare them.

/// Returns whether a pattern has all subjects of another.
pub(crate) fn covers(pattern: &str, other: &str) -> bool {
    let (mut parts, mut others) = (pattern.split('.'), other.split('.'));
    loop {
        match (parts.next(), others.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(other)) if other != ">" => {}
            (Some(part), Some(other)) if part == other => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Returns whether two patterns of subjects have a subject in common.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (mut parts, mut others) = (one.split('.'), other.split('.'));
    loop {
        match (parts.next(), others.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(part), Some(other)) if part == "*" || other == "*" || part == other => {}
            _ => return false,
        }
    }
}

/// Returns the patterns without those that others cover: the subjects of one stream may not overlap.
pub(crate) fn widest(mut patterns: Vec<String>) -> Vec<String> {
    patterns.sort();
    patterns.dedup();
    let covered = |pattern: &String| patterns.iter().any(|other| other != pattern && covers(other, pattern));
    patterns.iter().filter(|pattern| !covered(pattern)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_has_all_subjects_of() {
        for (pattern, other, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a.*.c", true),
            ("a.>", "a.>", true),
            (">", "a", true),
            ("a.*", "a.*", true),
            ("a.*", "a.>", false),
            ("a.>", "a", false),
            ("a.b", "a.*", false),
            ("a.*.c", "a.b.*", false),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
        ] {
            assert_eq!(covers(pattern, other), expected, "{pattern} {other}");
        }
    }

    #[test]
    fn patterns_overlap_if_a_subject_has_both() {
        for (one, other, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "*.b", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.*.c", "a.b.d", false),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn the_widest_patterns_are_kept_once() {
        let patterns = ["a.*.c", "b", "a.>", "b", "a.b.c", "c.*"].map(str::to_owned).to_vec();
        assert_eq!(widest(patterns), ["a.>", "b", "c.*"]);
    }
}
