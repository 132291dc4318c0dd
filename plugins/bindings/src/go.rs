//! Go bindings that `wit-bindgen` generates from `wit/`: one package for each interface, one for the exports of each
//! role, a copy of the interface, and the adapter that replaces WASI.
//!
//! The generated code imports a module that no registry has, and hands out memory that the collector must not free.
//! `plugins/sdk-go` provides both, and the paths are replaced here. Does not know the hand-written packages of
//! `sdk-go`.

use std::error::Error;

use wit_bindgen_core::wit_parser::{Resolve, WorldId};

use crate::{Files, wit};

/// Exports of plugins. Each is a package that the main package of a plugin imports if it has the role.
const EXPORTS: [&str; 8] = ["auth", "filter", "handler", "events", "access", "lifecycle", "alarms", "receipts"];

/// Import path of the generated packages.
const PACKAGE: &str = "skylark/internal/wit";

/// Imports in the generated sources, and their replacements.
const IMPORTS: [(&str, &str); 3] = [
    ("\"runtime\"\n", "runtime \"skylark/internal/abi\"\n"),
    ("\"go.bytecodealliance.org/pkg/wit/runtime\"", "\"skylark/internal/abi\""),
    ("\"go.bytecodealliance.org/pkg/wit/types\"", "\"skylark/internal/values\""),
];

/// Generates every generated file of `plugins/sdk-go`.
///
/// # Errors
/// `wit/` or the text of the adapter does not parse.
pub(crate) fn generate() -> Result<Files, Box<dyn Error>> {
    let mut files = Files::new();
    let imports = interfaces()?.into_iter().filter(|name| !EXPORTS.contains(&name.as_str()));
    let imports: String = imports.map(|name| format!("import skylark:plugin/{name};")).collect();
    packages(&mut files, &imports, None)?;
    for name in EXPORTS {
        packages(&mut files, &format!("export skylark:plugin/{name};"), Some(name))?;
    }
    files.insert("sdk-go/skylark.wit".to_owned(), std::fs::read(wit().join("skylark.wit"))?);
    files.insert("sdk-go/adapter.wasm".to_owned(), adapter()?);
    Ok(files)
}

/// Generates the packages of a world. An export package has the name of its interface.
fn packages(files: &mut Files, items: &str, export: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (mut resolve, world) = world(items)?;
    let options = wit_bindgen_go::Opts {
        format: wit_bindgen_go::Format::False,
        pkg_name: Some(PACKAGE.to_owned()),
        ..Default::default()
    };
    let mut made = wit_bindgen_core::Files::default();
    options.build().generate(&mut resolve, world, &mut made)?;
    for (path, bytes) in made.iter() {
        let mut text = String::from_utf8(bytes.to_vec())?;
        let path = match (path, export) {
            ("wit_exports/wit_exports.go", Some(export)) => {
                text = text.replace("package wit_exports", &format!("package {export}"));
                format!("exports/{export}/exports.go")
            }
            ("wit_exports/wit_exports.go", None) => continue,
            (path, _) => path.to_owned(),
        };
        for (theirs, ours) in IMPORTS {
            text = text.replace(theirs, ours);
        }
        let path = format!("sdk-go/internal/wit/{path}");
        if let Some(before) = files.insert(path.clone(), text.clone().into_bytes())
            && before != text.as_bytes()
        {
            return Err(format!("{path} is not the same in every world").into());
        }
    }
    Ok(())
}

fn world(items: &str) -> Result<(Resolve, WorldId), Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit())?;
    let version = version(&resolve, package)?;
    let items = items.replace(';', &format!("@{version};"));
    let ours = resolve.push_str("world.wit", &format!("package skylark:go; world plugin {{ {items} }}"))?;
    let world = resolve.select_world(&[ours], None)?;
    Ok((resolve, world))
}

fn version(resolve: &Resolve, package: wit_bindgen_core::wit_parser::PackageId) -> Result<String, Box<dyn Error>> {
    Ok(resolve.packages[package].name.version.as_ref().ok_or("a package without a version")?.to_string())
}

fn interfaces() -> Result<Vec<String>, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit())?;
    Ok(resolve.packages[package].interfaces.keys().cloned().collect())
}

/// `adapter.wat` as a module with the metadata of its imports.
fn adapter() -> Result<Vec<u8>, Box<dyn Error>> {
    let (resolve, world) =
        world("import skylark:plugin/clock; import skylark:plugin/crypto; import skylark:plugin/log;")?;
    let package = resolve.worlds[world].imports.values().find_map(|item| match item {
        wit_bindgen_core::wit_parser::WorldItem::Interface { id, .. } => resolve.interfaces[*id].package,
        _ => None,
    });
    let version = version(&resolve, package.ok_or("a world without imports")?)?;
    let text = std::fs::read_to_string(crate::home().join("sdk-go/adapter.wat"))?.replace("VERSION", &version);
    let mut module = wat::parse_str(text)?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8)?;
    Ok(module)
}
