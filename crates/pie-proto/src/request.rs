//! Public requests, checked: each becomes a type that can only hold what makes sense.

mod complete;

pub use complete::{Complete, Exactness, Mode, OnEdit, TOP_LOGPROBS_LIMIT};
pub use pie_words::RegionLines;

use crate::reason::{Fault, Reason};
use crate::v1;
use pie_words::{
    AskedFollowing, Cursor, LspPosition, Part, Parts, PositionEncoding, Revision, Spellings, Splice,
    Strategy, TextEdit, TextRange, TokenId, TokenIndex,
};

/// Edits, or splices, of one request: each is looked for on its own, and of those that follow each other each looks at what those
/// before it changed, so that more would keep a processor busy for long.
const EDITS_LIMIT: usize = 8192;
/// Texts in front of a document.
const PARTS_LIMIT: usize = 256;
const PART_NAME_LIMIT: usize = 1024;
const NAME_LIMIT: usize = 256;

/// The name of a session: 1 to 256 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(String);

impl SessionName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Reason::BadSessionName`].
    pub fn new(name: String) -> Result<Self, Fault> {
        let wrong = if name.is_empty() {
            "it is empty".to_owned()
        } else if name.len() > NAME_LIMIT {
            format!("it has {} bytes, the limit is {NAME_LIMIT}", name.len())
        } else if name.chars().any(char::is_control) {
            "it has a control character".to_owned()
        } else {
            return Ok(Self(name));
        };
        Err(Fault::new(Reason::BadSessionName, format!("the session's name cannot be used: {wrong}")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One life of a session. A name that is opened anew, after it was closed or lost, has another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(String);

impl Identity {
    /// Of 128 random bits.
    pub fn of_bits(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// As a request names it; `None` if it does not. What the pool never gave out is equal to none that it has.
    pub fn given(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For a field that is empty if there is none.
    pub fn to_wire(identity: Option<&Self>) -> String {
        identity.map(|identity| identity.0.clone()).unwrap_or_default()
    }
}

/// A document as the client gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<TokenId>),
}

/// A checked [`v1::OpenSessionRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSession {
    /// `None`: the pool chooses.
    pub name: Option<SessionName>,
    /// The document.
    pub content: Content,
    /// What a text means that spells control tokens.
    pub spellings: Spellings,
    /// Of its edits, unless they say otherwise.
    pub following: AskedFollowing,
}

impl TryFrom<v1::OpenSessionRequest> for OpenSession {
    type Error = Fault;
    fn try_from(request: v1::OpenSessionRequest) -> Result<Self, Fault> {
        use v1::open_session_request::Content as Wire;
        let content = match request.content {
            Some(Wire::Text(text)) => Content::Text(text),
            Some(Wire::Tokens(tokens)) => Content::Tokens(token_ids(tokens.ids)),
            None => return Err(missing("content", "the document as `text` (may be empty) or `tokens`")),
        };
        let name = if request.session.is_empty() { None } else { Some(SessionName::new(request.session)?) };
        let spellings = spellings(request.control_tokens);
        let following =
            AskedFollowing { strategy: strategy(request.strategy)?, window: request.repair_window };
        Ok(Self { name, content, spellings, following })
    }
}

/// The edits of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edits {
    /// Of the text, all in coordinates of the base revision.
    Text(Vec<TextEdit>),
    /// Of the text, each in coordinates of the text that those before it left.
    Sequential(Vec<TextEdit>),
    /// Of the tokens; not yet checked against the session's length.
    Tokens(Vec<Splice>),
    /// Of what stands in front of the text.
    Parts(Parts),
}

