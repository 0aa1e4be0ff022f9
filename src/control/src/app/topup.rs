//! More credit: where a person pays for it. Nobody pays by themselves here.

use tokenroute_api::topup::{NewTopup, Topup};

use super::Problem;
use super::text::movable;

/// Where to pay. Until there is a billing module, what an operator does in its place.
pub(crate) fn create(wish: &NewTopup) -> Result<Topup, Problem> {
    movable("amount_usd", &wish.amount_usd)?;
    Err(Problem::NotConfigured {
        reason: "billing_not_configured",
        message:
            "no payments are set up here: an administrator adds credit with `tokenrouted credit \
                  add --account NAME --amount USD` or POST /api/v1/admin/accounts/{id}/credit"
                .to_owned(),
    })
}
