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
    let asks = |settings: &[&str], http: &[&str]| {
        let setting = |key: &&str| Setting {
            key: (*key).to_owned(),
            description: String::new(),
            schema: Json::empty_object(),
            required: false,
        };
        let http = http.iter().map(|text| (*text).to_owned()).collect();
        let settings = settings.iter().map(setting).collect();
        let permissions = Permissions { http, ..Permissions::default() };
        Manifest { settings, permissions, ..parcels(None, None) }.check()
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
            readers: None,
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
        settings: Vec::new(),
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
fn a_service_asks_for_the_events_of_others_that_it_follows() {
    let order_created = || EventRef::new("order", "order-created");
    let follows = |event: EventRef, asked: &[EventRef]| {
        let saga = Saga { name: "thank".into(), description: String::new(), starts_on: event.clone() };
        let read_model = ReadModel { version: 1, schema: String::new(), subscribes: vec![event] };
        let permissions = || Permissions { events: asked.to_vec(), ..parcels(None, None).permissions };
        let by_saga = Manifest { sagas: vec![saga], permissions: permissions(), ..parcels(None, None) };
        let by_read_model =
            Manifest { read_model: Some(read_model), permissions: permissions(), ..parcels(None, None) };
        (by_saga.check(), by_read_model.check())
    };
    assert_eq!(follows(EventRef::new("parcel", "parcel-received"), &[]), (Ok(()), Ok(())), "its own");
    assert_eq!(follows(order_created(), &[order_created()]), (Ok(()), Ok(())));
    let refused = "it follows order.order-created of another service, but does not ask for it";
    assert_eq!(follows(order_created(), &[]), (Err(refused.to_owned()), Err(refused.to_owned())));
}

#[test]
fn no_text_has_a_control_character() {
    let path = "/parcels\u{1b}[2J".to_owned();
    let target = Target::Query("parcel".into());
    let route = Route { method: Method::Get, path, target, access: Access::SignedIn };
    let with_route = Manifest { routes: vec![route], ..parcels(None, None) };
    let version = "1.0.0\u{9b}2J".to_owned();
    for (manifest, text) in [
        (with_route, "\"/parcels\\u{1b}[2J\""),
        (Manifest { version, ..parcels(None, None) }, "\"1.0.0\\u{9b}2J\""),
        (parcels(None, Some("shop.\u{7}")), "\"shop.\\u{7}\""),
    ] {
        assert_eq!(manifest.check(), Err(format!("{text} has a control character")));
    }
}

#[test]
fn a_name_is_there_once() {
    let names = ["a", "b", "a"];
    assert!(check_names("a saga", names).unwrap_err().contains("more than once"));
}
