//! What is compared on what, by the paper's names.

use pie_words::Strategy;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A name that is none of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}; there are: {known}")]
pub struct UnknownName {
    what: &'static str,
    given: String,
    known: String,
}

macro_rules! names {
    ($(#[$doc:meta])* $name:ident, $what:literal: $($(#[$of:meta])* $variant:ident = $text:literal, $label:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$of])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// All, in the order of the paper's tables.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As on the command line and in files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The name in tables and figures.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                let same = |one: &&Self| one.name() == text || one.label().eq_ignore_ascii_case(text);
                Self::ALL.iter().find(same).copied().ok_or_else(|| UnknownName {
                    what: $what,
                    given: text.to_owned(),
                    known: Self::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

names! {
    /// A programming language of RepoBench.
    Language, "language":
    /// Python.
    Python = "python", "Python";
    /// Java.
    Java = "java", "Java";
}

names! {
    /// Which line of a file is to be predicted (RepoBench).
    Setting, "setting":
    /// The first line that uses something of another file.
    CrossFileFirst = "cross_file_first", "XF-F";
    /// A line behind the first that uses something of another file, at random.
    CrossFileRandom = "cross_file_random", "XF-R";
    /// A line that uses nothing of another file.
    InFile = "in_file", "IF";
}

names! {
    /// What the developer does (paper, appendix A), before the line behind the document, or at the cursor, is predicted.
    Task, "task":
    /// Five lines come (table 2).
    Insertion = "insertion", "insertion";
    /// Five lines go (table 3).
    Deletion = "deletion", "deletion";
    /// Five come and five others go (table 4).
    Edition = "edition", "edition";
    /// Five come a few lines from the cursor, and the line at the cursor is filled in: what editors do, and not the paper's.
    Cursor = "cursor", "filling in at the cursor";
}

names! {
    /// How the cache follows (paper, section 4.1).
    Method, "method":
    /// Everything behind the first change is encoded again: exact, slow.
    Full = "full", "Full-recomputation";
    /// What was inserted is encoded, the rest stays as it is: positions collide.
    Conflict = "conflict", "Conflict Fast Encoding";
    /// What was inserted is encoded, and the keys behind it are turned to their new positions.
    Pie = "pie", "PIE";
    /// The same, and a window of the kept tokens right behind each edited place is encoded again in the same pass.
    Repair = "repair", "PIE and repair";
}

names! {
    /// Which kept rows are encoded again with an edit.
    Choice, "choice of rows":
    /// A window right behind each edited place: stale rows alone.
    Behind = "behind", "window behind";
    /// As many rows right before each edited place, stale or not.
    Before = "before", "window before";
    /// As many stale rows anywhere, at random.
    Scattered = "scattered", "scattered";
    /// Everything behind the first change: full recomputation.
    All = "all", "everything";
}

names! {
    /// What the rows of a cache were kept in.
    Storage, "storage":
    /// f32.
    F32 = "f32", "f32";
    /// Rounded to bf16 whenever written or turned.
    Bf16 = "bf16", "bf16";
}

names! {
    /// Where a line is predicted after many edits.
    Spot, "spot":
    /// Behind the document's end.
    End = "end", "at the end";
    /// At a cursor in the middle, right behind an edit near it.
    Cursor = "cursor", "at the cursor";
    /// At a cursor where the latest commit of a file added a line, behind the edits of its commits.
    Git = "git", "at the cursor of commits";
}

names! {
    /// What happened to a cache before it was compared with a fresh one.
    Arm, "arm":
    /// Nothing: it is the fresh one.
    Fresh = "fresh", "fresh";
    /// Edits, one by one, by `pie`.
    Edited = "edited", "edited";
    /// The keys were turned there and back as often, and nothing was encoded.
    Turned = "turned", "turned";
    /// Edits, one by one, each with a window of rows behind it that are encoded again.
    Repaired = "repaired", "repaired";
    /// The same, and between two edits rows are encoded again from the frontier on, as many as the time allows.
    Healed = "healed", "healed";
    /// Edits, one by one, each with as many rows in front of it that are encoded again: a control.
    Before = "before", "repaired before";
    /// Edits, one by one, each with as many stale rows anywhere that are encoded again: a control.
    Scattered = "scattered", "repaired, scattered";
}

impl Method {
    /// What it is called in plans.
    pub fn strategy(self) -> Strategy {
        match self {
            Self::Full => Strategy::Full,
            Self::Conflict => Strategy::Conflict,
            Self::Pie => Strategy::Pie,
            Self::Repair => Strategy::Repair,
        }
    }
}
