//! Identifiers: ULIDs (<https://github.com/ulid/spec>), sortable by creation time, a type for each kind of thing.

use std::fmt;

use ulid::Ulid;

use crate::time::Timestamp;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// What every identifier of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an identifier from the time and 80 random bits (the rest of `chance` is ignored).
            pub const fn new(now: Timestamp, chance: u128) -> Self {
                Self(Ulid::from_parts(now.millis(), chance))
            }

            /// Adds what `Display` writes to `out`, at a fraction of its cost.
            pub fn push_to(&self, out: &mut Vec<u8>) {
                let mut buffer = [0; ulid::ULID_LEN];
                out.extend_from_slice($prefix.as_bytes());
                out.extend_from_slice(self.0.array_to_str(&mut buffer).as_bytes());
            }

            /// What `Display` writes, at a fraction of its cost.
            pub fn text(&self) -> String {
                let mut buffer = [0; ulid::ULID_LEN];
                [$prefix, self.0.array_to_str(&mut buffer)].concat()
            }

            /// Reads what `Display` wrote; anything else is `None`.
            pub fn parse(text: &str) -> Option<Self> {
                Ulid::from_string(text.strip_prefix($prefix)?).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = [0; ulid::ULID_LEN];
                f.write_str($prefix)?;
                f.write_str(self.0.array_to_str(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// One client request, from its head to its record. Shown to the client as `x-request-id`.
    CallId, "req_"
);
id!(
    /// One API key. Names the key in listings and records; it is no secret and opens nothing.
    KeyId, "key_"
);
id!(
    /// Who pays.
    AccountId, "acc_"
);
id!(
    /// Who has logged in.
    UserId, "usr_"
);
id!(
    /// One run of an edge, from its start to its end: a process that is started anew is another one.
    NodeId, "node_"
);
id!(
    /// One transaction of the ledger.
    TransactionId, "txn_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let id = KeyId::new(Timestamp(1_800_000_000_000_000), 42);
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        let mut pushed = Vec::new();
        id.push_to(&mut pushed);
        assert_eq!((id.text(), pushed), (id.to_string(), id.to_string().into_bytes()));
        assert_eq!(CallId::parse(&id.to_string()), None);
        assert_eq!(KeyId::parse("key_"), None);
    }

    #[test]
    fn sorts_by_time() {
        let early = CallId::new(Timestamp(1_000_000), u128::MAX);
        let late = CallId::new(Timestamp(2_000_000), 0);
        assert!(early.to_string() < late.to_string());
    }
}
