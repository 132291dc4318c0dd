//! Operator commands while the node runs. A command to one plugin holds for this process; permanent settings belong in
//! the manifest.

use std::sync::Arc;

use metrics::counter;
use tokio::sync::oneshot;

use super::super::trust::Trust;
use super::{Loader, Settling};
use crate::plugin::calls::snapshot::states::{Entry, State};
use crate::plugin::{PluginCommand, PluginCommandFault, Status};
use crate::telemetry::names;

/// Command to the loader.
pub(in crate::plugin) enum LoaderCommand {
    /// Scan the directory now.
    Scan(oneshot::Sender<()>),
    /// Allow plugins with these names to disappear.
    AllowRemove(Vec<String>, oneshot::Sender<()>),
    /// Check each file by these trust rules from now on.
    Trust(Trust, oneshot::Sender<()>),
    /// An operator command to one plugin.
    Operator(Arc<str>, PluginCommand, oneshot::Sender<Result<Status, PluginCommandFault>>),
}

impl LoaderCommand {
    /// True if it has to wait until the loader is free.
    pub(super) fn needs_files(&self) -> bool {
        !matches!(self, Self::Operator(_, PluginCommand::Disable | PluginCommand::RollBack | PluginCommand::Readmit, _))
    }
}

impl Loader {
    /// Executes a command and answers it. The caller may have gone away.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(in crate::plugin) async fn execute(&mut self, command: LoaderCommand) -> std::io::Result<()> {
        match command {
            LoaderCommand::Scan(done) => {
                let scanned = self.scan(Settling::Now).await;
                let _ = done.send(());
                scanned
            }
            LoaderCommand::AllowRemove(names, done) => {
                self.allow_remove(names);
                let scanned = self.scan(Settling::Settle).await;
                let _ = done.send(());
                scanned
            }
            LoaderCommand::Trust(trust, done) => {
                self.set_trust(trust);
                let scanned = self.scan(Settling::Now).await;
                let _ = done.send(());
                scanned
            }
            LoaderCommand::Operator(name, PluginCommand::Enable, answer) => {
                let enabled = self.enable(&name).await;
                let _ = answer.send(enabled.and_then(|()| self.status(&name)));
                Ok(())
            }
            LoaderCommand::Operator(name, PluginCommand::Reload, answer) => {
                let reloaded = self.reload(&name).await;
                let _ = answer.send(reloaded.and_then(|()| self.status(&name)));
                Ok(())
            }
            LoaderCommand::Operator(
                _,
                PluginCommand::Disable | PluginCommand::RollBack | PluginCommand::Readmit,
                _,
            ) => {
                self.execute_now(command).await;
                Ok(())
            }
        }
    }

    /// Sets the trust rules. Refused files are tried again, except those that were rolled back. Versions that serve go
    /// on, and are checked when they are loaded the next time.
    fn set_trust(&mut self, trust: Trust) {
        self.env.set_trust(trust);
        for plugin in self.plugins.values_mut() {
            let refused = plugin.entry.as_ref().is_some_and(|entry| entry.rejected.is_some());
            if refused && !plugin.rollback.is_active() {
                plugin.retry();
            }
        }
    }

    /// Executes a command that needs no file.
    pub(super) async fn execute_now(&mut self, command: LoaderCommand) {
        let LoaderCommand::Operator(name, command, answer) = command else { return };
        let done = match command {
            PluginCommand::Disable => self.disable(&name),
            PluginCommand::RollBack if !self.plugins.contains_key(&name) => Err(PluginCommandFault::Unknown),
            PluginCommand::RollBack => {
                let reason = "rolled back by the operator".to_owned();
                self.roll_back(&name, reason).await.map_err(PluginCommandFault::NotPossible)
            }
            PluginCommand::Readmit => self.readmit(&name),
            PluginCommand::Enable | PluginCommand::Reload => return,
        };
        let _ = answer.send(done.and_then(|()| self.status(&name)));
    }

    /// Serves all sources again, including those that its versions have set apart.
    fn readmit(&self, name: &Arc<str>) -> Result<(), PluginCommandFault> {
        let entry =
            self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref()).ok_or(PluginCommandFault::Unknown)?;
        entry.versions().for_each(|version| version.breaker.readmit());
        tracing::info!(plugin = %name, "sources readmitted by the operator");
        Ok(())
    }

    fn status(&self, name: &Arc<str>) -> Result<Status, PluginCommandFault> {
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref());
        entry.map(Entry::status).ok_or(PluginCommandFault::Unknown)
    }

    /// Takes the plugin out of service, even if it is fail-closed. The entry is kept for `enable`.
    fn disable(&mut self, name: &Arc<str>) -> Result<(), PluginCommandFault> {
        let plugin = self.plugins.get_mut(name).ok_or(PluginCommandFault::Unknown)?;
        if plugin.is_disabled() {
            return Ok(());
        }
        let entry = plugin.entry.take().ok_or(PluginCommandFault::Unknown)?;
        let guarded = entry.live().is_some_and(|live| live.roles.iter().any(|role| live.is_fail_closed(*role)));
        tracing::warn!(
            plugin = %name, before = entry.live().map(|live| live.files_id.hash.as_ref()), guarded = guarded || entry.fail_closed().is_some(),
            "plugin is disabled by the operator until it is enabled or the node restarts"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "disabled").increment(1);
        entry.live().into_iter().chain(entry.previous()).for_each(|version| version.drop_instances());
        plugin.entry = Some(entry.disable_by_operator());
        if std::mem::take(&mut plugin.has_key_conflict) {
            // Files of a disabled plugin are not loaded, so a key conflict is checked again when it is enabled.
            plugin.retry();
        }
        self.publish_one(name);
        Ok(())
    }

    /// Restores the entry that `disable` took out, and then applies changes on disk.
    async fn enable(&mut self, name: &Arc<str>) -> Result<(), PluginCommandFault> {
        let plugin = self.plugins.get_mut(name).ok_or(PluginCommandFault::Unknown)?;
        let Some(entry) = plugin.entry.clone() else { return Ok(()) };
        let Some(before) = entry.before_disable() else {
            let off = matches!(entry.state, State::DisabledByManifest);
            let fault =
                || PluginCommandFault::NotPossible(format!("{name}.toml says enabled = false: change it there"));
            return if off { Err(fault()) } else { Ok(()) };
        };
        if let Some(live) = before.live() {
            if let Some((key, owner)) = self.key_conflict(live) {
                return Err(PluginCommandFault::NotPossible(format!(
                    "it owns the key {key:?}, which plugin {owner} owns now"
                )));
            }
            if let Err(failure) = live.warm().await {
                tracing::warn!(plugin = %name, %failure, "plugin has no warm instances");
            }
        }
        tracing::info!(
            plugin = %name, hash = before.live().map(|live| live.files_id.hash.as_ref()), "plugin is enabled by the operator"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "enabled").increment(1);
        self.plugin(name).entry = Some(entry.enable());
        self.apply_pending(name).await;
        self.publish_one(name);
        Ok(())
    }

    /// Tries the files on disk again, regardless of earlier results.
    async fn reload(&mut self, name: &Arc<str>) -> Result<(), PluginCommandFault> {
        let plugin = self.plugins.get_mut(name).ok_or(PluginCommandFault::Unknown)?;
        if plugin.is_disabled() {
            return Err(PluginCommandFault::NotPossible("it is disabled: enable it first".to_owned()));
        }
        plugin.retry();
        self.apply_pending(name).await;
        self.publish_one(name);
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref());
        match entry.and_then(|entry| entry.rejected.as_ref()) {
            Some(rejected) => Err(PluginCommandFault::NotPossible(format!("its file is refused: {}", rejected.reason))),
            None => Ok(()),
        }
    }

    async fn apply_pending(&mut self, name: &Arc<str>) {
        if self.plugin(name).changed.take().is_some() {
            self.apply(name).await;
        }
    }
}
