//! `tokenrouted credit`: adds credit to an account and takes it back, each movement once.

use clap::{Args, Subcommand};
use tokenroute_domain::id::TransactionId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, Moved, Movement, Pocket};

use super::{End, Terminal, accounts, is_name, not_a_name};

/// Who moves money by a command, as the ledger says it.
const ACTOR: &str = "operator";
/// Longest note, in characters.
const NOTE_LEN_MAX: usize = 500;

/// What can be done with credit.
#[derive(Debug, Subcommand)]
pub(crate) enum CreditCommand {
    /// Add credit to a prepaid account.
    Add(MoveOptions),
    /// Take back credit that is free: neither charged nor held by calls.
    Withdraw(MoveOptions),
}

/// Whose credit, and how much.
#[derive(Debug, Args)]
pub(crate) struct MoveOptions {
    /// The account's name.
    #[arg(long, value_name = "NAME")]
    account: String,
    /// How much, in USD, such as 5.00.
    #[arg(long, value_name = "USD")]
    amount: String,
    /// A name for this movement: given again, it moves nothing again.
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
    /// Why, for the ledger.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// Does it.
pub(crate) async fn manage(
    database: &Database,
    command: &CreditCommand,
    context: (Timestamp, &mut Terminal<'_>),
) -> End {
    match command {
        CreditCommand::Add(options) => go(database, options, Way::In, context).await,
        CreditCommand::Withdraw(options) => go(database, options, Way::Out, context).await,
    }
}

async fn go(
    database: &Database,
    options: &MoveOptions,
    way: Way,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let amount = match read(options) {
        Ok(amount) => amount,
        Err(problem) => return terminal.refuse(problem),
    };
    let account = match accounts::find(database, &options.account, terminal).await {
        Ok(account) => account,
        Err(end) => return end,
    };
    if account.funding == Funding::Unmetered {
        return terminal.refuse(format_args!(
            "account \"{}\" is unmetered: nobody pays for its calls, so it has no credit",
            account.name
        ));
    }
    let chance = match crate::state::chance() {
        Ok(chance) => chance,
        Err(error) => return terminal.unable(&format_args!("{error:#}")),
    };
    let id = options.id.clone().unwrap_or_else(|| TransactionId::new(now, chance).to_string());
    let (idempotency_key, note) = (id.as_str(), options.note.as_str());
    let movement = Movement { account: account.id, amount, idempotency_key, actor: ACTOR, note };
    let moved = match way {
        Way::In => database.grant(&movement, now).await,
        Way::Out => database.withdraw(&movement, Pocket::Customer, now).await,
    };
    let moved = match moved {
        Ok(moved) => moved,
        Err(error) => {
            return terminal.unable(&format_args!(
                "{error}. Whether it was done is not known: give the command again with --id {id}"
            ));
        }
    };
    let balance = match database.balance(account.id).await {
        Ok(balance) => balance,
        Err(error) => return terminal.unable(&format_args!("{error}, after it was done")),
    };
    let name = &account.name;
    let what = match (moved, way) {
        (Moved::Done, Way::In) => format!("added {amount} USD to \"{name}\""),
        (Moved::Done, Way::Out) => format!("took {amount} USD from \"{name}\""),
        (Moved::Duplicate, Way::In | Way::Out) => {
            format!("\"{name}\": that was done before, nothing is changed")
        }
        (Moved::Conflict, Way::In | Way::Out) => {
            return terminal.refuse(format_args!("--id: another movement was made with \"{id}\""));
        }
        (Moved::TooMuch, Way::In) => {
            return terminal.refuse(format_args!(
                "--amount: an account holds at most {ACCOUNT_MAX} USD, and \"{name}\" has {}",
                balance.total()
            ));
        }
        (Moved::TooMuch, Way::Out) => {
            return terminal.refuse(format_args!(
                "--amount: so much of the {} USD of \"{name}\" is not free: the rest is lent to \
                 edges for calls that run or may come",
                balance.total()
            ));
        }
        (Moved::NoAccount, Way::In | Way::Out) => {
            return terminal.refuse(format_args!("there is no account \"{name}\" any more"));
        }
    };
    terminal.say(format_args!("{what}; its balance is {} USD", balance.total()))
}

/// The amount, or what is wrong with the options.
fn read(options: &MoveOptions) -> Result<NanoUsd, String> {
    if options.id.as_deref().is_some_and(|id| !is_name(id)) {
        return Err(not_a_name("id"));
    }
    if options.note.chars().count() > NOTE_LEN_MAX || options.note.chars().any(char::is_control) {
        return Err(format!(
            "--note: write at most {NOTE_LEN_MAX} characters, none of them a control character"
        ));
    }
    match options.amount.parse() {
        Ok(amount) if amount > NanoUsd::ZERO => Ok(amount),
        Ok(_) => Err("--amount: write more than nothing".to_owned()),
        Err(problem) => Err(format!("--amount: {problem}")),
    }
}
