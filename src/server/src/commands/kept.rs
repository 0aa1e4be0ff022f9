//! What the database keeps of settings, for commands that change nothing: it is read if it is there and of
//! this program's version.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokenroute_store::Database;
use tokio::time::timeout;

use super::Terminal;
use crate::config::{self, DatabasePlan, Environment, Kept, StatePlan};
use crate::state;

/// How long the database may take to answer.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What is kept. Where that cannot be known, it is said that only the file was looked at.
pub(super) fn look(
    config: Option<&Path>,
    environment: Environment<'_>,
    terminal: &mut Terminal<'_>,
) -> Option<Kept> {
    // What is wrong with the file is told by whoever reads all of it.
    let plan = config::load_state(config, environment).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok();
    let read = runtime.map(|runtime| {
        runtime.block_on(async {
            let read = timeout(LOOK_MAX, read(&plan)).await;
            read.unwrap_or_else(|_late| Err("it does not answer".to_owned()))
        })
    });
    match read.unwrap_or_else(|| Err("the system gives no room for it".to_owned())) {
        Ok(kept) => kept,
        Err(why) => {
            terminal.tell(format_args!("only the file is looked at, not the database: {why}"));
            None
        }
    }
}

/// What is kept; `None` where there is no database yet.
async fn read(plan: &StatePlan) -> Result<Option<Kept>, String> {
    let (version, path) = match &plan.database {
        DatabasePlan::Sqlite => {
            let path = plan.dir.join(state::DATABASE);
            (Database::version_of_file(&path).await, Some(path))
        }
        DatabasePlan::Postgres(url, ca_file) => {
            (Database::version_at(url.expose_secret(), ca_file.as_deref()).await, None)
        }
    };
    let version = version.map_err(|error| error.to_string())?;
    if version.present.is_none() && path.is_some() {
        return Ok(None);
    }
    if version.present != Some(version.wanted) {
        return Err("its schema is of another version: see `migrate --check`".to_owned());
    }
    let database = state::open_database(plan).await.map_err(|error| format!("{error:#}"))?;
    let settings = database.settings().await.map_err(|error| error.to_string())?;
    database.close().await;
    Ok(Some(Kept { settings: Arc::new(settings), vault: None }))
}
