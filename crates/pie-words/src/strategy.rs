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
