//! The events of a streamed answer, in order.

use crate::answer::{self, CREATED, Said, quoted};
use crate::ask::{Ask, Endpoint};
use crate::recorded::Recording;
use crate::script::{AfterDone, Extra, LineEnd, Script};
use crate::usage::{self, Place};

/// The data of an event that is no JSON.
const GARBAGE: &str = "{\"choices\": [ this is no JSON \u{fffd}";

/// An SSE event as it goes over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) bytes: Vec<u8>,
    /// Tokens of text in it.
    pub(crate) tokens: u64,
    /// It says who speaks and nothing else.
    pub(crate) is_role: bool,
    /// Nothing follows it.
    pub(crate) is_last: bool,
}

/// Writes chunks of one answer.
struct Writer<'a> {
    script: &'a Script,
    ask: &'a Ask,
    id: String,
    model: String,
    place: Place,
    tokens_so_far: u64,
    events: Vec<Event>,
}

/// All events of the answer, `[DONE]` included.
pub(crate) fn events(script: &Script, ask: &Ask, said: &Said<'_>, number: u64) -> Vec<Event> {
    let mut writer = Writer {
        script,
        ask,
        id: answer::id(ask.endpoint, number),
        model: quoted(&ask.model),
        place: usage::place(script, ask.include_usage),
        tokens_so_far: 0,
        events: vec![],
    };
    if let Some(recording) = said.replay {
        writer.events = recording.events.iter().map(|bytes| recorded(bytes)).collect();
        writer.put_extra();
        return writer.events;
    }
    writer.write_roles(said);
    for thought in &said.reasoning {
        for index in 0..ask.choices {
            writer.write_thought(thought, index);
        }
    }
    for piece in &said.pieces {
        for index in 0..ask.choices {
            writer.write_piece(piece, said.tool.is_some(), index);
        }
    }
    for index in 0..ask.choices {
        writer.write_finish(said.finish, index);
    }
    if matches!(writer.place, Place::Extra | Place::Every) {
        let usage = writer.usage();
        writer.push_payload(&writer.chunk("", &format!(r#","usage":{usage}"#)), 0);
    }
    writer.put_extra();
    writer.write_end();
    writer.events
}

fn recorded(bytes: &[u8]) -> Event {
    let tokens = u64::from(Recording::speaks(bytes));
    Event { bytes: bytes.to_owned(), tokens, is_role: false, is_last: false }
}

impl Writer<'_> {
    fn usage(&self) -> String {
        usage::object(self.script, self.ask.prompt_tokens, self.tokens_so_far)
    }

    /// The usage member of an ordinary chunk.
    fn usage_member(&self) -> String {
        match self.place {
            Place::Every => format!(r#","usage":{}"#, self.usage()),
            Place::Extra if self.ask.include_usage => r#","usage":null"#.to_owned(),
            Place::Extra
            | Place::Nowhere
            | Place::LastContent
            | Place::LastContentAndChoice
            | Place::LastContentXGroq => String::new(),
        }
    }

    fn chunk(&self, choices: &str, more: &str) -> String {
        let object = match self.ask.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions | Endpoint::Embeddings => "text_completion",
        };
        format!(
            r#"{{"id":"{}","object":"{object}","created":{CREATED},"model":{},"service_tier":"default","system_fingerprint":"fp_box","choices":[{choices}]{more}}}"#,
            self.id, self.model,
        )
    }

    fn push_payload(&mut self, payload: &str, tokens: u64) {
        let end = match self.script.line_end {
            LineEnd::Lf => "\n",
            LineEnd::CrLf => "\r\n",
            LineEnd::Cr => "\r",
        };
        let bom = if self.script.bom && self.events.is_empty() { "\u{feff}" } else { "" };
        let comment =
            if self.script.comments { format!(": keep-alive{end}{end}") } else { String::new() };
        let space = if self.script.no_space { "" } else { " " };
        let text = format!("{bom}{comment}data:{space}{payload}{end}{end}");
        let bytes = text.into_bytes();
        self.events.push(Event { bytes, tokens, is_role: false, is_last: false });
    }

    fn write_roles(&mut self, said: &Said<'_>) {
        if self.ask.endpoint != Endpoint::Chat {
            return;
        }
        for index in 0..self.ask.choices {
            let delta = match &said.tool {
                None => r#"{"role":"assistant","content":"","refusal":null}"#.to_owned(),
                Some(tool) => format!(
                    r#"{{"role":"assistant","content":null,"tool_calls":[{{"index":0,"id":"call_box{index}","type":"function","function":{{"name":{},"arguments":""}}}}],"refusal":null}}"#,
                    quoted(&tool.name),
                ),
            };
            self.write_delta(&delta, index, 0);
            if let Some(event) = self.events.last_mut() {
                event.is_role = said.tool.is_none();
            }
        }
    }

    fn write_thought(&mut self, thought: &str, index: u64) {
        self.tokens_so_far = self.tokens_so_far.saturating_add(1);
        self.write_delta(&format!(r#"{{"reasoning_content":{}}}"#, quoted(thought)), index, 1);
    }

    fn write_piece(&mut self, piece: &str, is_tool: bool, index: u64) {
        self.tokens_so_far = self.tokens_so_far.saturating_add(1);
        let piece = quoted(piece);
        if self.ask.endpoint != Endpoint::Chat {
            let choice = format!(
                r#"{{"text":{piece},"index":{index},"logprobs":null,"finish_reason":null}}"#
            );
            return self.push_payload(&self.chunk(&choice, &self.usage_member()), 1);
        }
        let delta = if is_tool {
            format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{piece}}}}}]}}"#)
        } else {
            format!(r#"{{"content":{piece}}}"#)
        };
        self.write_delta(&delta, index, 1);
    }

    fn write_delta(&mut self, delta: &str, index: u64, tokens: u64) {
        let choice =
            format!(r#"{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}"#);
        self.push_payload(&self.chunk(&choice, &self.usage_member()), tokens);
    }

    fn write_finish(&mut self, finish: &str, index: u64) {
        let usage = self.usage();
        let (in_choice, more) = match self.place {
            Place::LastContent => (String::new(), format!(r#","usage":{usage}"#)),
            Place::LastContentAndChoice => {
                let member = format!(r#","usage":{usage}"#);
                (member.clone(), member)
            }
            Place::LastContentXGroq => {
                let groq = format!(r#","x_groq":{{"id":"req_box","usage":{usage}}}"#);
                (String::new(), groq)
            }
            Place::Every | Place::Extra | Place::Nowhere => (String::new(), self.usage_member()),
        };
        let said = match self.ask.endpoint {
            Endpoint::Chat => r#""delta":{}"#,
            Endpoint::Completions | Endpoint::Embeddings => r#""text":"""#,
        };
        let choice = format!(
            r#"{{"index":{index},{said},"logprobs":null,"finish_reason":"{finish}"{in_choice}}}"#
        );
        self.push_payload(&self.chunk(&choice, &more), 0);
    }

    /// Puts the script's extra event in its place; an error event ends the stream.
    fn put_extra(&mut self) {
        let Some((at, extra)) = self.script.extra else { return };
        let at = at.min(self.events.len());
        let tail = self.events.split_off(at);
        match extra {
            Extra::Garbage => self.push_payload(GARBAGE, 0),
            Extra::GarbageOn => {
                for _ in &tail {
                    self.push_payload(GARBAGE, 0);
                }
                if let Some(event) = self.events.last_mut() {
                    event.is_last = true;
                }
                return;
            }
            Extra::Error => {
                let error = r#"{"error":{"message":"The server had an error while processing your request.","type":"server_error","param":null,"code":null}}"#;
                self.push_payload(error, 0);
                if let Some(event) = self.events.last_mut() {
                    event.is_last = true;
                }
                return;
            }
            Extra::Big(size) => {
                let empty = self.chunk(&big_choice(""), "").len().saturating_add(8);
                let text = answer::filler(size.saturating_sub(empty));
                self.push_payload(&self.chunk(&big_choice(&text), &self.usage_member()), 0);
            }
        }
        self.events.extend(tail);
    }

    fn write_end(&mut self) {
        if self.events.last().is_some_and(|event| event.is_last) {
            return;
        }
        if self.script.done {
            self.push_payload("[DONE]", 0);
        }
        if self.script.after_done == AfterDone::More {
            self.write_delta(r#"{"content":" after the end"}"#, 0, 0);
        }
    }
}

fn big_choice(text: &str) -> String {
    format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}"#)
}
