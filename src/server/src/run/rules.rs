//! What the management plane holds settings against before it stores them: the checks that a reload makes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenroute_api::error::Flaw;
use tokenroute_control::{Fixed, Later, Rules, Unsound, Whole};
use tokenroute_store::StoredSettings;
use tokenroute_store::vault::Vault;

use crate::config::{self, Base, Kept, ProviderPlan};

/// The checks of a start, with the file as it is at that moment.
#[derive(Debug)]
pub(super) struct FileRules {
    path: Option<PathBuf>,
    vault: Arc<Vault>,
}

impl FileRules {
    /// Those of the file at `path`; without one, of the built-in defaults.
    pub(super) fn new(path: Option<&Path>, vault: &Arc<Vault>) -> Self {
        Self { path: path.map(Path::to_owned), vault: Arc::clone(vault) }
    }
}

impl Rules for FileRules {
    fn judge(&self, settings: StoredSettings) -> Later<'_, Result<Whole, Unsound>> {
        let kept = Kept { settings: Arc::new(settings), vault: Some(Arc::clone(&self.vault)) };
        let path = self.path.clone();
        let judging = tokio::task::spawn_blocking(move || {
            config::judge(path.as_deref(), &config::environment, &kept)
        });
        Box::pin(async move {
            match judging.await {
                Ok(judged) => judged.map(whole).map_err(unsound),
                Err(_ended) => Err(Unsound::Flawed(vec![flaw("file", "cannot be checked now")])),
            }
        })
    }
}

fn flaw(path: &str, message: &str) -> Flaw {
    Flaw { path: path.to_owned(), message: message.to_owned() }
}

fn unsound(found: config::Unsound) -> Unsound {
    match found {
        config::Unsound::DefinedInFile(kind, name) => Unsound::DefinedInFile(kind, name),
        config::Unsound::Problems(problems) => {
            let flaws = problems.iter().map(|one| flaw(&one.path, &one.message));
            Unsound::Flawed(flaws.collect())
        }
    }
}

fn whole(found: config::Whole) -> Whole {
    let fixed = found.fixed.into_iter();
    let fixed =
        fixed.map(|(kind, name, source, content)| Fixed { kind, name, source, content }).collect();
    let origin = |provider: &ProviderPlan| match &provider.base {
        Base::At(origin) => Some((provider.name.to_string(), origin.address())),
        Base::Demo => None,
    };
    Whole { fixed, origins: found.plan.providers.iter().filter_map(origin).collect() }
}