/// What stands in front of a text.
pub(crate) fn parts(wire: v1::Parts) -> Result<Parts, Fault> {
    at_most("parts", wire.parts.len(), PARTS_LIMIT)?;
    let name = |name: String| {
        if name.len() > PART_NAME_LIMIT || name.contains(['\n', '\r']) {
            let message = format!("the name of a part is at most {PART_NAME_LIMIT} bytes on one line");
            return Err(Fault::new(Reason::FieldInvalid, message));
        }
        Ok(name)
    };
    let document = name(wire.document)?;
    let list = wire.parts.into_iter().map(|part| Ok(Part { name: name(part.name)?, text: part.text }));
    let list = list.collect::<Result<Vec<_>, Fault>>()?;
    // Nobody is told the document's name where it stands alone.
    Ok(if list.is_empty() { Parts::default() } else { Parts { list, document } })
}

/// The same for those who ask, and on its way; nothing where there are none.
pub fn parts_to_wire(parts: &Parts) -> Option<v1::Parts> {
    let part = |part: &Part| v1::Part { name: part.name.clone(), text: part.text.clone() };
    let list: Vec<_> = parts.list.iter().map(part).collect();
    (!list.is_empty()).then(|| v1::Parts { parts: list, document: parts.document.clone() })
}

/// A checked [`v1::ApplyEditsRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyEdits {
    /// Whose document.
    pub session: SessionName,
    /// Only of this life.
    pub identity: Option<Identity>,
    /// What the client edited.
    pub base_revision: Revision,
    /// What changes.
    pub edits: Edits,
    /// How the cache follows it, where that is not as of the session.
    pub following: AskedFollowing,
}

impl TryFrom<v1::ApplyEditsRequest> for ApplyEdits {
    type Error = Fault;
    fn try_from(request: v1::ApplyEditsRequest) -> Result<Self, Fault> {
        use v1::apply_edits_request::Edits as Wire;
        let edits = match request.edits {
            Some(Wire::Text(list)) => {
                at_most("edits", list.edits.len(), EDITS_LIMIT)?;
                let encoding = encoding(list.position_encoding)?;
                let edits = numbered(list.edits, |edit| text_edit(edit, encoding))?;
                if list.sequential { Edits::Sequential(edits) } else { Edits::Text(edits) }
            }
            Some(Wire::Tokens(list)) => {
                at_most("splices", list.splices.len(), EDITS_LIMIT)?;
                Edits::Tokens(list.splices.into_iter().map(splice).collect())
            }
            Some(Wire::Parts(given)) => Edits::Parts(parts(given)?),
            None => return Err(missing("edits", "`text` edits, `tokens` splices, or `parts`")),
        };
        let session = SessionName::new(request.session)?;
        Ok(Self {
            session,
            identity: Identity::given(request.identity),
            base_revision: Revision(request.base_revision),
            edits,
            following: AskedFollowing {
                strategy: strategy(request.strategy)?,
                window: request.repair_window,
            },
        })
    }
}

/// What a text means, by a field that asks for control tokens.
pub(crate) fn spellings(control_tokens: bool) -> Spellings {
    if control_tokens { Spellings::ControlTokens } else { Spellings::Text }
}

/// A strategy field; `None` when unspecified.
pub(crate) fn strategy(value: i32) -> Result<Option<Strategy>, Fault> {
    match v1::Strategy::try_from(value) {
        Ok(v1::Strategy::Unspecified) => Ok(None),
        Ok(v1::Strategy::Pie) => Ok(Some(Strategy::Pie)),
        Ok(v1::Strategy::Conflict) => Ok(Some(Strategy::Conflict)),
        Ok(v1::Strategy::Full) => Ok(Some(Strategy::Full)),
        Ok(v1::Strategy::Repair) => Ok(Some(Strategy::Repair)),
        Err(_) => Err(unknown("strategy", value, "1 (pie), 2 (conflict), 3 (full), 4 (repair)")),
    }
}

fn unknown(field: &str, value: i32, known: &str) -> Fault {
    Fault::new(Reason::FieldInvalid, format!("{field} {value} is none of {known}"))
}

