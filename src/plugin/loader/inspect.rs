//! Inspects a file before it may serve: it must be a component with roles, and its imports must be offered and granted.
//!
//! All faults are reported together, each with a remedy.

use std::collections::BTreeSet;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::manifest::GRANTS;
use crate::plugin::Role;
use crate::plugin::guest::interface::ComponentInterface;
use crate::plugin::guest::manifest::Manifest;

/// Package and version that this host offers. A guest for a higher patch number may need functions that are missing
/// here.
const PACKAGE: &str = "skylark:plugin/";
const VERSION: &str = "0.1.";

/// WASI interfaces that an empty context satisfies.
const WASI: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// Checks the first bytes, which tell a component from files that are often taken for one.
///
/// # Errors
/// The file is no component; the error says which kind of file it is.
pub(in crate::plugin) fn check_magic(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [b'\0', b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("this is a core module, not a component: build it for wasm32-wasip2, or wrap it with `wasm-tools component new`".into())
        }
        [b'\0', b'a', b's', b'm', ..] => Err("this is WebAssembly of an unknown version".into()),
        [] => Err("the file is empty".into()),
        _ => Err("this is not WebAssembly".into()),
    }
}

/// Why a component did not compile, worded for its author.
pub(in crate::plugin) fn compile_fault(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    if text.contains("async") && (text.contains("feature") || text.contains("component model async")) {
        return format!("it needs component-model-async, which this host does not have: rebuild with --sync ({text})");
    }
    text
}

/// Finds the roles and checks the imports.
///
/// # Errors
/// All faults, and the roles as far as they were found.
pub(in crate::plugin) fn inspect(
    engine: &Engine,
    component: &Component,
    plugin: &str,
    manifest: &Manifest,
) -> Result<ComponentInterface, (Vec<Role>, Vec<String>)> {
    let (interface, mut faults) = read_interface(engine, component);
    if interface.roles.is_empty() {
        let roles = Role::ALL.map(Role::as_str).join(", ");
        faults.push(format!("it exports none of {PACKAGE}{{{roles}}}@{VERSION}x, so it has no role"));
    } else {
        faults.extend(interface.imports.iter().filter_map(|import| import_fault(import, &interface.roles)));
        faults.extend(grant_fault(plugin, &interface.imports, &manifest.grants));
    }
    if faults.is_empty() { Ok(interface) } else { Err((interface.roles, faults)) }
}

/// Lists the exports and imports without checking permissions, and the faults of those that this host does not know.
pub(in crate::plugin) fn read_interface(engine: &Engine, component: &Component) -> (ComponentInterface, Vec<String>) {
    let kind = component.component_type();
    let mut interface = ComponentInterface::default();
    let mut faults = Vec::new();
    for (export, _) in kind.exports(engine) {
        let Some(name) = skylark_interface(export, &mut interface.versions, &mut faults) else { continue };
        match Role::ALL.iter().find(|role| role.as_str() == name) {
            Some(role) => interface.roles.push(*role),
            None => {
                interface.lifecycle |= name == "lifecycle";
                interface.alarms |= name == "alarms";
                interface.receipts |= name == "receipts";
            }
        }
    }
    interface.roles.sort_by_key(|role| *role as usize);
    for (import, _) in kind.imports(engine) {
        match skylark_interface(import, &mut interface.versions, &mut faults) {
            Some(name) => interface.imports.push(name.to_owned()),
            None => faults.extend(foreign_fault(import)),
        }
    }
    (interface, faults)
}

/// The version of the package that this host offers, as stated in its WIT.
pub(in crate::plugin) fn offered() -> &'static str {
    let package =
        include_str!("../../../wit/skylark.wit").lines().find_map(|line| line.strip_prefix("package skylark:plugin@"));
    package.map_or("", |version| version.trim_end_matches(';'))
}

/// The short name of a Skylark interface.
fn skylark_interface<'a>(name: &'a str, versions: &mut BTreeSet<String>, faults: &mut Vec<String>) -> Option<&'a str> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    versions.insert(version.to_owned());
    if !version.starts_with(VERSION) {
        faults.push(format!("{name}: this host offers {PACKAGE}*@{VERSION}x: rebuild the plugin against its wit"));
    }
    Some(interface)
}

