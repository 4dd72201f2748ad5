use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::clock::Time;

fn of(subject: &str, roles: &[&str]) -> NewToken {
    let roles = roles.iter().copied().map(Role::from).collect();
    NewToken { subject: subject.into(), roles, ..NewToken::default() }
}

async fn make(identity: &Identity, new: NewToken) -> (String, TokenInfo) {
    let (text, info) = identity.make_token(new, &Caller::named("ada")).await.unwrap();
    (format!("Bearer {}", text.reveal()), info)
}

#[tokio::test]
async fn a_token_is_valid_from_its_making_to_its_end() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let expires = Some(Time((NOW_S + 90) * 1_000));
    let (bearer, info) = make(&identity, NewToken { expires, ..of("ann", &["clerk"]) }).await;
    let (for_good, _) = make(&identity, of("ben", &[])).await;
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"));
    assert_eq!(caller(&identity, &bearer.replace("Bearer ", "bearer  ")).await, somebody("ann", "clerk"));
    site.clock.advance_s(89);
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "clerk"));
    site.clock.advance_s(1);
    assert_eq!(caller(&identity, &bearer).await.unwrap_err(), "the token has expired");
    assert_eq!(caller(&identity, &for_good).await, somebody("ben", ""));
    let revoked = identity.revoke_token(&info.id, None, &Caller::named("ada")).await.unwrap();
    assert_eq!(revoked.revoked.unwrap().by, "ada");
    assert_eq!(caller(&identity, &bearer).await.unwrap_err(), "the token was revoked");
}

#[tokio::test]
async fn a_wrong_secret_is_answered_like_a_token_that_does_not_exist() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let (bearer, info) = make(&identity, of("ann", &[])).await;
    identity.revoke_token(&info.id, None, &Caller::named("ada")).await.unwrap();
    for wrong in [
        format!("{bearer}x"),
        bearer[..bearer.len() - 1].to_owned(),
        format!("Bearer kontor_{}_", info.id),
        format!("Bearer kontor_{}_{}", "0".repeat(16), "A".repeat(43)),
        "Bearer kontor__".to_owned(),
    ] {
        assert_eq!(caller(&identity, &wrong).await.unwrap_err(), "the token is unknown", "{wrong}");
    }
}

#[tokio::test]
async fn tokens_follow_from_the_log_and_their_uses_from_a_file() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    site.clock.advance_s(1);
    let (bearer, ann) = make(&identity, of("ann", &["clerk", "auditor", "clerk"])).await;
    site.clock.advance_s(1);
    let (_, ben) =
        make(&identity, NewToken { note: Some("for the till".to_owned()), ..of("ben", &[]) }).await;
    let reason = Some("lost".to_owned());
    identity.revoke_token(&ben.id, reason.clone(), &Caller::named("eve")).await.unwrap();
    site.clock.advance_s(100);
    caller(&identity, &bearer).await.unwrap();
    site.clock.advance_s(59);
    caller(&identity, &bearer).await.unwrap();
    let listed = identity.tokens();
    identity.close().await;
    drop(identity);
    let identity = site.start("").await.unwrap();
    assert_eq!(identity.tokens(), listed);
    let [first, found_ann, found_ben] = &*listed else { panic!("three tokens: {listed:?}") };
    assert_eq!((first.subject.as_str(), first.made_by.as_str()), ("operator", "kontor"));
    assert_eq!(found_ann.roles, ["auditor", "clerk"].map(Role::from));
    assert_eq!(found_ann.last_used, Some(Time((NOW_S + 102) * 1_000)), "at most once a minute");
    assert_eq!((&found_ann.id, found_ann.made_by.as_str()), (&ann.id, "ada"));
    let revoked = found_ben.revoked.clone().unwrap();
    assert_eq!((revoked.by.as_str(), revoked.reason), ("eve", reason));
    assert_eq!((found_ben.last_used, found_ben.note.as_deref()), (None, Some("for the till")));
    assert_eq!(caller(&identity, &bearer).await, somebody("ann", "auditor clerk"));
}

#[tokio::test]
async fn uses_that_have_not_changed_are_not_written_again() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let (bearer, _) = make(&identity, of("ann", &[])).await;
    let file = site.data.path().join("token-uses.json");
    for (wait_s, written) in [(0, true), (59, false), (1, true)] {
        site.clock.advance_s(wait_s);
        caller(&identity, &bearer).await.unwrap();
        // Err: it is not there.
        let _ = std::fs::remove_file(&file);
        identity.close().await;
        assert_eq!(file.exists(), written, "after {wait_s} s more");
    }
}

