//! What a test wants of its node: the command, its configuration, and the folder with its plugins.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::tls::Pair;
use super::Gateway;

/// What a test wants of its node, besides the defaults.
pub struct Setup {
    listeners: Vec<String>,
    yaml: String,
    plugins: Vec<(&'static str, &'static str)>,
    manifests: Vec<(&'static str, String)>,
    /// What `ulimit` is given.
    descriptors: Option<String>,
    pair: Option<Pair>,
    program: PathBuf,
}

impl Default for Setup {
    /// Every service on a port of its own choice, client publishing on, and the token plugin.
    fn default() -> Self {
        let listeners = ["serves: [ws, api, metrics]", "serves: [cim]", "serves: [cim-tcp]"];
        Self {
            listeners: listeners.iter().map(|l| (*l).to_owned()).collect(),
            yaml: String::new(),
            plugins: vec![("token-auth", "token-auth")],
            manifests: Vec::new(),
            descriptors: None,
            pair: None,
            program: built(),
        }
    }
}

impl Setup {
    /// More keys of the configuration, as YAML text on its top level.
    pub fn yaml(mut self, text: &str) -> Self {
        self.yaml.push_str(text);
        self.yaml.push('\n');
        self
    }

    /// The listeners, instead of the default ones: the keys of each but its address, one a line.
    pub fn listeners(mut self, listeners: &[&str]) -> Self {
        self.listeners = listeners.iter().map(|l| (*l).to_owned()).collect();
        self
    }

    /// Has every listener speak TLS.
    pub fn tls(mut self, pair: Pair) -> Self {
        let tls = "\ntls: {cert: cert.pem, key: key.pem}";
        self.listeners.iter_mut().for_each(|listener| listener.push_str(tls));
        self.pair = Some(pair);
        self
    }

    /// Lets a user have any number of devices everywhere, where cim's matrix would let one replace the other.
    pub fn all_devices(self) -> Self {
        let cim = ["serves: [cim]\ndevices: allow_all", "serves: [cim-tcp]\ndevices: allow_all"];
        self.listeners(&["serves: [ws, api, metrics]", cim[0], cim[1]])
    }

    /// One more plugin.
    pub fn plugin(self, name: &'static str) -> Self {
        self.plugin_as(name, name)
    }

    /// One more plugin, whose file has another name than its component.
    pub fn plugin_as(mut self, file: &'static str, component: &'static str) -> Self {
        self.plugins.push((file, component));
        self
    }

    /// The manifest of a plugin, in place of the one that comes with it.
    pub fn manifest(mut self, name: &'static str, text: &str) -> Self {
        self.manifests.push((name, text.to_owned()));
        self
    }

    /// The process may open so many files and sockets.
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(format!("-n {most}"));
        self
    }

    /// The same, but the process may raise the limit.
    pub fn soft_descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(format!("-S -n {most}"));
        self
    }

    /// Another build of the command than the one under test.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// No plugin at all.
    pub fn no_plugins(mut self) -> Self {
        self.plugins.clear();
        self
    }

    /// Starts the node and waits until it says that it is ready.
    pub fn start(self) -> Gateway {
        let folder = self.prepare();
        let mut command = folder.command("serve");
        if let Some(most) = &self.descriptors {
            command = limited(&command, most);
        }
        Gateway::run(folder, command, self.pair.as_ref().map(Pair::trust))
    }

    /// The folder that a node is started in, with its configuration and plugins.
    pub fn prepare(&self) -> Folder {
        let folder = Folder { dir: Arc::new(tempfile::tempdir().unwrap()), program: self.program.clone() };
        std::fs::create_dir(folder.plugins()).unwrap();
        for (file, component) in &self.plugins {
            folder.install(file, component);
        }
        for (plugin, text) in &self.manifests {
            folder.put(&format!("{plugin}.toml"), text.as_bytes());
        }
        folder.write_config(&self.listeners, &self.yaml);
        if let Some(pair) = &self.pair {
            pair.install(folder.path());
        }
        folder
    }
}

/// A configuration file and a plugin directory; gone with the last that holds it.
#[derive(Clone)]
pub struct Folder {
    dir: Arc<tempfile::TempDir>,
    program: PathBuf,
}

