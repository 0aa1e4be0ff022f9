//! The state folder: the database, the secret that keys are hashed under, and the keys that stored secrets are
//! encrypted under, for their owner alone.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use secrecy::ExposeSecret;
use tokenroute_domain::key::Pepper;
use tokenroute_store::Database;
use tokenroute_store::vault::Vault;
use zeroize::Zeroizing;

use crate::config::{DatabasePlan, StatePlan};

/// Name of the database in the state folder.
pub(crate) const DATABASE: &str = "tokenroute.db";
/// Length of a pepper file without its line end: 32 bytes in hexadecimal.
const PEPPER_DIGITS: usize = 64;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// An opened state folder.
#[derive(Debug)]
pub(crate) struct State {
    /// Where the database is.
    pub(crate) database: PathBuf,
    /// What keys are hashed under.
    pub(crate) pepper: Pepper,
    /// What stored secrets are encrypted under.
    pub(crate) vault: Arc<Vault>,
}

/// Where the SQLite database of a plan is, if it has one.
pub(crate) fn database(plan: &StatePlan) -> PathBuf {
    plan.dir.join(DATABASE)
}

/// The database of a plan, with its schema up to date. Of SQLite, the state folder is there already.
pub(crate) async fn open_database(plan: &StatePlan) -> anyhow::Result<Database> {
    let opened = match &plan.database {
        DatabasePlan::Sqlite => Database::open(&database(plan)).await,
        DatabasePlan::Postgres(url, ca_file) => {
            Database::connect(url.expose_secret(), ca_file.as_deref()).await
        }
    };
    opened.context("the database cannot be opened")
}

/// Opens the state folder of a plan, and makes it, its pepper and its vault if they are not there.
pub(crate) fn open(plan: &StatePlan) -> anyhow::Result<State> {
    let folder = &plan.dir;
    let describe = || format!("the state folder {}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(describe)?;
    ensure!(
        fs::metadata(folder).with_context(describe)?.mode() & OTHERS == 0,
        "{} is open to others: chmod 700 it",
        describe()
    );
    let database = database(plan);
    ensure!(
        plan.pepper_file.exists() || !database.exists(),
        "the pepper file {} is gone although there is a database: restore it, no key works without",
        plan.pepper_file.display()
    );
    let pepper = read_pepper(&plan.pepper_file)
        .with_context(|| format!("the pepper file {}", plan.pepper_file.display()))?;
    let vault = open_vault(&plan.vault_file)
        .with_context(|| format!("the vault file {}", plan.vault_file.display()))?;
    Ok(State { database, pepper, vault: Arc::new(vault) })
}

fn open_vault(path: &Path) -> anyhow::Result<Vault> {
    if !path.exists() {
        let mut chance = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *chance)?;
        place(path, |temporary| Ok(Vault::create(temporary, &chance)?))?;
    }
    Ok(Vault::open(path)?)
}

fn read_pepper(path: &Path) -> anyhow::Result<Pepper> {
    if !path.exists() {
        make_pepper(path)?;
    }
    ensure!(fs::metadata(path)?.mode() & OTHERS == 0, "is readable by others: chmod 600 it");
    let text = fs::read_to_string(path)?;
    let Some(secret) = parse_pepper(text.trim_end()) else {
        bail!("is not 64 hexadecimal digits; restore it: without it no key works");
    };
    Ok(Pepper::new(&secret))
}

/// Makes a pepper.
fn make_pepper(path: &Path) -> anyhow::Result<()> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret)?;
    let mut text = String::with_capacity(PEPPER_DIGITS);
    for byte in secret {
        write!(text, "{byte:02x}")?;
    }
    place(path, |temporary| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(temporary)?;
        writeln!(file, "{text}")?;
        Ok(file.sync_all()?)
    })
}

