//! documents, positions, tokenizing around edits.
