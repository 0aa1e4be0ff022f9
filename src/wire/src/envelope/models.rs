//! Lists of models, as `GET /v1/models` gives them: in OpenAI's form, and what each costs beside it.

use bytes::Bytes;
use tokenroute_domain::money::{LongContext, NanoUsd, PERMILLE, Price, Rate, TierFactors};

use super::push_json_string;

/// Nano-USD in a thousandth of a USD: a factor of so many thousandths is written as an amount is.
const NANO_PER_PERMILLE: i64 = 1_000_000;

/// A model as a client reads it.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// The name to ask for.
    pub id: &'a str,
    /// When it was added, in seconds since the Unix epoch.
    pub created: u64,
    /// Who runs it.
    pub owner: &'a str,
    /// What it costs, if that is known.
    pub price: Option<&'a Price>,
}

/// The answer to `GET /v1/models`.
#[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed in an argument's bound")]
pub fn models<'a>(list: impl IntoIterator<Item = Model<'a>>) -> Bytes {
    let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (index, one) in list.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_model(&mut out, one);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// The answer to `GET /v1/models/{id}`.
pub fn model(one: Model<'_>) -> Bytes {
    let mut out = Vec::with_capacity(256);
    push_model(&mut out, one);
    out.into()
}

fn push_model(out: &mut Vec<u8>, Model { id, created, owner, price }: Model<'_>) {
    out.extend_from_slice(b"{\"id\":");
    push_json_string(out, id);
    out.extend_from_slice(b",\"object\":\"model\",\"created\":");
    out.extend_from_slice(created.to_string().as_bytes());
    out.extend_from_slice(b",\"owned_by\":");
    push_json_string(out, owner);
    if let Some(price) = price {
        out.extend_from_slice(b",\"pricing\":");
        push_price(out, price);
    }
    out.push(b'}');
}

/// Decimal strings in USD: rates for a million tokens, `request` for each one. Kinds that cost as all
/// input or all output does are left out, as is what costs nothing extra.
fn push_price(out: &mut Vec<u8>, price: &Price) {
    let mut members = Members { out, any: false };
    members.begin();
    for (kinds, usual) in [(&price.inputs()[..], price.input), (&price.outputs()[..], price.output)]
    {
        for (place, (name, rate)) in kinds.iter().enumerate() {
            if place == 0 || *rate != usual {
                let Rate(nano) = *rate;
                members.amount(name, NanoUsd(nano));
            }
        }
    }
    if price.request != NanoUsd::ZERO {
        members.amount("request", price.request);
    }
    if let Some(long) = price.long_context {
        let LongContext { above_tokens, input_permille, output_permille } = long;
        members.key("long_context");
        let mut inner = Members { out: members.out, any: false };
        inner.begin();
        inner.key("above_tokens");
        inner.out.extend_from_slice(above_tokens.to_string().as_bytes());
        inner.factor("input", input_permille);
        inner.factor("output", output_permille);
        inner.end();
    }
    let TierFactors { flex, priority, scale } = price.service_tiers;
    let tiers = [("flex", flex), ("priority", priority), ("scale", scale)];
    if tiers.iter().any(|(_, factor)| *factor != PERMILLE) {
        members.key("service_tiers");
        let mut inner = Members { out: members.out, any: false };
        inner.begin();
        for (name, factor) in tiers.iter().filter(|(_, factor)| *factor != PERMILLE) {
            inner.factor(name, *factor);
        }
        inner.end();
    }
    members.key("version");
    push_json_string(members.out, &price.version);
    members.end();
}

/// Writes the members of an object, one after the other.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    any: bool,
}

impl Members<'_> {
    fn begin(&mut self) {
        self.out.push(b'{');
    }

    fn end(&mut self) {
        self.out.push(b'}');
    }

    fn key(&mut self, name: &str) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
        push_json_string(self.out, name);
        self.out.push(b':');
    }

    fn amount(&mut self, name: &str, amount: NanoUsd) {
        self.key(name);
        push_json_string(self.out, &amount.to_string());
    }

    fn factor(&mut self, name: &str, permille: u32) {
        self.amount(name, NanoUsd(i64::from(permille).saturating_mul(NANO_PER_PERMILLE)));
    }
}
