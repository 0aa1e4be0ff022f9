//! Who has changed what.

use serde::{Deserialize, Serialize};

/// A page of the audit log: `GET /api/v1/admin/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Audit {
    /// Its rows, the latest first.
    pub data: Vec<Entry>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// A change. Each is written in the transaction that makes it, and chained to the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = AuditEntry))]
pub struct Entry {
    /// Its place, from 1 on without a gap.
    pub sequence: u64,
    /// When it was done.
    pub time: String,
    /// Who did it, such as `user usr_…`, `partner NAME` or, at the server's own terminal, `uid 1000`.
    pub actor: String,
    /// What was done, such as `key.create`.
    pub action: String,
    /// To what, by its ID.
    pub subject: String,
    /// What else is to be known of it: a JSON object.
    pub detail: String,
}
