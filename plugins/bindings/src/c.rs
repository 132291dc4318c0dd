//! C bindings that `wit-bindgen` generates from `wit/`: one folder for each role, with all interfaces that the role may
//! call.
//!
//! The generator is used as a library, because its command contains the generators of every language and takes minutes
//! to build. Does not know `skylark.h`, the hand-written helper.

use std::error::Error;

use wit_bindgen_core::wit_parser::Resolve;

use crate::{Files, wit};

/// Folder for a component with all roles.
const ALL: &str = "all";

/// Each role with the optional exports of its plugins. `skylark.h` implements those that the plugin does not define.
const ROLES: [(&str, &[&str]); 5] = [
    ("auth", &["lifecycle"]),
    ("filter", &["lifecycle"]),
    ("handler", &["alarms", "lifecycle"]),
    ("events", &["alarms", "lifecycle", "receipts"]),
    ("access", &["lifecycle"]),
];

/// Generates every generated file of `plugins/sdk-c`.
///
/// # Errors
/// `wit/` does not parse, or lacks a named world.
pub(crate) fn generate() -> Result<Files, Box<dyn Error>> {
    let mut files = Files::new();
    for (role, optional) in ROLES {
        files.extend(bindings(role, &[role], optional)?);
    }
    let roles = ROLES.map(|(role, _)| role);
    let mut optional: Vec<&str> = ROLES.iter().flat_map(|(_, optional)| *optional).copied().collect();
    optional.sort_unstable();
    optional.dedup();
    files.extend(bindings(ALL, &roles, &optional)?);
    Ok(files)
}

fn bindings(folder: &str, roles: &[&str], optional: &[&str]) -> Result<Files, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit())?;
    let name = &resolve.packages[package].name;
    let version = name.version.as_ref().ok_or("a package without a version")?.to_string();
    let include = roles.iter().map(|role| format!("include skylark:plugin/{role}-plugin@{version};"));
    let export = optional.iter().map(|interface| format!("export skylark:plugin/{interface}@{version};"));
    let items: String = include.chain(export).collect();
    let ours = resolve.push_str("world.wit", &format!("package skylark:c-{folder}; world plugin {{ {items} }}"))?;
    let world = resolve.select_world(&[ours], None)?;
    let options = wit_bindgen_c::Opts { rename_world: Some("plugin".to_owned()), ..Default::default() };
    let mut files = wit_bindgen_core::Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    let named = files.iter().map(|(name, bytes)| (format!("sdk-c/{folder}/{name}"), bytes.to_vec()));
    let version = format!("#define SKYLARK_VERSION \"{version}\"\n").into_bytes();
    Ok(named.chain([(format!("sdk-c/{folder}/version.h"), version)]).collect())
}
