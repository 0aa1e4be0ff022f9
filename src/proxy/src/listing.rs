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

    /// One model, also one that only a prefix answers for.
    pub(crate) fn model(
        &self,
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
}

fn entry<'a>((one, route): &'a (&Listed, Arc<Route>), now: Timestamp) -> Model<'a> {
    let price = price(route, now).map(|price| &**price);
    Model { id: &one.id, created: one.created, owner: &one.owner, price }
}

/// The price of the first target that has one: that is where calls go first.
fn price(route: &Route, now: Timestamp) -> Option<&Arc<Price>> {
    route.targets.iter().find_map(|target| target.prices.at(now))
}
