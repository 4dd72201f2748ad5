use super::*;

const SECTION: &str = "nats_roles = ['clerk']\nsocket_roles = ['operator']\n\
                       [certificates]\n'CN=probe,O=Shop' = ['monitor']";

#[tokio::test]
async fn the_other_end_of_a_connection_is_who_the_configuration_says() {
    let site = Site::new();
    let all = site.start(SECTION).await.unwrap();
    let none = site.start("").await.unwrap();
    let certificate = |subject: &str| Peer::Certificate { subject: subject.into() };
    for (peer, of_all, of_none) in [
        (certificate("CN=probe,O=Shop"), ("CN=probe,O=Shop", "monitor"), ("CN=probe,O=Shop", "")),
        (certificate("CN=other"), ("CN=other", ""), ("CN=other", "")),
        (Peer::Nats, ("nats", "clerk"), ("anonymous", "")),
        (Peer::Socket { uid: 1_000 }, ("unix:1000", "operator"), ("unix:1000", "")),
        (Peer::Socket { uid: 0 }, ("unix:0", "operator"), ("unix:0", "operator")),
    ] {
        for (identity, (subject, roles)) in [(&all, of_all), (&none, of_none)] {
            let evidence = Evidence { peer: Some(&peer), ..Evidence::default() };
            assert_eq!(shown(identity.caller(evidence).await), somebody(subject, roles), "{peer:?}");
        }
    }
    assert_eq!(shown(all.caller(Evidence::default()).await), somebody("anonymous", ""));
}

#[tokio::test]
async fn a_token_goes_before_the_connection_and_a_wrong_one_is_not_forgiven() {
    let site = Site::new();
    let identity = site.start(SECTION).await.unwrap();
    let new = NewToken { subject: "ann".into(), ..NewToken::default() };
    let (text, _) = identity.make_token(new, &Caller::named("ada")).await.unwrap();
    let peer = Some(&Peer::Nats);
    let bearer = format!("Bearer {}", text.reveal());
    let found = identity.caller(Evidence { authorization: Some(&bearer), peer, ..Evidence::default() }).await;
    assert_eq!(shown(found), somebody("ann", ""));
    let wrong = identity
        .caller(Evidence { authorization: Some("Bearer kontor_a_b"), peer, ..Evidence::default() })
        .await;
    assert_eq!(wrong.unwrap_err(), NotIdentified::Unknown);
}

#[tokio::test]
async fn a_certificate_with_a_name_that_no_subject_may_have_is_nobodys_evidence() {
    let site = Site::new();
    let identity = site.start(SECTION).await.unwrap();
    let new = NewToken { subject: "ann".into(), ..NewToken::default() };
    let (text, _) = identity.make_token(new, &Caller::named("ada")).await.unwrap();
    let bearer = format!("Bearer {}", text.reveal());
    let too_long = "x".repeat(129);
    for (name, why) in [
        ("kontor", "is a name of the host's own"),
        ("nats", "is a name of the host's own"),
        ("anonymous", "is a name of the host's own"),
        ("unix:0", "begins like a name of the host's own"),
        ("saga:0199", "begins like a name of the host's own"),
        ("till\n7", "must have 1 to 128 printable characters"),
        (&too_long, "must have 1 to 128 printable characters"),
    ] {
        let peer = Peer::Certificate { subject: name.into() };
        let evidence = |authorization| Evidence { authorization, peer: Some(&peer), ..Evidence::default() };
        let refused = shown(identity.caller(evidence(None)).await);
        assert_eq!(refused, Err(format!("the name in the client's certificate {why}")), "{name:?}");
        let with_token = shown(identity.caller(evidence(Some(&bearer))).await);
        assert_eq!(with_token, somebody("ann", ""), "{name:?}");
    }
}
