//! The table of rules: each with its reason, its bans with their replacements, and the paths that it does not
//! hold for.

use super::{File, Found, lines};

pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) check: Check,
    /// Beginnings of paths that the rule does not hold for, each with the reason.
    pub(super) allowed: &'static [(&'static str, &'static str)],
}

pub(super) enum Check {
    /// Words and phrases in any case. `_` joins the words of an identifier (`carry_out`, `CarryOut`), `*`
    /// ends a stem.
    Words(&'static [Place], &'static [Ban]),
    /// The beginnings of doc comments.
    DocStart(&'static [Ban]),
    /// The beginnings of all other sentences in comments.
    Sentence(&'static [Ban]),
    /// Texts in Rust code.
    Code {
        bans: &'static [Ban],
        tests: bool,
    },
    File(fn(&File<'_>) -> Vec<Found>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A comment of Rust or WIT.
    Comment,
    /// A string.
    Text,
    /// Any part of an identifier.
    Name,
    /// The beginning of an identifier. The names of tests are sentences, and may have the words further on.
    NameStart,
    /// All of any other file.
    Prose,
}

pub(super) struct Ban {
    pub(super) found: &'static str,
    pub(super) instead: &'static str,
}

const fn ban(found: &'static str, instead: &'static str) -> Ban {
    Ban { found, instead }
}

use Place::{Comment, Name, Prose, Text};

const EVERYWHERE: &[Place] = &[Comment, Text, Name, Prose];
const TEXTS: &[Place] = &[Comment, Text, Prose];

/// This file and its tests name what they ban.
const BANS: (&str, &str) = ("xtask/src/tidy/", "the bans themselves");
const GLOSSARY: (&str, &str) = ("docs/glossary.md", "names the words that are not used");

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "voice",
        reason: "a newcomer reads a comment once: plain standard English, no private dialect",
        check: Check::Words(EVERYWHERE, VOICE),
        allowed: &[BANS, GLOSSARY, ("host/src/cluster/members.rs", "reads the heartbeats of older hosts")],
    },
    Rule {
        name: "phrases",
        reason: "a newcomer reads a comment once: plain standard English, no riddles",
        check: Check::Words(TEXTS, PHRASES),
        allowed: &[BANS],
    },
    Rule {
        name: "names",
        reason: "a function is named by what it does, in the field's words",
        check: Check::Words(&[Place::NameStart], NAMES),
        allowed: &[],
    },
    Rule {
        name: "spelling",
        reason: "the repository writes American English",
        check: Check::Words(EVERYWHERE, SPELLING),
        allowed: &[BANS],
    },
    Rule {
        name: "doc-start",
        reason: "a doc comment begins with a noun phrase (a type, a field) or a verb (a function)",
        check: Check::DocStart(DOC_STARTS),
        allowed: &[],
    },
    Rule {
        name: "sentence",
        reason: "the subject of a sentence is a noun",
        check: Check::Sentence(SENTENCES),
        allowed: &[],
    },
    Rule {
        name: "causes",
        reason: "an error without its causes says that something failed, and not why",
        check: Check::File(lines::causes),
        allowed: &[],
    },
    Rule {
        name: "clock",
        reason: "time is a trait, so that tests can move it",
        check: Check::Code { bans: CLOCKS, tests: false },
        allowed: &[
            ("host/src/clock.rs", "the clock itself"),
            ("bench/", "measures real time"),
            ("xtask/", "waits for processes, and measures how long stages take"),
        ],
    },
    Rule {
        name: "ignored-test",
        reason: "a test that does not run says why",
        check: Check::Code { bans: &[ban("#[ignore]", "`#[ignore = \"reason\"]`")], tests: true },
        allowed: &[],
    },
    Rule {
        name: "width",
        reason: "two files fit side by side on a screen",
        check: Check::File(lines::width),
        allowed: &[(
            "plugins/report/src/read_model.sql",
            "the gates compare its text with that of the running version",
        )],
    },
    Rule {
        name: "length",
        reason: "a file has one subject",
        check: Check::File(lines::length),
        allowed: &[],
    },
    Rule {
        name: "trailing-space",
        reason: "invisible changes hide the visible ones",
        check: Check::File(lines::trailing_space),
        allowed: &[],
    },
    Rule {
        name: "tab",
        reason: "rustfmt indents with blanks",
        check: Check::File(lines::tabs),
        allowed: &[],
    },
];

const VOICE: &[Ban] = &[
    ban("told", "`status`, `given`, `notified`, `reported` or `printed`"),
    ban("untold", "the default: \"Default: 100\""),
    ban("whoever", "the noun: the caller, the client, the operator"),
    ban("whomever", "the noun: the caller, the client, the operator"),
    ban("person", "`operator`"),
    ban("persons", "`operators`"),
    ban("trouble", "`warning`, or the failure's name"),
    ban("troubles", "`warnings`, or the failures' names"),
];

const PHRASES: &[Ban] = &[
    ban("another one when", "\"changes when\""),
    ban("at most so many", "\"maximum number of\""),
    ban("so many at most", "\"maximum number of\""),
    ban("as many at most", "\"maximum number of\""),
    ban("how many at most", "\"maximum number of\""),
    ban("only so many", "\"at most this many\""),
    ban("of so many", "the number's name"),
    ban("by what the", "\"the means by which\", or the noun itself"),
    ban("is looked at", "\"is checked\", \"is inspected\" or \"is read\""),
    ban("are looked at", "\"are checked\", \"are inspected\" or \"are read\""),
    ban("be looked at", "\"be checked\", \"be inspected\" or \"be read\""),
    ban("been looked at", "\"been checked\", \"been inspected\" or \"been read\""),
    ban("goes on at", "\"resumes at\" or \"continues on\""),
    ban("go on at", "\"resume at\" or \"continue on\""),
    ban("what is later", "\"later events\", or the noun that it is about"),
    ban("what will never be", "the noun that it is about"),
    ban("what comes of it", "\"the outcome\""),
    ban("what becomes of", "\"the outcome of\""),
    ban("who asks", "\"the caller\""),
    ban("who waits", "\"the waiter\", \"the caller\""),
];

const NAMES: &[Ban] = &[
    ban("tell", "`notify`, `report` or `print`"),
    ban("carry_out", "`route_request` (HTTP), `execute` (edge) or `process` (dispatch)"),
    ban("take_in", "`apply`"),
    ban("takes_in", "`applies`"),
    ban("goes_on", "`check_ownership`, `resume` or `continues`"),
    ban("let_go", "`release`"),
    ban("go_back", "`roll_back`"),
    ban("goes_back", "`rolls_back`"),
    ban("take_away", "`remove`"),
    ban("on_its_own", "`detached`"),
    ban("asked_inside", "`internal_requests`"),
    ban("patiently", "`flush_if_slow`, or the thing that it waits for"),
];

const SPELLING: &[Ban] = &[
    ban("analyse*", "`analyze`"),
    ban("armour*", "`armor`"),
    ban("artefact*", "`artifact`"),
    ban("authoris*", "`authoriz…`"),
    ban("behaviour*", "`behavior`"),
    ban("cancelation*", "`cancellation`"),
    ban("catalogue*", "`catalog`"),
    ban("centre*", "`center`"),
    ban("colour*", "`color`"),
    ban("defence*", "`defense`"),
    ban("favour*", "`favor`"),
    ban("for ever", "`forever`"),
    ban("generalis*", "`generaliz…`"),
    ban("grey*", "`gray`"),
    ban("honour*", "`honor`"),
    ban("initialis*", "`initializ…`"),
    ban("labelled", "`labeled`"),
    ban("licence*", "`license`"),
    ban("misbehaviour*", "`misbehavior`"),
    ban("minimis*", "`minimiz…`"),
    ban("modelled", "`modeled`"),
    ban("neighbour*", "`neighbor`"),
    ban("normalis*", "`normaliz…`"),
    ban("optimis*", "`optimiz…`"),
    ban("organis*", "`organiz…`"),
    ban("recognis*", "`recogniz…`"),
    ban("serialis*", "`serializ…`"),
    ban("deserialis*", "`deserializ…`"),
    ban("specialis*", "`specializ…`"),
    ban("summaris*", "`summariz…`"),
    ban("synchronis*", "`synchroniz…`"),
    ban("towards", "`toward`"),
    ban("travelling", "`traveling`"),
    ban("whilst", "`while`"),
];

const DOC_STARTS: &[Ban] = &[
    ban("Has the ", "\"Returns whether …\""),
    ban("What ", "the noun: \"The events that …\""),
    ban("Whatever ", "the noun: \"All events that …\""),
    ban("Whether ", "\"Returns whether …\", or \"True if …\" for a field"),
    ban("Who ", "the noun: \"The caller that …\""),
    ban("That ", "a noun phrase; a test's name says what holds"),
    ban("Of ", "the noun: \"The … of …\""),
    ban("How ", "the noun: \"The number of …\", \"The time until …\", \"The way …\""),
    ban("Why ", "the noun: \"The reason …\""),
    ban("By what ", "the noun: \"The connection for …\""),
];

const SENTENCES: &[Ban] = &[
    ban("What ", "the noun: \"The events that …\", \"All that …\""),
    ban("Whether ", "\"The caller decides whether …\""),
    ban("Who ", "the noun: \"A caller that …\""),
    ban("Of ", "the noun: \"The … of …\""),
];

const CLOCKS: &[Ban] = &[
    ban("Instant::now", "the `Clock` that the part was given"),
    ban("SystemTime::now", "the `Clock` that the part was given"),
];
