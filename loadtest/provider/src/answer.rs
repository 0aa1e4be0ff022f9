//! What an answer says, and its JSON form.

use serde_json::Value;

use crate::ask::{Ask, Endpoint, Opening, ToolCall};
use crate::recorded::Recording;
use crate::script::{Answer, Prefill, Script, UsageWhen};
use crate::{tokens, usage};

/// When every answer was made, seconds of Unix time: fixed, so that answers can be compared.
pub(crate) const CREATED: u64 = 1_750_000_000;

const UNICODE: &str = "Grüße, Ελλάδα, Привет, 你好 世界, こんにちは, 🙂👩‍👩‍👧 \u{202e}x\u{202c} \"quoted\" \\ / \t\u{1}\u{7f} e\u{301} \u{10ffff} end";

/// What is said.
#[derive(Clone, Debug)]
pub(crate) struct Said<'a> {
    /// Comes before the text.
    pub(crate) reasoning: Vec<String>,
    pub(crate) pieces: Vec<String>,
    /// As a stream it is this one.
    pub(crate) replay: Option<&'a Recording>,
    pub(crate) tool: Option<ToolCall>,
    pub(crate) finish: &'static str,
}

impl<'a> Said<'a> {
    /// What `script` has to say to `ask`; `recording` is the one that it names. `Err` says what is wrong with
    /// a request that gives the answer's beginning.
    pub(crate) fn new(
        script: &Script,
        ask: &Ask,
        recording: Option<&'a Recording>,
    ) -> Result<Self, &'static str> {
        let reasoning = thoughts(script.reasoning);
        if let (Answer::Echo, Some(tool)) = (&script.answer, &ask.tool) {
            let pieces = pieces_of(&tool.arguments);
            let tool = Some(tool.clone());
            return Ok(Self { reasoning, pieces, replay: None, tool, finish: "tool_calls" });
        }
        let mut pieces = match &script.answer {
            Answer::Echo => tokens::split(&ask.text).into_iter().map(str::to_owned).collect(),
            Answer::Words(count) => words(*count),
            Answer::Unicode => tokens::split(UNICODE).into_iter().map(str::to_owned).collect(),
            Answer::JsonBytes(_) | Answer::Status(_) | Answer::BaseResp => words(8),
            Answer::Replay(_) | Answer::Said(_) => {
                recording.map(|recording| recording.pieces.clone()).unwrap_or_default()
            }
        };
        let mut as_recorded = matches!(script.answer, Answer::Replay(_)) && reasoning.is_empty();
        if let Some(at) = script.diverges_at {
            as_recorded = false;
            pieces.iter_mut().skip(at.saturating_sub(1)).for_each(change);
        }
        if let Some(opening) = &ask.opening
            && goes_on(script.prefill, opening)?
        {
            as_recorded = false;
            pieces = rest_after(pieces, &opening.text).ok_or("That is no way for me to begin.")?;
        }
        if let Some(count) = script.piece_characters {
            as_recorded = false;
            let characters = pieces.concat().chars().collect::<Vec<_>>();
            pieces = characters.chunks(count).map(|piece| piece.iter().collect()).collect();
        }
        let limit = ask.tokens_max.and_then(|limit| usize::try_from(limit).ok());
        let cut = limit.is_some_and(|limit| limit < pieces.len());
        pieces.truncate(limit.unwrap_or(usize::MAX));
        let replay = recording.filter(|_| as_recorded && !cut);
        let finish = if cut { "length" } else { "stop" };
        Ok(Self { reasoning, pieces, replay, tool: None, finish })
    }

    /// Tokens of one choice.
    pub(crate) fn tokens(&self) -> u64 {
        let count = self.pieces.len().saturating_add(self.reasoning.len());
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

fn thoughts(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{}thought{index}", if index > 0 { " " } else { "" })).collect()
}

/// Makes another token of one; the space before it stays.
fn change(piece: &mut String) {
    let space = piece.len().saturating_sub(piece.trim_start().len());
    piece.insert_str(space, "other");
}

/// Whether the answer goes on from `opening`; `Err` says why it is refused.
fn goes_on(prefill: Prefill, opening: &Opening) -> Result<bool, &'static str> {
    let marked = match prefill {
        Prefill::Ignored => return Ok(false),
        Prefill::Taken => true,
        Prefill::Prefix => opening.prefix,
        Prefill::Partial => opening.partial,
        Prefill::ContinueFinalMessage => opening.continue_final_message,
        Prefill::Rejected => false,
    };
    marked.then_some(true).ok_or("The last message must not be the assistant's.")
}

