//! Whether an answer is one plain text so far, so that another target could go on from it.

/// What one document says, as far as that matters here.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How long the text was before this document's content.
    content_at: Option<u64>,
    reasoning: bool,
    other: bool,
}

impl Said {
    /// Content that is a string and not empty; `at` is how long the text was before it.
    pub(super) fn note_content(&mut self, at: u64) {
        // A second one may be beside the first or in its place.
        self.other |= self.content_at.is_some();
        self.content_at = Some(at);
    }

    /// Reasoning, in whatever form.
    pub(super) fn note_reasoning(&mut self) {
        self.other |= self.content_at.is_some();
        self.reasoning = true;
    }

    /// Anything else that the client is told.
    pub(super) fn note_other(&mut self) {
        self.other = true;
    }
}

/// What an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Plain {
    /// It has said nothing, or reasoned.
    #[default]
    Before,
    /// It is plain text, which begins so many bytes into the text that is kept.
    Since(u64),
    /// It is or has something else.
    Not,
}

impl Plain {
    pub(super) fn add(&mut self, said: &Said) {
        *self = match *self {
            Self::Before | Self::Since(_) if said.other => Self::Not,
            Self::Before => said.content_at.map_or(Self::Before, Self::Since),
            // What comes behind the content as text must be content.
            Self::Since(_) if said.reasoning => Self::Not,
            Self::Since(at) => Self::Since(at),
            Self::Not => Self::Not,
        };
    }
}