fn foreign_fault(import: &str) -> Option<String> {
    if import.starts_with(PACKAGE) || WASI.iter().any(|known| import.starts_with(known) && import.contains("@0.2.")) {
        return None;
    }
    let advice = if import.starts_with("wasi:") { ": rebuild without it, e.g. with --stub-wasi" } else { "" };
    Some(format!("imports {import}, which this host does not offer{advice}"))
}

/// A component may import everything that at least one of its roles may use.
fn import_fault(import: &str, roles: &[Role]) -> Option<String> {
    let allowed = |role: &Role| -> &[&str] {
        match role {
            Role::Auth => &["kv", "counters", "http"],
            Role::Filter => &["publication", "directory", "counters"],
            Role::Access => &["directory", "kv", "counters", "history", "http"],
            Role::Handler | Role::Events => {
                &["directory", "outbox", "timers", "login", "kv", "counters", "history", "http"]
            }
        }
    };
    const ANY: [&str; 5] = ["types", "log", "settings", "clock", "crypto"];
    if ANY.contains(&import) || roles.iter().any(|role| allowed(role).contains(&import)) {
        return None;
    }
    let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" and ");
    let known = import == "publication" || GRANTS.contains(&import);
    Some(if known {
        format!("imports {PACKAGE}{import}, which the role {roles} may not use")
    } else {
        format!("imports {PACKAGE}{import}, which this host does not offer")
    })
}

fn grant_fault(plugin: &str, imports: &[String], granted: &[String]) -> Option<String> {
    let is_granted = |name: &&str| granted.iter().any(|grant| grant == name);
    let missing: Vec<&str> = needed(imports).filter(|name| !is_granted(name)).collect();
    if missing.is_empty() {
        return None;
    }
    let line = GRANTS.into_iter().filter(|name| needed(imports).any(|other| other == *name) || is_granted(name));
    let line: Vec<String> = line.map(|name| format!("{name:?}")).collect();
    Some(format!(
        "imports {}, which is not granted: put this line into {plugin}.toml: grants = [{}]",
        missing.join(" and "),
        line.join(", ")
    ))
}

/// The grants that these imports need.
pub(in crate::plugin) fn needed(imports: &[String]) -> impl Iterator<Item = &'static str> {
    GRANTS.into_iter().filter(|name| imports.iter().any(|import| import == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide_if_a_file_is_a_component() {
        assert!(check_magic(b"\0asm\x0d\0\x01\0...").is_ok());
        assert!(check_magic(b"\0asm\x01\0\0\0").unwrap_err().contains("core module"));
        assert_eq!(check_magic(b"").unwrap_err(), "the file is empty");
        assert_eq!(check_magic(b"#!/bin/sh").unwrap_err(), "this is not WebAssembly");
    }

    #[test]
    fn import_without_a_fitting_role_or_grant_is_a_fault() {
        assert_eq!(import_fault("kv", &[Role::Handler]), None);
        assert_eq!(import_fault("outbox", &[Role::Filter, Role::Handler]), None);
        for effect in ["outbox", "login", "kv", "history", "http"] {
            assert!(import_fault(effect, &[Role::Filter]).is_some(), "a filter may not import {effect}");
        }
        assert_eq!(
            import_fault("outbox", &[Role::Filter]).unwrap(),
            "imports skylark:plugin/outbox, which the role filter may not use"
        );
        for effect in ["outbox", "login", "timers"] {
            assert!(import_fault(effect, &[Role::Access]).is_some(), "an access plugin may not import {effect}");
        }
        assert_eq!(import_fault("kv", &[Role::Access]), None);
        assert_eq!(import_fault("history", &[Role::Access]), None);
        assert!(import_fault("disk", &[Role::Handler]).unwrap().ends_with("does not offer"));
        assert!(foreign_fault("wasi:http/outgoing-handler@0.2.3").unwrap().contains("--stub-wasi"));
        assert_eq!(foreign_fault("wasi:io/poll@0.2.6"), None);
        let imports = ["kv".to_owned(), "outbox".to_owned()];
        assert_eq!(
            grant_fault("call", &imports, &["kv".to_owned()]).unwrap(),
            "imports outbox, which is not granted: put this line into call.toml: grants = [\"outbox\", \"kv\"]"
        );
        assert_eq!(grant_fault("call", &imports, &["kv".to_owned(), "outbox".to_owned()]), None);
    }
}
