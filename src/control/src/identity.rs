//! Who is asking.

#[expect(dead_code, reason = "the endpoints that take them come next")]
pub(crate) mod caller;
