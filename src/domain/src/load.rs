//! When an edge has too much to do, and whose new calls are then turned away. What runs goes on.

pub mod lag;
pub mod memory;
pub mod share;

/// Why a call was turned away before anything was done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The memory is nearly used up.
    Memory,
    /// The threads do not keep up.
    Lag,
    /// There are as many calls as there may be.
    Calls,
    /// The key has more than its share of the calls that there may be.
    KeyShare,
}

impl Shed {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Lag, Self::Calls, Self::KeyShare];

    /// The stable word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Lag => "lag",
            Self::Calls => "calls",
            Self::KeyShare => "key_share",
        }
    }
}