/// Makes a file, whole or not at all: a second process that starts at once reads the same one.
fn place(path: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // A name that nobody has used: in a container the process that broke off here had our number.
    let temporary = path.with_extension(format!("{:032x}.new", chance()?));
    make(&temporary)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        Err(_) | Ok(()) => {}
    }
    // Things are about to be made under it, so it must not be lost with the power.
    let folder = path.parent().unwrap_or(path);
    Ok(fs::File::open(folder)?.sync_all()?)
}

fn parse_pepper(text: &str) -> Option<[u8; 32]> {
    if text.len() != PEPPER_DIGITS || !text.is_ascii() {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, place) in secret.iter_mut().zip((0..PEPPER_DIGITS).step_by(2)) {
        *byte = u8::from_str_radix(text.get(place..place.saturating_add(2))?, 16).ok()?;
    }
    Some(secret)
}

/// 256 random bits of the operating system, if it has any.
pub(crate) fn chance_bytes() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

/// 128 random bits of the operating system.
pub(crate) fn chance() -> anyhow::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(u128::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;
    use tokenroute_domain::key::RawKey;

    use super::*;

    fn plan(folder: &TempDir) -> StatePlan {
        let dir = folder.path().join("a/b");
        let (redis_url, database) = Default::default();
        StatePlan {
            pepper_file: dir.join("pepper"),
            vault_file: dir.join("vault"),
            dir,
            redis_url,
            redis_authorities: None,
            database,
            names: None,
        }
    }

    fn refusal(plan: &StatePlan) -> String {
        format!("{:#}", open(plan).unwrap_err())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn makes_all_once_for_the_owner_alone() {
        let folder = TempDir::new().unwrap();
        let plan = plan(&folder);
        let key = RawKey::new([7; 32]);
        let first = open(&plan).unwrap().pepper.hash(&key);
        assert_eq!((mode(&plan.dir), mode(&plan.pepper_file)), (0o700, 0o600));
        assert_eq!(mode(&plan.vault_file), 0o600);
        let keys = fs::read_to_string(&plan.vault_file).unwrap();
        assert!(open(&plan).unwrap().pepper.hash(&key) == first);
        assert_eq!(fs::read_to_string(&plan.vault_file).unwrap(), keys);
        assert_eq!(fs::read_dir(&plan.dir).unwrap().count(), 2, "nothing but the two is left");
        let text = fs::read_to_string(&plan.pepper_file).unwrap();
        assert!(text.len() == PEPPER_DIGITS + 1 && parse_pepper(text.trim_end()) != Some([0; 32]));
    }

    #[test]
    fn refuses_what_others_may_enter_or_read() {
        let folder = TempDir::new().unwrap();
        let plan = plan(&folder);
        open(&plan).unwrap();
        for (path, good) in
            [(&plan.dir, 0o700), (&plan.pepper_file, 0o600), (&plan.vault_file, 0o600)]
        {
            fs::set_permissions(path, Permissions::from_mode(good | 0o040)).unwrap();
            assert!(refusal(&plan).contains("chmod"));
            fs::set_permissions(path, Permissions::from_mode(good)).unwrap();
        }
        open(&plan).unwrap();
    }

    #[test]
    fn never_replaces_a_pepper_that_was_lost_or_damaged() {
        let folder = TempDir::new().unwrap();
        let plan = plan(&folder);
        let database = open(&plan).unwrap().database;
        for damaged in ["", "00", &"g".repeat(PEPPER_DIGITS), &"é".repeat(PEPPER_DIGITS / 2)] {
            fs::write(&plan.pepper_file, damaged).unwrap();
            assert!(refusal(&plan).contains("64 hexadecimal digits"));
        }
        fs::write(&plan.vault_file, "1 00\n").unwrap();
        fs::remove_file(&plan.pepper_file).unwrap();
        assert!(refusal(&plan).contains("vault file"), "what is damaged is not replaced");
        fs::write(database, "").unwrap();
        fs::remove_file(&plan.pepper_file).unwrap();
        assert!(refusal(&plan).contains("restore it"));
        assert!(!plan.pepper_file.exists());
    }
}
