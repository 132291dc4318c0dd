//! The nodes of the cluster, `/nodes`, and the choice of a node for a client, `/nodes/choose`.

use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;
use serde::Serialize;

use super::Api;
use super::answer::{self, Answer, Problem};
use super::query::{Query, fault};
use super::status::Items;
use crate::clock;
use crate::config::Service;
use crate::id::Uid;
use crate::node::Member;

impl Api {
    /// Lists every living node. The own row has more fields than the others.
    pub(super) async fn nodes(&self, query: Option<&str>) -> Result<Answer, Problem> {
        Query::parse(query, &[])?;
        let members = self.node.members().await;
        // The node's own description is newer, and it is listed even before the node has joined the cluster.
        let me = self.node.own_member();
        let others = members.iter().filter(|member| member.id != me.id);
        let mut items: Vec<NodeRow> = others.chain([&me]).map(|member| self.row(member)).collect();
        items.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(answer::ok(Items { items }))
    }

    /// Chooses the node for a user, a client address, or both.
    pub(super) async fn choose(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, &["uid", "ip"])?;
        let uid = query.name("uid", Uid::parse)?;
        let ip = match query.text("ip") {
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| fault("ip", "an IP address", format!("{text:?}")))?),
            None => None,
        };
        if uid.is_none() && ip.is_none() {
            return Err(fault("query", "uid or ip", "neither"));
        }
        let Some(chosen) = self.node.choose(uid.as_ref(), ip).await else {
            let text = "no node accepts connections: all are full, draining or unreachable";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let address = self.address_of(&chosen);
        Ok(answer::ok(Chosen { id: chosen.id.to_string(), number: chosen.number, address }))
    }

    fn row(&self, member: &Member) -> NodeRow {
        let now = clock::now_millis();
        let roles = [("gateway", member.gateway), ("intake", member.intake)];
        NodeRow {
            id: member.id.to_string(),
            number: member.number,
            incarnation: member.incarnation,
            address: self.address_of(member),
            roles: roles.into_iter().filter(|(_, has)| *has).map(|(role, _)| role).collect(),
            connections: member.connections,
            capacity: member.capacity,
            draining: member.draining,
            version: member.version.clone(),
            started: member.started_at,
            uptime: u64::try_from((now - member.started_at) / 1000).unwrap_or_default(),
            own: (member.id == *self.node.id()).then(|| self.own()),
        }
    }

    fn own(&self) -> OwnRow {
        let listeners = self.about.listeners.iter().map(|listener| ListenerRow {
            address: listener.address,
            serves: listener.serves.iter().map(|service| service.as_str()).collect(),
        });
        OwnRow {
            addresses: listeners.collect(),
            users: self.node.counts_here().users,
            ready: self.node.readiness().is_ok(),
        }
    }

    /// Address for clients. Without a configured one, a node still knows its own listener.
    fn address_of(&self, member: &Member) -> Option<String> {
        if !member.address.is_empty() {
            return Some(member.address.clone());
        }
        let serves = |service: &Service| matches!(service, Service::Ws | Service::Cim | Service::CimTcp);
        let own = self.about.listeners.iter().find(|listener| listener.serves.iter().any(serves));
        own.filter(|_| member.id == *self.node.id()).map(|listener| listener.address.to_string())
    }
}

#[derive(Serialize)]
struct NodeRow {
    id: String,
    number: u16,
    /// Incarnation of the node; 0 = it has not joined the cluster.
    incarnation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    roles: Vec<&'static str>,
    connections: u64,
    capacity: u64,
    draining: bool,
    version: String,
    /// Milliseconds since 1970.
    started: i64,
    /// Seconds.
    uptime: u64,
    /// Only for the node that answers.
    #[serde(flatten)]
    own: Option<OwnRow>,
}

/// Fields that only the node itself knows.
#[derive(Serialize)]
struct OwnRow {
    addresses: Vec<ListenerRow>,
    users: usize,
    ready: bool,
}

#[derive(Serialize)]
struct ListenerRow {
    address: SocketAddr,
    serves: Vec<&'static str>,
}

#[derive(Serialize)]
struct Chosen {
    id: String,
    number: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}