/// What follows after `opening`, whose white space at the end may be missing or too much; `None` when the
/// answer begins otherwise.
fn rest_after(pieces: Vec<String>, opening: &str) -> Option<Vec<String>> {
    let whole = pieces.concat();
    let trimmed = opening.trim_end();
    let given = [opening, trimmed].into_iter().find(|given| whole.starts_with(given))?;
    let mut skip = given.len();
    let rest = pieces.into_iter().filter_map(|mut piece| {
        let skipped = skip.min(piece.len());
        skip = skip.saturating_sub(skipped);
        piece.drain(..skipped);
        (!piece.is_empty()).then_some(piece)
    });
    Some(rest.collect())
}

fn words(count: usize) -> Vec<String> {
    let word = |index| if index == 0 { "word".to_owned() } else { format!(" word{index}") };
    (0..count).map(word).collect()
}

/// Arguments are streamed in pieces of a few characters, as providers do.
fn pieces_of(arguments: &str) -> Vec<String> {
    let characters = arguments.chars().collect::<Vec<_>>();
    characters.chunks(6).map(|piece| piece.iter().collect()).collect()
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The number of an answer as its id.
pub(crate) fn id(endpoint: Endpoint, number: u64) -> String {
    match endpoint {
        Endpoint::Chat => format!("chatcmpl-box{number}"),
        Endpoint::Completions | Endpoint::Embeddings => format!("cmpl-box{number}"),
    }
}

/// The JSON answer. The tokens told are those of all choices.
pub(crate) fn body(script: &Script, ask: &Ask, said: &Said<'_>, number: u64) -> String {
    let body = with_text(script, ask, said, &said.pieces.concat(), number);
    let Answer::JsonBytes(size) = script.answer else { return body };
    let text_bytes = said.pieces.concat().len();
    let fill = size.saturating_sub(body.len().saturating_sub(text_bytes));
    with_text(script, ask, said, &filler(fill), number)
}

/// Text of exactly so many bytes that needs no escapes.
pub(crate) fn filler(bytes: usize) -> String {
    "lorem ipsum dolor ".chars().cycle().take(bytes).collect()
}

fn with_text(script: &Script, ask: &Ask, said: &Said<'_>, text: &str, number: u64) -> String {
    let choices = (0..ask.choices).map(|index| choice(ask, said, text, index)).collect::<Vec<_>>();
    let usage = if script.usage_when == UsageWhen::Never {
        String::new()
    } else {
        let tokens = said.tokens().saturating_mul(ask.choices);
        format!(r#","usage":{}"#, usage::object(script, ask.prompt_tokens, tokens))
    };
    let object = match ask.endpoint {
        Endpoint::Chat => "chat.completion",
        Endpoint::Completions | Endpoint::Embeddings => "text_completion",
    };
    format!(
        r#"{{"id":"{}","object":"{object}","created":{CREATED},"model":{},"choices":[{}]{usage},"service_tier":"default","system_fingerprint":"fp_box"}}"#,
        id(ask.endpoint, number),
        quoted(&ask.model),
        choices.join(","),
    )
}

fn choice(ask: &Ask, said: &Said<'_>, text: &str, index: u64) -> String {
    let finish = said.finish;
    let text = quoted(text);
    let reasoning = if said.reasoning.is_empty() {
        String::new()
    } else {
        format!(r#","reasoning_content":{}"#, quoted(&said.reasoning.concat()))
    };
    let message = match (ask.endpoint, &said.tool) {
        (Endpoint::Completions | Endpoint::Embeddings, _) => format!(r#""text":{text}"#),
        (Endpoint::Chat, None) => format!(
            r#""message":{{"role":"assistant","content":{text}{reasoning},"refusal":null,"annotations":[]}}"#
        ),
        (Endpoint::Chat, Some(tool)) => format!(
            r#""message":{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_box{index}","type":"function","function":{{"name":{},"arguments":{}}}}}],"refusal":null,"annotations":[]}}"#,
            quoted(&tool.name),
            quoted(&tool.arguments),
        ),
    };
    format!(r#"{{"index":{index},{message},"logprobs":null,"finish_reason":"{finish}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_on_from_its_beginning_and_from_nothing_else() {
        let pieces = || ["One ", "two", " three"].map(str::to_owned).to_vec();
        let rest = |opening: &str| rest_after(pieces(), opening);
        let owned = |rest: &[&str]| Some(rest.iter().map(|one| (*one).to_owned()).collect());
        assert_eq!(rest(""), Some(pieces()));
        assert_eq!(rest("One t"), owned(&["wo", " three"]));
        assert_eq!(rest("One two "), owned(&["three"]));
        assert_eq!(rest("One two\n"), owned(&[" three"]));
        assert_eq!(rest("One"), owned(&[" ", "two", " three"]));
        assert_eq!(rest("One two three"), owned(&[]));
        assert_eq!(rest("One two three four"), None);
        assert_eq!(rest("Two"), None);
    }
}
