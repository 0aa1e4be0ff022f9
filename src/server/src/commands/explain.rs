//! `tokenrouted explain --model M`: which targets answer for a model, in which order and why.
//!
//! The order is not worked out here: the data plane's own rule is asked, with the targets as they stand in
//! the node that runs, if one does. It changes nothing and asks no provider.

mod json;
mod live;
mod near;
mod order;
mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokenroute_domain::catalog::{Catalog, Route, Target};
use tokenroute_domain::routing::Outlook;

use self::live::{Live, Page};
use self::order::Order;
use super::{End, Terminal, cell};
use crate::config::RoutesPlan;

/// All that is told of a model.
struct Explanation {
    route: Arc<Route>,
    /// The node that was asked.
    address: SocketAddr,
    /// How its targets stand, or why that is not known.
    node: Result<Page, String>,
    /// The route's targets, in its order.
    targets: Vec<Told>,
    order: Order,
}

/// What is told of one target of the route.
struct Told {
    /// Of a thousand calls that come now, how many try it first.
    share_permille: u32,
    outlook: Outlook,
    /// What the node says of it; `None`: nothing.
    live: Option<Live>,
}

/// Explains what becomes of calls for a model, as text or JSON.
pub(super) fn explain(
    plan: &RoutesPlan,
    (model, json): (&str, bool),
    terminal: &mut Terminal<'_>,
) -> End {
    let Some(route) = plan.catalog.find(model) else {
        terminal.tell(unknown(&plan.catalog, model));
        return End::Mistaken;
    };
    let address = reachable(plan.admin);
    let node = live::ask(address, live::ANSWER_MAX).map_err(|error| format!("{error:#}"));
    let explanation = Explanation::new(&plan.catalog, route, (address, node));
    terminal.say(if json { json::of(&explanation) } else { text::of(&explanation) })
}

impl Explanation {
    fn new(
        catalog: &Catalog,
        route: Arc<Route>,
        (address, node): (SocketAddr, Result<Page, String>),
    ) -> Self {
        let find = |target: &Target| {
            let page = node.as_ref().ok()?;
            // Of what a wildcard was filled in with, a node tells only what there is to tell.
            let configured = catalog.targets().get(target.slot.0);
            page.find(&target.name).cloned().or_else(|| {
                let configured = configured.filter(|one| one.name != target.name)?;
                page.find(&configured.name).map(|_| Live::fresh(&target.name))
            })
        };
        let live: Vec<_> = route.targets.iter().map(find).collect();
        let outlooks: Vec<_> =
            live.iter().map(|live| live.as_ref().map_or(live::WELL, Live::outlook)).collect();
        let shares = order::shares(&route, &outlooks);
        let order = order::of(&route, &outlooks);
        let told = live.into_iter().zip(outlooks).zip(shares);
        let targets = told
            .map(|((live, outlook), share_permille)| Told { share_permille, outlook, live })
            .collect();
        Self { route, address, node, targets, order }
    }

    /// Whether the model has a route of its own, and not only one for all names that begin so.
    fn is_exact(&self) -> bool {
        self.route.model == self.route.pattern
    }

    fn name(&self, place: usize) -> &str {
        self.route.targets.get(place).map_or("", |target| &target.name)
    }
}

fn unknown(catalog: &Catalog, model: &str) -> String {
    let near = near::names(catalog, model);
    let hint = if near.is_empty() {
        "see GET /v1/models for the names that are".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    format!("no route answers for {}: {hint}", cell(model))
}

/// Where a node that listens everywhere can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host @ (IpAddr::V4(_) | IpAddr::V6(_)) => host,
    };
    SocketAddr::new(host, address.port())
}
