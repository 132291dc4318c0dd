//! The files of one plugin, read whole, and the identity of their state.
//!
//! Reads no file: the loader does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plugin::digest;

/// A plugin's files, read whole.
#[derive(Clone)]
pub(in crate::plugin) struct PluginFiles {
    pub(in crate::plugin) plugin: Arc<str>,
    pub(in crate::plugin) bytes: Arc<[u8]>,
    pub(in crate::plugin) id: FilesId,
}

/// Identity of one state of a plugin's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::plugin) struct FilesId {
    /// SHA-256 of the component, hexadecimal.
    pub(in crate::plugin) hash: Arc<str>,
    /// The manifest's text.
    pub(in crate::plugin) manifest: Option<Arc<str>>,
    /// Content of the signature file beside the component.
    pub(in crate::plugin) signature: Option<Arc<str>>,
}

impl FilesId {
    /// True if there is a manifest that is not blank.
    pub(in crate::plugin) fn has_manifest(&self) -> bool {
        self.manifest.as_deref().is_some_and(|text| !text.trim().is_empty())
    }
}

impl PluginFiles {
    pub(in crate::plugin) fn new(
        plugin: Arc<str>,
        bytes: Vec<u8>,
        manifest: Option<String>,
        signature: Option<String>,
    ) -> Self {
        let hash = digest::of(&bytes).into();
        let id = FilesId { hash, manifest: manifest.map(Into::into), signature: signature.map(Into::into) };
        Self { plugin, bytes: bytes.into(), id }
    }

    /// The manifest's text; empty if there is no manifest.
    pub(in crate::plugin) fn manifest(&self) -> &str {
        self.id.manifest.as_deref().unwrap_or_default()
    }
}
