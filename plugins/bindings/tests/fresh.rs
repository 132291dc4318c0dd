//! The committed bindings are equal to the generated ones.

#[test]
fn the_committed_bindings_are_those_of_the_wit() {
    for (path, bytes) in bindings::generate().unwrap() {
        let committed = std::fs::read(bindings::home().join(&path)).unwrap_or_default();
        assert!(committed == bytes, "plugins/{path} is not what wit/ says: cargo run -p bindings, in plugins/");
    }
}

#[test]
fn the_templates_ask_for_the_version_of_the_wit() {
    let version = String::from_utf8(bindings::generate().unwrap()["sdk-c/all/version.h"].clone()).unwrap();
    let version = version.split('"').nth(1).unwrap();
    for role in ["auth", "filter", "handler", "events", "access"] {
        let world = std::fs::read_to_string(bindings::home().join(format!("templates/role/{role}/world.wit"))).unwrap();
        for line in world.lines().filter(|line| line.contains("skylark:plugin/")) {
            assert!(line.ends_with(&format!("@{version};")), "{role}: expected version {version}: {line}");
        }
    }
}
