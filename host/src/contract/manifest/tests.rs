use super::*;

#[test]
fn names_are_kebab_case() {
    for good in ["order", "place-order", "v2", "a-1"] {
        assert!(is_kebab_case(good), "{good}");
    }
    for bad in ["", "Order", "order_line", "-order", "order-", "a--b", "2nd", "größe"] {
        assert!(!is_kebab_case(bad), "{bad}");
    }
}

#[test]
fn a_service_that_calls_a_configured_origin_may_read_the_key() {
    let asks = |config: &[&str], http: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Permissions { config: owned(config), http: owned(http), ..Permissions::default() }.check()
    };
    assert_eq!(asks(&["url"], &["config:url", "https://payments.example"]), Ok(()));
    assert!(asks(&["limit"], &["config:url"]).unwrap_err().contains("\"url\""));
}

fn parcels(subscription: Option<(&str, Option<IdSource>)>, publication: Option<&str>) -> Manifest {
    let (aggregate, command, event): (AggregateName, CommandName, EventName) =
        ("parcel".into(), "receive".into(), "parcel-received".into());
    let description = String::new();
    let payload = Json::empty_object();
    let subscriptions = subscription.into_iter().map(|(subject, id)| {
        let (aggregate, command) = (aggregate.clone(), command.clone());
        Subscription { subject: subject.to_owned(), aggregate, command, id }
    });
    let publications = publication.into_iter().map(|subject| {
        let event = EventRef { aggregate: aggregate.clone(), event: event.clone() };
        Publication { event, subject: subject.to_owned() }
    });
    let subjects = ["carrier.*.received", "shop.*.received", "kontor.x", "$SYS.x", "*.x", "a..b", "a b"];
    Manifest {
        service: "parcels".into(),
        version: "1.0.0".to_owned(),
        description: description.clone(),
        subscriptions: subscriptions.collect(),
        publications: publications.collect(),
        aggregates: vec![Aggregate {
            name: aggregate.clone(),
            description: description.clone(),
            state_version: 1,
            view: payload.clone(),
            commands: vec![Command {
                name: command.clone(),
                description: description.clone(),
                payload: payload.clone(),
                compensable: false,
            }],
            events: vec![Event { name: event.clone(), description, payload }],
        }],
        sagas: Vec::new(),
        queries: Vec::new(),
        routes: Vec::new(),
        read_model: None,
        permissions: Permissions { subjects: subjects.map(str::to_owned).into(), ..Permissions::default() },
    }
}

#[test]
fn a_service_uses_the_subjects_that_it_asks_for_and_none_of_the_hosts() {
    for (subject, id, refused) in [
        ("carrier.*.received", None, None),
        ("carrier.*.received", Some(IdSource::Part(3)), None),
        ("carrier.*.received", Some(IdSource::Part(4)), Some("has no part 4")),
        ("carrier.*.received", Some(IdSource::Part(0)), Some("has no part 0")),
        ("carrier.*.lost", None, Some("does not ask for it")),
        ("kontor.x", None, Some("is no subject for a service")),
        ("$SYS.x", None, Some("is no subject for a service")),
        ("*.x", None, Some("is no subject for a service")),
        ("a..b", None, Some("is no subject for a service")),
        ("a b", None, Some("is no subject for a service")),
    ] {
        let error = parcels(Some((subject, id)), None).check().err();
        assert_eq!(error.is_some(), refused.is_some(), "{subject}: {error:?}");
        assert!(refused.is_none_or(|refused| error.as_ref().unwrap().contains(refused)), "{error:?}");
    }
    for (subject, refused) in [
        ("shop.{id}.received", None),
        ("shop.*.received", Some("is no subject to publish on")),
        ("shop.{id}.lost", Some("does not ask for it")),
        ("kontor.x", Some("is no subject for a service")),
    ] {
        let error = parcels(None, Some(subject)).check().err();
        assert_eq!(error.is_some(), refused.is_some(), "{subject}: {error:?}");
        assert!(refused.is_none_or(|refused| error.as_ref().unwrap().contains(refused)), "{error:?}");
    }
}

#[test]
fn a_name_is_there_once() {
    let names = ["a", "b", "a"];
    assert!(check_names("a saga", names).unwrap_err().contains("more than once"));
}
