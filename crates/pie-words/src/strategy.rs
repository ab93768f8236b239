//! How things are done that a client may choose: the strategies that the paper compares, and how texts are read.

/// What a text means that spells a control token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spellings {
    /// Its characters: text is text.
    #[default]
    Text,
    /// The token.
    ControlTokens,
}

/// How the cache follows an edit (paper, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Positional Integrity Encoding: encode what was inserted, turn the keys of what moved.
    #[default]
    Pie,
    /// The same, and with each edit a window of the kept tokens right behind it is encoded again: what they say was said before
    /// the edit.
    Repair,
    /// Conflict Fast Encoding: encode what was inserted, leave the rest, positions in conflict and all. A baseline.
    Conflict,
    /// Full recomputation: encode everything from the first changed token on.
    Full,
}

/// How a document's rows follow its edits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// What becomes of the rows behind an edit.
    pub strategy: Strategy,
    /// With [`Strategy::Repair`]: kept tokens that are encoded again with an edit; `None`: as the pool is set.
    pub window: Option<u32>,
}

/// What a call says of it. What it leaves out is as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedFollowing {
    /// As of [`Following`].
    pub strategy: Option<Strategy>,
    /// As of [`Following`].
    pub window: Option<u32>,
}

impl Following {
    /// What it is by a call.
    #[must_use]
    pub fn with(self, asked: AskedFollowing) -> Self {
        Self { strategy: asked.strategy.unwrap_or(self.strategy), window: asked.window.or(self.window) }
    }
}
