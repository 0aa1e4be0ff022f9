//! What `GET /v1/models` and `GET /v1/models/{id}` answer: the models that a key may be routed to, at the
//! prices that hold.

use std::sync::Arc;

use bytes::Bytes;
use tokenroute_domain::admission::{self, Refusal};
use tokenroute_domain::catalog::{Catalog, Listed, Route};
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::money::Price;
use tokenroute_domain::time::Timestamp;
use tokenroute_wire::envelope::{self, Model};

/// The lists that most keys read, written once.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Every model, and every model with a price.
    all: Bytes,
    priced: Bytes,
    /// The prices in them hold so long, if not for ever.
    until: Option<Timestamp>,
}

impl Listing {
    /// Writes the lists with the prices of `now`.
    pub(crate) fn new(catalog: &Catalog, now: Timestamp) -> Self {
        let priced = |route: &Route| route.targets.iter().any(|one| one.prices.at(now).is_some());
        let all = catalog.listed().iter().filter_map(|one| Some((one, catalog.find(&one.id)?)));
        let all: Vec<_> = all.collect();
        Self {
            all: envelope::models(all.iter().map(|one| entry(one, now))),
            priced: envelope::models(
                all.iter().filter(|(_, route)| priced(route)).map(|one| entry(one, now)),
            ),
            until: catalog.next_price_change(now),
        }
    }

    /// Every model that `key` may be routed to.
    pub(crate) fn models(&self, key: &ApiKey, catalog: &Catalog, now: Timestamp) -> Bytes {
        let holds = self.until.is_none_or(|until| now < until);
        if holds && !key.terms.restrict_routes() {
            return if key.is_metered() { self.priced.clone() } else { self.all.clone() };
        }
        let listed = catalog.listed().iter();
        let admitted = listed.filter_map(|one| {
            let admission = admission::decide(key, catalog, &one.id, now).ok()?;
            Some((one, admission.route))
        });
        let admitted: Vec<_> = admitted.collect();
        envelope::models(admitted.iter().map(|one| entry(one, now)))
    }
}

/// One model, also one that only a prefix answers for.
pub(crate) fn model(
    key: &ApiKey,
    catalog: &Catalog,
    (name, now): (&str, Timestamp),
) -> Result<Bytes, Refusal> {
    let route = admission::decide(key, catalog, name, now)?.route;
    let listed = catalog.listed();
    let known = listed.binary_search_by(|one| (*one.id).cmp(name)).ok();
    if let Some(one) = known.and_then(|place| listed.get(place)) {
        return Ok(envelope::model(entry(&(one, route), now)));
    }
    let owner = route.targets.first().map_or("", |target| target.provider_name());
    let price = price(&route, now).map(|price| &**price);
    Ok(envelope::model(Model { id: name, created: 0, owner, price }))
}

fn entry<'a>((one, route): &'a (&Listed, Arc<Route>), now: Timestamp) -> Model<'a> {
    let price = price(route, now).map(|price| &**price);
    Model { id: &one.id, created: one.created, owner: &one.owner, price }
}

/// The price of the first target that has one: that is where calls go first.
fn price(route: &Route, now: Timestamp) -> Option<&Arc<Price>> {
    route.targets.iter().find_map(|target| target.prices.at(now))
}

#[cfg(test)]
mod tests {
    use tokenroute_domain::catalog::{ProviderIndex, Target, TargetSlot};
    use tokenroute_domain::id::{AccountId, KeyId};
    use tokenroute_domain::key::{Funding, Terms};
    use tokenroute_domain::money::{Dated, Prices, Rate};

    use super::*;

    const NOW: Timestamp = Timestamp(10);

