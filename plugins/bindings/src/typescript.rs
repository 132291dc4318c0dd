//! One `declare module` for each interface, with the value conventions of componentize-qjs: options are null, errors of
//! results are thrown.

use std::error::Error;
use std::fmt::Write as _;

use wit_bindgen_core::wit_parser::{
    Docs, Function, Interface, InterfaceId, PackageId, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner,
};

use crate::{Files, wit};

/// The interfaces that a plugin exports; all others are imports.
const EXPORTS: [&str; 8] = ["auth", "filter", "handler", "events", "access", "lifecycle", "alarms", "receipts"];

/// Names that are reserved in TypeScript.
const RESERVED: [&str; 1] = ["delete"];

/// Generates `plugins/sdk-js/skylark.d.ts`.
///
/// # Errors
/// `wit/` does not parse.
pub(crate) fn generate() -> Result<Files, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit())?;
    let mut text = String::from("// Made from wit/ by `cargo run -p bindings`, in plugins/.\n");
    let name = &resolve.packages[package].name;
    for (interface, id) in &resolve.packages[package].interfaces {
        let module = format!("{}:{}/{interface}", name.namespace, name.name);
        let interface = Module { resolve: &resolve, id: *id, package };
        writeln!(text, "\n{}declare module \"{module}\" {{", comment(&interface.it().docs, ""))?;
        interface.write(&mut text)?;
        writeln!(text, "}}")?;
    }
    Ok(Files::from([("sdk-js/skylark.d.ts".to_owned(), text.into_bytes())]))
}

struct Module<'a> {
    resolve: &'a Resolve,
    id: InterfaceId,
    package: PackageId,
}

impl Module<'_> {
    fn it(&self) -> &Interface {
        &self.resolve.interfaces[self.id]
    }

    fn write(&self, text: &mut String) -> Result<(), Box<dyn Error>> {
        for (name, id) in &self.it().types {
            let def = &self.resolve.types[*id];
            text.push_str(&comment(&def.docs, "  "));
            self.define(text, &pascal(name), def)?;
        }
        let name = self.it().name.as_deref().unwrap_or_default();
        let is_export = EXPORTS.contains(&name);
        if is_export {
            writeln!(text, "  /** What the plugin exports as `{}`. */", camel(name))?;
            writeln!(text, "  export interface {} {{", pascal(name))?;
        }
        for (name, function) in &self.it().functions {
            let (name, signature) = (camel(name), self.signature(function));
            text.push_str(&comment(&function.docs, if is_export { "    " } else { "  " }));
            if is_export {
                writeln!(text, "    {name}{signature};")?;
            } else if RESERVED.contains(&name.as_str()) {
                writeln!(text, "  function {name}_{signature};\n  export {{ {name}_ as {name} }};")?;
            } else {
                writeln!(text, "  export function {name}{signature};")?;
            }
        }
        if is_export {
            writeln!(text, "  }}")?;
        }
        Ok(())
    }

    fn define(&self, text: &mut String, name: &str, def: &TypeDef) -> std::fmt::Result {
        match &def.kind {
            TypeDefKind::Record(record) => {
                writeln!(text, "  export interface {name} {{")?;
                for field in &record.fields {
                    text.push_str(&comment(&field.docs, "    "));
                    writeln!(text, "    {}: {};", camel(&field.name), self.of(&field.ty))?;
                }
                writeln!(text, "  }}")
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter().map(|case| match &case.ty {
                    Some(ty) => format!("{{ tag: {:?}; val: {} }}", case.name, self.of(ty)),
                    None => format!("{{ tag: {:?} }}", case.name),
                });
                writeln!(text, "  export type {name} = {};", cases.collect::<Vec<_>>().join(" | "))
            }
            TypeDefKind::Enum(cases) => {
                let cases: Vec<_> = cases.cases.iter().map(|case| format!("{:?}", case.name)).collect();
                writeln!(text, "  export type {name} = {};", cases.join(" | "))
            }
            TypeDefKind::Type(Type::Id(other)) => {
                let used = &self.resolve.types[*other];
                match (used.owner, &used.name) {
                    (TypeOwner::Interface(from), Some(original)) if from != self.id => {
                        let module = &self.resolve.packages[self.package].name;
                        let from = self.resolve.interfaces[from].name.as_deref().unwrap_or_default();
                        let (space, package) = (&module.namespace, &module.name);
                        let original = pascal(original);
                        writeln!(text, "  export type {name} = import(\"{space}:{package}/{from}\").{original};")
                    }
                    _ => writeln!(text, "  export type {name} = {};", self.named(*other)),
                }
            }
            _ => writeln!(text, "  export type {name} = {};", self.kind(&def.kind)),
        }
    }

    fn signature(&self, function: &Function) -> String {
        let params: Vec<_> =
            function.params.iter().map(|param| format!("{}: {}", camel(&param.name), self.of(&param.ty))).collect();
        let result = function.result.map_or("void".to_owned(), |ty| self.returned(&ty));
        format!("({}): {result}", params.join(", "))
    }

    /// A function with a result returns its value and throws its error.
    fn returned(&self, ty: &Type) -> String {
        if let Type::Id(id) = ty
            && let TypeDefKind::Result(result) = &self.resolve.types[*id].kind
        {
            return result.ok.map_or("void".to_owned(), |ok| self.of(&ok));
        }
        self.of(ty)
    }

    fn of(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "boolean".to_owned(),
            Type::String | Type::Char => "string".to_owned(),
            Type::Id(id) => self.named(*id),
            _ => "number".to_owned(),
        }
    }

    fn named(&self, id: TypeId) -> String {
        let def = &self.resolve.types[id];
        def.name.as_deref().map_or_else(|| self.kind(&def.kind), pascal)
    }

    fn kind(&self, kind: &TypeDefKind) -> String {
        match kind {
            TypeDefKind::List(Type::U8) => "Uint8Array".to_owned(),
            TypeDefKind::List(item) => format!("Array<{}>", self.of(item)),
            TypeDefKind::Option(item) => format!("{} | null", self.of(item)),
            TypeDefKind::Tuple(tuple) => {
                format!("[{}]", tuple.types.iter().map(|ty| self.of(ty)).collect::<Vec<_>>().join(", "))
            }
            TypeDefKind::Type(ty) => self.of(ty),
            other => format!("unknown /* {} */", other.as_str()),
        }
    }
}

fn comment(docs: &Docs, indent: &str) -> String {
    let Some(text) = &docs.contents else { return String::new() };
    let lines: Vec<_> = text.trim().lines().map(|line| format!("{indent} * {line}").trim_end().to_owned()).collect();
    match lines.as_slice() {
        [line] => format!("{indent}/** {} */\n", line.trim_start_matches([' ', '*'])),
        lines => format!("{indent}/**\n{}\n{indent} */\n", lines.join("\n")),
    }
}

fn pascal(name: &str) -> String {
    name.split('-').map(capital).collect()
}

fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    first + &words.map(capital).collect::<String>()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
