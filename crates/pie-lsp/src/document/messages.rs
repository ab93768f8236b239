//! What a document's task is told and asked, and what it answers.

use crate::settings::EditorSettings;
use pie_client::Edit;
use pie_proto::v1;
use ropey::Rope;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The text that the editor has. Numbers count the changes: where one is missing, the text itself makes it good.
#[derive(Clone, Debug)]
pub struct DocumentSnapshot {
    /// The text.
    pub text: Rope,
    /// How many changes made it.
    pub number: u64,
}

/// What a document's task is told.
#[derive(Debug)]
pub enum DocumentMessage {
    /// The text became this by these edits, one after the other.
    Edited(DocumentSnapshot, Vec<Edit>),
    /// Somebody wants a completion.
    Asked(Question),
}

/// What to complete. Whoever does not want the answer any more drops the receiver.
#[derive(Debug)]
pub struct Question {
    /// What the editor shows.
    pub shown: DocumentSnapshot,
    /// A byte of it.
    pub cursor: usize,
    /// What the model is to see of other documents.
    pub front: v1::Parts,
    /// What is asked for.
    pub wanted: Wanted,
    /// Where the answer goes; nothing comes where there is nothing to say.
    pub answer: oneshot::Sender<Answer>,
}

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What comes at the cursor.
    Suggestion,
    /// What the lines around it become next.
    NextEdit,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To be inserted at the cursor.
    Suggestion(String),
    /// Of whole lines of the text that the editor shows.
    NextEdit(Vec<Edit>),
}

/// What may be done with a document.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Nobody knows yet: it stays here.
    Unknown,
    /// It stays here.
    Kept,
    /// The pool may have it.
    Sent(Arc<EditorSettings>),
}