/// A strategy as the public API names it.
pub fn strategy_to_wire(strategy: Strategy) -> v1::Strategy {
    match strategy {
        Strategy::Pie => v1::Strategy::Pie,
        Strategy::Conflict => v1::Strategy::Conflict,
        Strategy::Full => v1::Strategy::Full,
        Strategy::Repair => v1::Strategy::Repair,
    }
}

pub(crate) fn token_ids(ids: Vec<u32>) -> Vec<TokenId> {
    ids.into_iter().map(TokenId).collect()
}

pub(crate) fn splice(splice: v1::TokenSplice) -> Splice {
    Splice { at: TokenIndex(splice.at), delete: splice.delete, insert: token_ids(splice.insert) }
}

fn text_edit(edit: v1::TextEdit, encoding: PositionEncoding) -> Result<TextEdit, Fault> {
    use v1::text_edit::Range;
    let end = |position: Option<v1::LspPosition>| {
        let position = position.ok_or_else(|| missing("lsp.start or lsp.end", "both positions"))?;
        Ok(self::position(position, encoding))
    };
    let range = match edit.range {
        Some(Range::Bytes(bytes)) => TextRange::Bytes { start: offset(bytes.start), end: offset(bytes.end) },
        Some(Range::Lsp(lsp)) => TextRange::Lsp { start: end(lsp.start)?, end: end(lsp.end)? },
        None => return Err(missing("range", "`bytes` or `lsp`")),
    };
    Ok(TextEdit { range, insert: edit.text })
}

/// An offset beyond the address space is beyond every document too.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn position(position: v1::LspPosition, encoding: PositionEncoding) -> LspPosition {
    LspPosition { line: position.line, column: position.utf16_column, encoding }
}

fn encoding(value: i32) -> Result<PositionEncoding, Fault> {
    match v1::PositionEncoding::try_from(value) {
        Ok(v1::PositionEncoding::Utf8) => Ok(PositionEncoding::Utf8),
        Ok(v1::PositionEncoding::Unspecified | v1::PositionEncoding::Utf16) => Ok(PositionEncoding::Utf16),
        Ok(v1::PositionEncoding::Utf32) => Ok(PositionEncoding::Utf32),
        Err(_) => Err(unknown("position_encoding", value, "1 (UTF-8), 2 (UTF-16), 3 (UTF-32)")),
    }
}

impl From<TextRange> for v1::text_edit::Range {
    fn from(range: TextRange) -> Self {
        match range {
            TextRange::Bytes { start, end } => {
                Self::Bytes(v1::ByteRange { start: start as u64, end: end as u64 })
            }
            TextRange::Lsp { start, end } => {
                Self::Lsp(v1::LspRange { start: Some(start.into()), end: Some(end.into()) })
            }
        }
    }
}

impl From<Cursor> for v1::complete_request::At {
    fn from(cursor: Cursor) -> Self {
        match cursor {
            Cursor::Byte(at) => Self::AtByte(at as u64),
            Cursor::Lsp(at) => Self::AtLsp(at.into()),
            Cursor::Token(at) => Self::AtToken(at.0),
        }
    }
}

/// What the column counts stands beside the position, once for all of a request.
impl From<LspPosition> for v1::LspPosition {
    fn from(position: LspPosition) -> Self {
        Self { line: position.line, utf16_column: position.column }
    }
}

/// Converts a list; a fault names the element.
fn numbered<A, B>(list: Vec<A>, convert: impl Fn(A) -> Result<B, Fault>) -> Result<Vec<B>, Fault> {
    let one = |(index, item)| convert(item).map_err(|fault: Fault| fault.with("edit", index));
    list.into_iter().enumerate().map(one).collect()
}

fn at_most(what: &str, number: usize, limit: usize) -> Result<(), Fault> {
    if number <= limit {
        return Ok(());
    }
    Err(Fault::new(Reason::TooMany, format!("{number} {what}; the limit is {limit}")).with("limit", limit))
}

pub(crate) fn missing(field: &str, wanted: &str) -> Fault {
    Fault::new(Reason::FieldMissing, format!("the field `{field}` is missing: send {wanted}"))
}
