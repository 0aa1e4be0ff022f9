//! Names that somebody may have meant who asked for one that is not there.

use tokenroute_domain::catalog::{Catalog, MODEL_LEN_MAX};

/// Most names that are told.
const NEAR_MAX: usize = 5;
/// One mistake is forgiven for so many characters, and two at least.
const CHARACTERS_A_MISTAKE: usize = 4;

/// The nearest names, the likeliest first: those that end in what was asked for, those that contain it, and
/// those that differ by a few mistakes.
pub(super) fn names<'a>(catalog: &'a Catalog, asked: &str) -> Vec<&'a str> {
    if asked.is_empty() || asked.len() > MODEL_LEN_MAX {
        return Vec::new();
    }
    let listed = catalog.listed().iter().map(|listed| &*listed.id);
    let names = catalog.patterns().map(|pattern| &**pattern).chain(listed);
    let mut near: Vec<_> = names.filter_map(|name| Some((distance(name, asked)?, name))).collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// How far a name is from what was asked for; `None`: too far.
fn distance(name: &str, asked: &str) -> Option<usize> {
    let (name, asked) = (name.to_ascii_lowercase(), asked.to_ascii_lowercase());
    if name.strip_suffix(&asked).is_some_and(|before| before.is_empty() || before.ends_with('/')) {
        return Some(0);
    }
    if name.contains(&asked) {
        return Some(1);
    }
    let mistakes_max = (asked.len() / CHARACTERS_A_MISTAKE).max(2);
    if name.len().abs_diff(asked.len()) > mistakes_max {
        return None;
    }
    let mistakes = strsim::osa_distance(&name, &asked);
    (mistakes <= mistakes_max).then(|| mistakes.saturating_add(1))
}
