//! The folders that an editor has open.

use lsp_types::{InitializeParams, Url, WorkspaceFoldersChangeEvent};
use std::path::PathBuf;

/// Those of them that are on this machine's disk.
#[derive(Clone, Debug, Default)]
pub struct WorkspaceFolders(Vec<PathBuf>);

impl WorkspaceFolders {
    /// What `initialize` names: several folders, or, in older editors, one.
    pub fn of(params: &InitializeParams) -> Self {
        let folders = params.workspace_folders.iter().flatten().map(|folder| &folder.uri);
        let folders: Vec<PathBuf> = folders.filter_map(path).collect();
        if folders.is_empty() {
            #[allow(deprecated, reason = "older editors have nothing else")]
            return Self(params.root_uri.iter().filter_map(path).collect());
        }
        Self(folders)
    }

    /// Some are opened, some are closed.
    pub fn change(&mut self, event: WorkspaceFoldersChangeEvent) {
        let gone: Vec<PathBuf> = event.removed.iter().filter_map(|folder| path(&folder.uri)).collect();
        self.0.retain(|folder| !gone.contains(folder));
        self.0.extend(event.added.iter().filter_map(|folder| path(&folder.uri)));
    }

    /// All of them.
    pub fn folders(&self) -> &[PathBuf] {
        &self.0
    }
}

fn path(uri: &Url) -> Option<PathBuf> {
    uri.to_file_path().ok()
}
