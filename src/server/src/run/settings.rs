//! Settings that are kept in the database: part of the first plan, and watched from then on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokenroute_store::vault::Vault;
use tokenroute_store::{Database, Error, StoredSettings};
use tokio::sync::watch;
use tokio::time::{error::Elapsed, sleep, timeout};

use crate::config::{self, Kept, Plan};

/// How often it is asked whether they changed: every edge has a change within a second.
const POLL: Duration = Duration::from_millis(250);
/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Puts what is kept into the first plan. Without anything kept the plan is the file's.
pub(super) async fn merge(
    plan: Plan,
    path: Option<&Path>,
    (database, vault): (&Database, &Arc<Vault>),
) -> anyhow::Result<(Plan, Kept)> {
    let settings = database.settings().await.context("the settings cannot be read")?;
    let kept = Kept { settings: Arc::new(settings), vault: Some(Arc::clone(vault)) };
    if kept.settings.settings.is_empty() {
        return Ok((plan, kept));
    }
    match config::load_with(path, &config::environment, &kept) {
        Ok(plan) => Ok((plan, kept)),
        Err(problems) => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
            anyhow::bail!(
                "the settings in the database do not fit the configuration file:{}\nchange the file, or take \
                 a setting out of the database with `tokenrouted settings remove`",
                lines.concat()
            )
        }
    }
}

/// Keeps `known` up to date until nobody has an ear for it or `stop` says so. While the database is away the
/// settings stay as they were.
pub(super) async fn watch(
    database: Database,
    known: watch::Sender<Arc<StoredSettings>>,
    mut stop: watch::Receiver<bool>,
) {
    let looking = async {
        let mut away = false;
        while !known.is_closed() {
            sleep(POLL).await;
            let version = known.borrow().version;
            let looked = timeout(LOOK_MAX, look(&database, version)).await;
            match looked.unwrap_or_else(late) {
                Ok(Some(settings)) => {
                    known.send_replace(Arc::new(settings));
                }
                Ok(None) => {}
                Err(error) if !away => {
                    tracing::warn!(%error, "changes of settings are not seen: they stay as they are");
                    away = true;
                    continue;
                }
                Err(_) => continue,
            }
            if std::mem::take(&mut away) {
                tracing::info!("changes of settings are seen again");
            }
        }
    };
    tokio::select! {
        () = looking => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// All settings, if they are no longer those of `version`.
async fn look(database: &Database, version: i64) -> Result<Option<StoredSettings>, Error> {
    if database.settings_version().await? == version {
        return Ok(None);
    }
    database.settings().await.map(Some)
}

fn late(_: Elapsed) -> Result<Option<StoredSettings>, Error> {
    Err(Error::Unavailable("it does not answer in time".to_owned()))
}
