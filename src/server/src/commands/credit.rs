//! `tokenrouted credit`: moves money into accounts and out of them, each movement once.

use std::time::Duration;

use tokenroute_control::app::credit::{Came, Till, Way};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_proxy::clock;
use tokenroute_store::{Account, Database, Moved, Movement, SqlBank};

use super::line::{CreditCommand, CreditFlags};
use super::{End, Stores, Terminal, accounts, actor};
use crate::state;

/// Longest identifier of a movement, in characters.
const ID_LEN_MAX: usize = 200;
/// Longest note, in characters.
const NOTE_LEN_MAX: usize = 1_000;

/// What is to be moved, and the identifier that was given or made.
struct Wish<'a> {
    flags: &'a CreditFlags,
    account: Account,
    id: String,
    actor: String,
}

impl Wish<'_> {
    fn movement(&self) -> Movement<'_> {
        Movement {
            account: self.account.id,
            amount: self.flags.amount,
            idempotency_key: &self.id,
            actor: &self.actor,
            note: &self.flags.note,
        }
    }
}

/// Does what is asked with credit.
pub(super) async fn manage(
    stores: &Stores,
    command: &CreditCommand,
    terminal: &mut Terminal<'_>,
) -> End {
    let (CreditCommand::Add(flags) | CreditCommand::Withdraw(flags)) = command;
    let account = match accounts::find(&stores.database, &flags.account, terminal).await {
        Ok(Some(account)) => account,
        Ok(None) => return End::Mistaken,
        Err(error) => return terminal.unable(&error),
    };
    let id = match flags.id.clone().map_or_else(fresh_id, Ok) {
        Ok(id) => id,
        Err(error) => return terminal.unable(&error),
    };
    let wish = Wish { flags, account, id, actor: actor() };
    let way = match command {
        CreditCommand::Add(_) => Way::In,
        CreditCommand::Withdraw(_) => Way::Out,
    };
    let till = Till {
        database: &stores.database,
        redis: stores.redis.as_ref(),
        now: clock::now,
        chance: state::chance_bytes,
    };
    let came = till.move_money(way, &wish.movement()).await;
    match came {
        Ok(came) => tell(&stores.database, command, (&wish, came), terminal).await,
        // What has no answer may have been done.
        Err(error) => terminal.unable(&format_args!(
            "{error}: if it was done is not known; repeat it with --id {}, which counts once",
            wish.id
        )),
    }
}

fn fresh_id() -> anyhow::Result<String> {
    Ok(format!("{:032x}", state::chance()?))
}

/// Says what became of it.
async fn tell(
    database: &Database,
    command: &CreditCommand,
    (wish, came): (&Wish<'_>, Came),
    terminal: &mut Terminal<'_>,
) -> End {
    let (amount, name, id) = (wish.flags.amount, &wish.account.name, &wish.id);
    match came {
        Came::Moved(moved @ (Moved::Done | Moved::Duplicate)) => {
            let done = match command {
                CreditCommand::Add(_) => format!("{amount} USD added to \"{name}\""),
                CreditCommand::Withdraw(_) => format!("{amount} USD taken out of \"{name}\""),
            };
            let before =
                if moved == Moved::Duplicate { ", before: nothing is done now" } else { "" };
            let balance = match database.balance(wish.account.id).await {
                Ok(balance) => format!("balance {} USD", balance.total()),
                Err(_) => "its balance cannot be read now".to_owned(),
            };
            if wish.account.funding == Funding::Unmetered {
                terminal.tell("note: the account is unmetered, so that nothing is drawn from it");
            }
            terminal.say(format_args!("{done}{before}; {balance}; id {id}"))
        }
        Came::Moved(Moved::Conflict) => {
            terminal.tell(format_args!(
                "--id: {id} names another movement, of another amount, account or direction: \
                 see `ledger`, and take another one if this is a new movement"
            ));
            End::Mistaken
        }
        Came::Moved(Moved::TooMuch) => {
            let why = match command {
                CreditCommand::Add(_) => over_the_top(&wish.account),
                CreditCommand::Withdraw(_) => match lacking(database, &wish.account).await {
                    Ok(why) => why,
                    Err(error) => return terminal.unable(&error),
                },
            };
            terminal.tell(format_args!("--amount: {amount} USD is too much: {why}"));
            End::Mistaken
        }
        Came::Short(free) => {
            terminal.tell(format_args!(
                "--amount: {amount} USD is too much: \"{name}\" has {free} USD that is free; what \
                 else it has is lent to edges, which give back what they do not use within seconds"
            ));
            End::Mistaken
        }
        Came::Away => terminal.unable(
            &"nothing is done: only Redis knows what is free, and it cannot be asked; see that it \
              runs, and a process with --role control or all, and try again",
        ),
        Came::Unposted => terminal.say(format_args!(
            "{amount} USD taken out of \"{name}\"; the ledger has it once somebody posts: \
             see that a process with --role control or all runs; id {id}"
        )),
        Came::Moved(Moved::NoAccount) => {
            terminal.tell(format_args!("there is no account \"{name}\" any more"));
            End::Mistaken
        }
    }
}

fn over_the_top(account: &Account) -> String {
    format!(
        "\"{}\" has {} USD, and none can have more than {ACCOUNT_MAX} USD",
        account.name, account.balance
    )
}

/// What of an account can be taken out, and what cannot.
async fn lacking(
    database: &Database,
    account: &Account,
) -> Result<String, tokenroute_store::Error> {
    let pool = SqlBank::new(database.clone(), Duration::ZERO).pool(account.id, &[]).await?;
    let lent = pool.loans.values().map(|loan| loan.amount).fold(NanoUsd::ZERO, NanoUsd::plus);
    let free = format!("\"{}\" has {} USD that is free", account.name, pool.free);
    Ok(if lent == NanoUsd::ZERO {
        free
    } else {
        format!(
            "{free}; {lent} USD more is lent to edges, which give back what they do not use \
             within seconds"
        )
    })
}

/// Reads an amount that can be moved.
pub(super) fn parse_amount(text: &str) -> Result<NanoUsd, String> {
    let amount: NanoUsd = text.parse().map_err(|error| format!("{error}"))?;
    if amount > NanoUsd::ZERO && amount <= ACCOUNT_MAX {
        Ok(amount)
    } else {
        Err(format!("write an amount above zero, and at most {ACCOUNT_MAX} USD"))
    }
}

/// Reads what makes a movement this one and no other.
pub(super) fn parse_id(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && (1..=ID_LEN_MAX).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("write 1 to {ID_LEN_MAX} characters of ASCII, without spaces"))
    }
}

/// Reads what the ledger is to say of a movement.
pub(super) fn parse_note(text: &str) -> Result<String, String> {
    if text.chars().count() <= NOTE_LEN_MAX && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("write at most {NOTE_LEN_MAX} characters, none of them a control character"))
    }
}
