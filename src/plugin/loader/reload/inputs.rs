//! Input of the loader besides changes of files: commands and rollback requests.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::LoaderCommand;
use crate::plugin::calls::version::RollbackRequest;

/// Input of the loader besides changes of files.
pub(in crate::plugin) struct LoaderInputs {
    pub(super) commands: mpsc::Receiver<LoaderCommand>,
    pub(super) rollback_requests: mpsc::Receiver<RollbackRequest>,
    /// Commands that arrived during a load and need the directory.
    pub(super) deferred: VecDeque<LoaderCommand>,
}

impl LoaderInputs {
    pub(in crate::plugin) fn new(
        commands: mpsc::Receiver<LoaderCommand>,
        rollback_requests: mpsc::Receiver<RollbackRequest>,
    ) -> Self {
        Self { commands, rollback_requests, deferred: VecDeque::new() }
    }

    /// The next input; `None` when all senders are gone.
    pub(super) async fn next(&mut self) -> Option<LoaderInput> {
        if let Some(command) = self.deferred.pop_front() {
            return Some(LoaderInput::Command(command));
        }
        tokio::select! {
            Some(request) = self.rollback_requests.recv() => Some(LoaderInput::RollbackRequest(request)),
            command = self.commands.recv() => command.map(LoaderInput::Command),
        }
    }
}

/// One of [`LoaderInputs`].
pub(in crate::plugin) enum LoaderInput {
    Command(LoaderCommand),
    RollbackRequest(RollbackRequest),
}
