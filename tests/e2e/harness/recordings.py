"""The recorded streams: where their events begin, and what is said up to each."""

import dataclasses
import json
import re

from harness.provider import RECORDED

# Answers of one choice in plain text that come to their end. `odd_framing` is not here: it is legal SSE that the SDK
# cannot read, broken off or not.
NAMES = (
    "azure_filter", "cr_only", "deepseek_reasoning", "gemini_thoughts_by_total", "groq_x_usage", "lang_arabic_crlf",
    "lang_combining", "lang_emoji_halves", "lang_japanese", "lang_russian_escaped", "long_code", "long_empty_deltas",
    "long_reasoning_first", "long_repetitive", "mistral_last_chunk", "moonshot_in_choice", "no_done", "no_final_newline",
    "openai_plain", "openai_usage", "openrouter_comments", "qwen_crlf", "unicode", "vllm_continuous",
    "xai_reasoning_added",
)
# Lines and the blank ones after them, as the provider counts events.
EVENT = re.compile(rb"(?:[^\r\n]+(?:\r\n|\r|\n|\Z))+(?:\r\n|\r|\n)*")


def joined(text):
    """Text in which the halves of a surrogate pair that came apart are one character again."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def is_torn(text):
    """Whether it ends in half of a pair."""
    return any(0xD800 <= ord(one) < 0xE000 for one in joined(text))


@dataclasses.dataclass
class Recording:
    name: str
    # The bytes up to the end of each event.
    ends: list
    # What the content says up to each event, and whether anything was said, reasoning included.
    texts: list
    spoke: list
    # How many events it takes until the answer says that it is over.
    whole_at: int
    # Places in the middle of a letter of several bytes.
    inside: list

    @property
    def text(self):
        return self.texts[-1]

    def events_before(self, offset):
        """How many events are whole in so many bytes."""
        return sum(end <= offset for end in self.ends)

    def said(self, count):
        """What the content of the first so many events says."""
        return self.texts[count - 1] if count else ""

    def has_spoken(self, count):
        return count > 0 and self.spoke[count - 1]


def read(name):
    data = (RECORDED / f"{name}.sse").read_bytes()
    events = EVENT.findall(data)
    assert b"".join(events) == data, name
    ends, texts, spoke, whole_at = [], [], [], None
    text, spoken, end = "", False, 0
    for count, event in enumerate(events, 1):
        end += len(event)
        content, reasoning, finished = _delta(event)
        text, spoken = text + content, spoken or bool(content or reasoning)
        ends.append(end)
        texts.append(text)
        spoke.append(spoken)
        whole_at = whole_at or (count if finished else None)
    inside = [at for at, byte in enumerate(data) if 0x80 <= byte < 0xC0]
    return Recording(name, ends, texts, spoke, whole_at, inside)


def _delta(event):
    """What an event adds to content and reasoning, and whether it has the finish reason."""
    lines = event.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    data = "\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:"))
    if not data.startswith("{"):
        return "", "", False
    content = reasoning = ""
    finished = False
    for choice in json.loads(data).get("choices", []):
        delta = choice.get("delta", {})
        content += delta.get("content") or ""
        reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
        finished = finished or choice.get("finish_reason") is not None
    return content, reasoning, finished