#[tokio::test]
async fn a_second_revocation_changes_nothing() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let (_, info) = make(&identity, of("ann", &[])).await;
    let once = identity.revoke_token(&info.id, None, &Caller::named("ada")).await.unwrap();
    let twice =
        identity.revoke_token(&info.id, Some("again".to_owned()), &Caller::named("eve")).await.unwrap();
    assert_eq!(once, twice);
    for unknown in ["0".repeat(16), String::new(), "../x".to_owned(), "x".repeat(500)] {
        let error = identity.revoke_token(&unknown, None, &Caller::named("ada")).await.unwrap_err();
        assert!(matches!(error, TokenError::NotFound), "{unknown}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_is_refused() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let many: Vec<_> = (0..40).map(|role| format!("role-{role}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let past = NewToken { expires: Some(Time(NOW_S * 1_000)), ..of("ann", &[]) };
    for (new, expected) in [
        (of("", &[]), "\"\" must have 1 to 128 printable"),
        (of("a\nb", &[]), "\"a\\nb\" must have 1 to 128 printable"),
        (of("anonymous", &[]), "\"anonymous\" is a name of the host's own"),
        (of("ann", &["Clerk"]), "\"Clerk\" is no role"),
        (of("ann", &many), "there are 40 roles, and at most 32 are allowed"),
        (past, "the time at which it expires has passed"),
    ] {
        let error = identity.make_token(new, &Caller::named("ada")).await.err().unwrap();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert_eq!(identity.tokens().len(), 1, "the host's own");
}

#[tokio::test]
async fn the_first_token_is_in_a_file_for_the_user_of_the_host() {
    let site = Site::new();
    let file = site.data.path().join("operator.token");
    let identity = site.start("").await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = format!("Bearer {}", std::fs::read_to_string(&file).unwrap().trim());
    assert_eq!(caller(&identity, &first).await, somebody("operator", "operator"));
    // While it is valid no other one is made; once it is not, and nobody else could sign in, one is.
    let identity = site.start("").await.unwrap();
    let [token] = &*identity.tokens() else { panic!("one token") };
    identity.revoke_token(&token.id, None, &Caller::named("ada")).await.unwrap();
    let identity = site.start("socket_roles = ['operator']").await.unwrap();
    assert_eq!(identity.tokens().len(), 1);
    let identity = site.start("").await.unwrap();
    let second = format!("Bearer {}", std::fs::read_to_string(&file).unwrap().trim());
    assert_eq!(caller(&identity, &second).await, somebody("operator", "operator"));
    assert_eq!(caller(&identity, &first).await.unwrap_err(), "the token was revoked");
}

#[tokio::test]
async fn without_the_section_no_token_is_made_and_everybody_is_the_operator() {
    let site = Site::new();
    let identity = site.start_with(None).await.unwrap();
    assert!(identity.tokens().is_empty() && !site.data.path().join("operator.token").exists());
    for authorization in [None, Some("Bearer kontor_x_y"), Some("nonsense")] {
        let found = identity.caller(Evidence { authorization, ..Evidence::default() }).await.unwrap();
        assert_eq!(found, Caller::unauthenticated_operator());
    }
}

#[tokio::test]
async fn only_the_hash_of_a_token_is_in_the_files() {
    let site = Site::new();
    let identity = site.start("").await.unwrap();
    let (bearer, info) = make(&identity, of("ann", &[])).await;
    let secret = bearer.rsplit_once(&format!("{}_", info.id)).unwrap().1.to_owned();
    let hash = hex::encode(Sha256::digest(bearer.strip_prefix("Bearer ").unwrap()));
    caller(&identity, &bearer).await.unwrap();
    identity.close().await;
    drop(identity);
    let holds = |text: &str| {
        let has = |file: &Path| {
            std::fs::read(file).unwrap().windows(text.len()).any(|bytes| bytes == text.as_bytes())
        };
        let files = std::fs::read_dir(site.data.path()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.is_file() && has(file)).count()
    };
    assert_eq!(holds(&secret), 0);
    assert!(holds(&hash) > 0 && holds(&info.id) > 0);
}
