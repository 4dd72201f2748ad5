//! The places of keys in a configuration file, by which findings name their lines.

use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::settings::Finding;

/// The text of a configuration file. The default stands for no file: nothing has a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Places {
    file: PathBuf,
    text: Arc<str>,
}

impl Places {
    /// Returns the places in the text of a file.
    pub fn new(file: PathBuf, text: String) -> Self {
        Self { file, text: text.into() }
    }

    /// Returns the sentence of a finding behind the place of its key: `kontor.toml:3:1: …`.
    pub fn locate(&self, Finding { key, says }: &Finding) -> String {
        match self.of(&key.iter().map(String::as_str).collect::<Vec<_>>()) {
            Some(place) => format!("{place}: {says}"),
            None => says.clone(),
        }
    }

    /// Returns the file, the line and the column of a key, or of the last of its tables that is there.
    pub fn of(&self, key: &[&str]) -> Option<String> {
        // Err: the file has been read, so it is TOML.
        let document = DeTable::parse(&self.text).ok()?;
        // Settings of services may be secrets.
        let secret: Vec<_> =
            key.iter().map(|name| if *name == "services" { "secrets" } else { name }).collect();
        let found = [&*secret, key].into_iter().filter_map(|key| start(document.get_ref(), key));
        let (_, start) = found.max_by_key(|(depth, _)| *depth)?;
        let before = &self.text[..start];
        let line = before.split('\n').count();
        let column = 1 + before.chars().rev().take_while(|letter| *letter != '\n').count();
        Some(format!("{}:{line}:{column}", self.file.display()))
    }
}

/// Returns the number of the parts of a key that are there, and the place of the last one's first byte. The
/// last part may be an item of a list of texts.
fn start(table: &DeTable<'_>, key: &[&str]) -> Option<(usize, usize)> {
    let (first, rest) = key.split_first()?;
    let (name, value) = table.get_key_value(*first)?;
    let inner = match value.get_ref() {
        DeValue::Table(table) => start(table, rest),
        DeValue::Array(items) => {
            let wanted =
                |item: &&Spanned<DeValue<'_>>| rest.first().is_some_and(|text| is_text(item.get_ref(), text));
            items.iter().find(wanted).map(|item| (1, item.span().start))
        }
        _ => None,
    };
    Some(inner.map_or((1, name.span().start), |(depth, start)| (depth + 1, start)))
}

fn is_text(value: &DeValue<'_>, text: &str) -> bool {
    matches!(value, DeValue::String(value) if value == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_place_where_it_stands_or_that_of_its_table() {
        let text = "log = 'embedded'\n\n[services.payment]\ncard_limit = 1 # of a day\n\
                    region = [\n  'nörth', 'south'\n]\n[retries.steps]\n  'place-order/pay' = 1\n\
                    [grants]\norder.services = ['payment']\n[secrets.payment]\nkey = { env = 'K' }\n";
        let places = Places::new("kontor.toml".into(), text.to_owned());
        for (key, place) in [
            (&["log"][..], Some("1:1")),
            (&["services", "payment"], Some("3:11")),
            (&["services", "payment", "card_limit"], Some("4:1")),
            (&["services", "payment", "card-limit"], Some("3:11")),
            (&["services", "payment", "region", "south"], Some("6:12")),
            (&["services", "payment", "region", "west"], Some("5:1")),
            (&["retries", "steps", "place-order/pay"], Some("9:3")),
            (&["grants", "order", "services", "payment"], Some("11:19")),
            (&["services", "payment", "key"], Some("13:1")),
            (&["jetstream", "stream"], None),
            (&[], None),
        ] {
            let expected = place.map(|place| format!("kontor.toml:{place}"));
            assert_eq!(places.of(key), expected, "{key:?}");
        }
        assert_eq!(Places::default().of(&["log"]), None);
    }
}