    fn catalog() -> Catalog {
        let dated = |from, rate| Dated {
            from: Timestamp(from),
            price: Arc::new(Price::flat(Rate(rate), Rate(0))),
        };
        let route = |model: &str, targets: &[(&str, Prices)]| Route {
            model: Arc::from(model),
            pattern: Arc::from(model),
            targets: targets
                .iter()
                .map(|(name, prices)| Target {
                    name: Arc::from(*name),
                    provider: ProviderIndex(0),
                    upstream_model: Arc::from("m"),
                    prices: prices.clone(),
                    weight: 1,
                    rank: 0,
                    slot: TargetSlot(0),
                    prefill: false,
                    context_tokens: None,
                    output_tokens_max: None,
                    image_tokens_max: None,
                })
                .collect(),
            policy: Arc::default(),
        };
        let listed = ["a/one", "b/two", "mix"].map(|id| Listed {
            id: Arc::from(id),
            created: 7,
            owner: Arc::from("o"),
        });
        let one = Prices::new(vec![dated(0, 1_000_000_000), dated(20, 2_000_000_000)]);
        let routes = vec![
            route("a/one", &[("a/one", one.clone())]),
            route("b/two", &[("b/two", Prices::default())]),
            route("mix", &[("b/two", Prices::default()), ("a/one", one)]),
            route("b/*", &[("b/*", Prices::default())]),
        ];
        Catalog::new(routes, listed.into())
    }

    fn key(funding: Funding, terms: Terms) -> ApiKey {
        let terms = Arc::new(terms);
        let (id, account) = (KeyId::new(NOW, 1), AccountId::new(NOW, 1));
        ApiKey { id, account, funding, expires: None, terms }
    }

    fn only(models: Option<&str>, providers: Option<&str>) -> Terms {
        let list = |name: &str| vec![Arc::from(name)];
        Terms { models: models.map(list), providers: providers.map(list), ..Terms::default() }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    /// The listed names, in order.
    fn names(key: &ApiKey, now: Timestamp) -> Vec<String> {
        let catalog = catalog();
        let body = Listing::new(&catalog, NOW).models(key, &catalog, now);
        let names = text(&body).split("{\"id\":\"").skip(1);
        names.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_key_reads_of_what_it_may_be_routed_to() {
        let free = Funding::Unmetered;
        assert_eq!(names(&key(free, Terms::default()), NOW), ["a/one", "b/two", "mix"]);
        assert_eq!(names(&key(Funding::Prepaid, Terms::default()), NOW), ["a/one", "mix"]);
        assert_eq!(names(&key(free, only(Some("a/*"), None)), NOW), ["a/one"]);
        assert_eq!(names(&key(free, only(None, Some("b"))), NOW), ["b/two", "mix"]);
        assert_eq!(names(&key(Funding::Prepaid, only(None, Some("b"))), NOW), [""; 0]);
    }

    #[test]
    fn the_list_that_was_written_once_is_given_while_its_prices_hold() {
        let catalog = catalog();
        let listing = Listing::new(&catalog, NOW);
        let key = key(Funding::Unmetered, Terms::default());
        let list = |now| listing.models(&key, &catalog, Timestamp(now));
        assert_eq!(list(10).as_ptr(), list(19).as_ptr());
        assert!(text(&list(19)).contains("\"input\":\"1.00\""));
        assert!(!text(&list(20)).contains("\"input\":\"1.00\""));
        assert!(text(&list(20)).contains("\"input\":\"2.00\""));
        assert_eq!(names(&key, Timestamp(20)), names(&key, NOW));
    }

    #[test]
    fn one_model_is_told_of_like_in_the_list() {
        let catalog = catalog();
        let free = key(Funding::Unmetered, Terms::default());
        let one = model(&free, &catalog, ("a/one", NOW)).unwrap();
        let all = Listing::new(&catalog, NOW).models(&free, &catalog, NOW);
        assert!(text(&all).contains(text(&one)));
        let any = model(&free, &catalog, ("b/any", NOW)).unwrap();
        assert!(text(&any).contains("\"owned_by\":\"b\"") && !text(&any).contains("pricing"));
        let refused = |key: &ApiKey, name| model(key, &catalog, (name, NOW)).unwrap_err();
        assert_eq!(refused(&free, "none"), Refusal::ModelNotFound);
        let prepaid = key(Funding::Prepaid, Terms::default());
        assert_eq!(refused(&prepaid, "b/two"), Refusal::ModelNotPriced);
        let other = key(Funding::Unmetered, only(None, Some("b")));
        assert_eq!(refused(&other, "a/one"), Refusal::ModelNotAllowed);
    }
}
