//! `skylark plugin enable|disable|reload|rollback|readmit`: sends a command for one plugin to a running node.

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::Value;

use super::list::table;
use crate::cli::http::NodeArgs;
use crate::cli::{ConfigSource, block_on, print};
use crate::config::Scope;

#[derive(Debug, clap::Args)]
pub(super) struct Control {
    /// Name of the plugin, as in `skylark plugin list`.
    name: String,
    /// Print the node's response as it is.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl Control {
    pub(super) fn run(self, action: &str, source: &ConfigSource) -> anyhow::Result<()> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(is_plain) {
            bail!("expected the name of a plugin, got {:?}", self.name);
        }
        let node = self.node.node(source, &[Scope::Plugins])?;
        let answer = block_on(node.request(Method::POST, &format!("/plugins/{}/{action}", self.name), None))?;
        if self.json {
            return print(&answer);
        }
        let answer: Value = serde_json::from_str(&answer)?;
        let status = answer.get("data").with_context(|| format!("expected a plugin from the node, got {answer}"))?;
        table(std::slice::from_ref(status)).iter().try_for_each(|line| print(line)).context("cannot print")
    }
}