impl Folder {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What runs in it.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The same folder for another build of the command.
    pub fn for_program(&self, program: &Path) -> Self {
        Self { program: program.to_owned(), ..self.clone() }
    }

    pub fn plugins(&self) -> PathBuf {
        self.path().join("plugins")
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("skylark.yaml")
    }

    /// Copies a built component into the plugin directory, with its manifest if it has one.
    fn install(&self, file: &str, name: &str) {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name);
        let manifest = [samples(), own].iter().find_map(|dir| std::fs::read(dir.join(format!("{name}.toml"))).ok());
        if let Some(text) = manifest {
            self.put(&format!("{file}.toml"), &text);
        }
        self.put(&format!("{file}.wasm"), &component(name));
    }

    /// Writes a file of the plugin directory as a careful operator does: beside it, then renamed.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.lay(name, bytes);
        self.move_in(name);
    }

    /// Writes a file beside the plugin directory.
    pub fn lay(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.beside(name), bytes).unwrap();
    }

    /// Renames what was laid there into the directory.
    pub fn move_in(&self, name: &str) {
        std::fs::rename(self.beside(name), self.plugins().join(name)).unwrap();
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.new"))
    }

    fn write_config(&self, listeners: &[String], yaml: &str) {
        let mut text = String::from("listeners:\n");
        for listener in listeners {
            let lines: Vec<&str> = listener.lines().collect();
            let address =
                if lines.iter().any(|l| l.starts_with("address:")) { "" } else { "address: 127.0.0.1:0\n    " };
            text.push_str(&format!("  - {address}{}\n", lines.join("\n    ")));
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        let given = |key: &str| yaml.lines().any(|l| l.starts_with(key));
        if !given("plugins:") {
            text.push_str(&format!(
                "plugins:\n  dir: {:?}\n  cache: {cache:?}\n  settle: 50ms\n  rescan: 1s\n",
                self.plugins()
            ));
        }
        for (key, default) in [
            ("node:", "node:\n  id: n1\n"),
            ("clients:", "clients:\n  publish: true\n  open_rooms: [\"*\"]\n"),
            ("limits:", "limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n"),
            ("drain:", "drain:\n  wait: 0s\n  step_percent: 100\n  grace: 5s\n"),
        ] {
            if !given(key) {
                text.push_str(default);
            }
        }
        let yaml =
            yaml.replace("$PLUGINS", self.plugins().to_str().unwrap()).replace("$CACHE", cache.to_str().unwrap());
        std::fs::write(self.config(), text + &yaml).unwrap();
    }

    /// The command, in this folder and with its configuration.
    pub fn command(&self, name: &str) -> Command {
        let mut command = undisturbed(&self.program);
        command.current_dir(self.path()).arg(name).arg("--config").arg(self.config());
        command
    }
}

/// The built command, or the one that `NODE` names: a release build, for figures.
pub fn built() -> PathBuf {
    let named = std::env::var_os("NODE").map(|file| std::fs::canonicalize(file).expect("NODE names a program"));
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_skylark").into())
}

/// The same, to be run.
pub fn skylark() -> Command {
    undisturbed(&built())
}

/// A command without the variables of whoever runs the tests.
fn undisturbed(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SKYLARK__") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// The same command in a shell that may open only so many files.
fn limited(command: &Command, descriptors: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {descriptors} && exec \"$@\"")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Where the committed sample components lie, with their manifests.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/dist")
}

/// A component: a sample, or one of the guests made for tests. The committed ones, or with `FRESH_GUESTS=1` those that
/// `plugins/build --check` has just made from source. A sample that is too large to be committed lies in its own folder.
pub fn component(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let folders = match std::env::var_os("FRESH_GUESTS") {
        Some(_) => ["target/fresh", "target/fresh/testing", name],
        None => ["dist", "testing/dist", name],
    };
    let found = folders.iter().find_map(|folder| std::fs::read(root.join(folder).join(format!("{name}.wasm"))).ok());
    found.unwrap_or_else(|| panic!("no {name}.wasm in {folders:?} of plugins/: run plugins/build"))
}
