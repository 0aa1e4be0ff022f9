//! The command line: every command, its flags, and what they may say.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use tokenroute_domain::money::NanoUsd;
use tokenroute_store::SettingKind;

use super::terms::{AccountClearing, AccountFlags, KeyClearing, TermsFlags};
use super::{credit, keys};
use crate::run::Role;

/// What `tokenrouted` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway.
    Run {
        /// What this process does: everything, or with a shared database serve calls alone or keep the books
        /// alone.
        #[arg(long, value_enum, default_value_t)]
        role: Role,
    },
    /// Start the program anew, as its file is now, and leave the sockets and all new calls to it.
    Upgrade,
    /// Check a configuration file and print every problem in it.
    Check {
        /// The file to check.
        file: PathBuf,
    },
    /// Show which targets answer for a model, in which order and why, and how they stand in the node
    /// that runs. Providers that a variable brings up are known only where that variable is set.
    Explain {
        /// The model, as clients ask for it.
        #[arg(long, value_name = "NAME")]
        model: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Bring the database's schema up to this program's. Every other command does so too when it starts.
    Migrate {
        /// Change nothing; only say whether it is needed: exit code 1 if it is.
        #[arg(long)]
        check: bool,
    },
    /// Print a link with which one person makes itself an administrator: for the first one, who is shown one
    /// at the first start too, and for who has lost its password.
    SetupLink,
    /// Draw a secret for a partner, such as a storefront, and print it with the line that makes it known.
    InternalSecret {
        /// Whose it is, for the audit log.
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// What is done with the database alone.
    #[command(flatten)]
    Stored(StoredCommand),
}

/// What is done with the database, whether the gateway runs or not.
#[derive(Debug, Subcommand)]
pub(crate) enum StoredCommand {
    /// Make and show accounts: who pays.
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Add credit to an account and take it out.
    #[command(subcommand)]
    Credit(CreditCommand),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show the records of calls, the latest last.
    Records {
        /// Go on with new records as they come.
        #[arg(long)]
        follow: bool,
        /// How many of the records that are there.
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: u32,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show the entries of the ledger, the latest last: every movement of money there ever was.
    Ledger {
        /// Only those of this account; else of all, the house's among them.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50, value_name = "N",
            value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show what was used, by account and key. Calls are those that were answered; tokens, cost and
    /// charge are of all, since one that broke off costs what was received.
    Usage {
        /// How many days back, up to now.
        #[arg(long, default_value_t = 30, value_name = "N",
            value_parser = clap::value_parser!(u32).range(1..=3_660))]
        days: u32,
        /// Only this account's.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Check that the books are what they must be, and keep what is found. Exit code 1 if anything is.
    Reconcile {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show who has changed what, the latest first: accounts, keys, credit, settings.
    Audit {
        /// Check that no row was changed or taken out, and print the last row's hash: kept elsewhere, it
        /// shows later that the rows up to it are the same.
        #[arg(long, conflicts_with_all = ["limit", "json"])]
        verify: bool,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show what was found to be wrong with the books, and close what is seen to.
    #[command(subcommand)]
    Findings(FindingsCommand),
    /// Show settings that administrators have stored by the management API, and take them out.
    #[command(subcommand)]
    Settings(SettingsCommand),
}

/// What can be done with stored settings.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsCommand {
    /// List what is stored.
    List {
        /// Print one JSON object a line, with what each says.
        #[arg(long)]
        json: bool,
    },
    /// Take a setting out of the database, as where a node does not start because its file says the same. What
    /// refers to it is not looked at. Every node that runs has it within a second.
    Remove {
        /// What it is.
        #[arg(value_enum)]
        kind: Kind,
        /// Its name.
        name: String,
    },
}

/// What a stored setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Who answers calls.
    Provider,
    /// Which targets answer for a model.
    Route,
    /// Limits under a name.
    Tier,
    /// Which models and providers accounts may use.
    Policy,
}

impl From<Kind> for SettingKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Provider => Self::Provider,
            Kind::Route => Self::Route,
            Kind::Tier => Self::Tier,
            Kind::Policy => Self::Policy,
        }
    }
}

/// What can be done with findings.
#[derive(Debug, Subcommand)]
pub(crate) enum FindingsCommand {
    /// List what was found and still stands, the latest first.
    List {
        /// Closed ones, too.
        #[arg(long)]
        all: bool,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Close a finding that somebody has seen to. It comes again only if more is off than now; who
    /// closed it and why is kept for good.
    Close {
        /// Its ID, as `findings list` shows it.
        id: String,
        /// Why.
        #[arg(long, value_name = "TEXT", value_parser = credit::parse_note)]
        note: String,
    },
}

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Make an account.
    Create(NewAccount),
    /// List all accounts, the oldest first, with what they have.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Change an account's tier, policy and limits, everywhere within a second. What is not named stays.
    Set {
        /// Its name.
        name: String,
        /// Take this away first; repeat it for more.
        #[arg(long, value_name = "WHAT", value_enum)]
        clear: Vec<AccountClearing>,
        #[command(flatten)]
        terms: AccountFlags,
    },
    /// Show one account.
    Show {
        /// Its name.
        name: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// An account to be made.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("funding"))]
pub(crate) struct NewAccount {
    /// What its owner calls it.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Its calls are paid from a balance, which begins at nothing. The default.
    #[arg(long, group = "funding")]
    pub prepaid: bool,
    /// Its calls are recorded with their cost, and nothing is paid.
    #[arg(long, group = "funding")]
    pub unmetered: bool,
    #[command(flatten)]
    pub terms: AccountFlags,
}

/// What can be done with credit.
#[derive(Debug, Subcommand)]
pub(crate) enum CreditCommand {
    /// Add to what an account has.
    Add(CreditFlags),
    /// Take out of an account what no edge has on loan.
    Withdraw(CreditFlags),
}

/// How much of whose money moves.
#[derive(Debug, Args)]
pub(crate) struct CreditFlags {
    /// Whose.
    #[arg(long, value_name = "NAME")]
    pub account: String,
    /// How much, in USD: digits with at most nine decimals.
    #[arg(long, value_name = "USD", value_parser = credit::parse_amount)]
    pub amount: NanoUsd,
    /// What makes it this movement and no other, such as a payment's number: with the same one it is
    /// done once, however often it is asked for. Without, a fresh one is made.
    #[arg(long, value_name = "KEY", value_parser = credit::parse_id)]
    pub id: Option<String>,
    /// Why, for whoever reads the ledger.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = credit::parse_note)]
    pub note: String,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, this once.
    Create {
        /// What its owner calls it.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Who pays; an account that is not there yet is made, and is unmetered.
        #[arg(long, default_value = keys::ACCOUNT, value_name = "ACCOUNT")]
        account: String,
        /// When it stops working. Without this, never.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in_days: Option<u32>,
        #[command(flatten)]
        terms: Box<TermsFlags>,
    },
    /// List all keys, the oldest first. Keys themselves are not kept, so they cannot be shown.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Change what a key may do, everywhere within a second. What is not named stays; a ceiling takes the
    /// place of the one for the same time, a list of models or providers that of the whole list.
    Set {
        /// The key's ID, as `keys list` shows it.
        id: String,
        /// Take this away first; repeat it for more.
        #[arg(long, value_name = "WHAT", value_enum)]
        clear: Vec<KeyClearing>,
        /// When it stops working, from now.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_in_days: Option<u32>,
        #[command(flatten)]
        terms: Box<TermsFlags>,
    },
    /// Revoke a key for good.
    Revoke {
        /// The key's ID, as `keys list` shows it.
        id: String,
    },
}
