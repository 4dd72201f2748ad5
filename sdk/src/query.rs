//! Queries: questions that a service answers, mostly from its read model.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::{Error, Rejection, json, schema};

/// A question that a service answers. The type that implements it is the question's arguments.
///
/// ```
/// use kontor_sdk::{db, prelude::*};
///
/// #[derive(Deserialize, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Stock {
///     product_id: String,
/// }
///
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct StockAnswer {
///     available: u64,
/// }
///
/// impl Query for Stock {
///     const NAME: &str = "stock";
///     const DESCRIPTION: &str = "How much of a product is left.";
///     type Answer = StockAnswer;
///
///     fn answer(self) -> Result<StockAnswer, Error> {
///         let sql = "SELECT available FROM products WHERE id = ?1";
///         let stock = db::query_one(sql, params![&self.product_id])?;
///         stock.ok_or_else(|| Rejection::new("not-found", "There is no such product.").into())
///     }
/// }
/// ```
pub trait Query: DeserializeOwned + JsonSchema {
    /// The name of the query, unique in its service: `details`.
    const NAME: &'static str;

    /// One or two sentences for the API page.
    const DESCRIPTION: &'static str;

    /// The answer.
    type Answer: Serialize + JsonSchema;

    /// Answers the query. May read the read model, ask other services and read the configuration.
    fn answer(self) -> Result<Self::Answer, Error>;
}

/// A [`Query`] with its types erased.
pub(crate) struct Handler {
    pub(crate) name: &'static str,
    /// From the JSON text of the arguments to that of the answer.
    pub(crate) answer: fn(&str) -> Result<String, Error>,
    pub(crate) describe: fn() -> manifest::Query,
}

impl Handler {
    pub(crate) fn of<Q: Query>() -> Self {
        Self {
            name: Q::NAME,
            answer: |arguments| {
                let query: Q = serde_json::from_str(arguments).map_err(|error| {
                    Rejection::new("invalid-arguments", format!("The arguments cannot be read: {error}."))
                })?;
                query.answer().map(|answer| json::text(&answer))
            },
            describe: || manifest::Query {
                name: Q::NAME.to_owned(),
                description: Q::DESCRIPTION.to_owned(),
                arguments: json::text(&schema::of_input::<Q>()),
                answer: json::text(&schema::of_output::<Q::Answer>()),
            },
        }
    }
}
