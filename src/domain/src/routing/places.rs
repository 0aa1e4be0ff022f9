//! Sets of a route's targets.

use super::TARGETS_MAX;

/// Some of a route's targets, by their places in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(u64);

impl Places {
    /// The set with this place too. A place that no set can hold is left out.
    pub(super) fn with(self, place: usize) -> Self {
        Self(self.0 | bit(place))
    }

    pub(super) fn without(self, place: usize) -> Self {
        Self(self.0 & !bit(place))
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 & bit(place) != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(super) fn first(self) -> Option<usize> {
        (!self.is_empty()).then(|| usize::try_from(self.0.trailing_zeros()).unwrap_or_default())
    }

    /// Every place, in order.
    pub(super) fn iter(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let place = self.first()?;
            self = self.without(place);
            Some(place)
        })
    }

    /// Those that fit.
    pub(super) fn only(self, fit: impl Fn(usize) -> bool) -> Self {
        self.iter().filter(|place| fit(*place)).collect()
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::default(), Self::with)
    }
}

fn bit(place: usize) -> u64 {
    let place = u32::try_from(place).ok().filter(|_| place < TARGETS_MAX);
    place.and_then(|place| 1_u64.checked_shl(place)).unwrap_or_default()
}
