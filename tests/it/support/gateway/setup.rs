//! The setup of a test's node: the command, its configuration, and the folder with its plugins.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::tls::Pair;
use super::Gateway;

/// The settings of a test's node that differ from the defaults.
pub struct Setup {
    listeners: Vec<String>,
    yaml: String,
    plugins: Vec<(&'static str, &'static str)>,
    manifests: Vec<(&'static str, String)>,
    /// Arguments of `ulimit`.
    descriptors: Option<String>,
    pair: Option<Pair>,
    program: PathBuf,
}

impl Default for Setup {
    /// Every service on its own free port, client publishing enabled, and the token plugin.
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
    /// Adds YAML text on the top level of the configuration.
    pub fn yaml(mut self, text: &str) -> Self {
        self.yaml.push_str(text);
        self.yaml.push('\n');
        self
    }

    /// Replaces the default listeners: the keys of each except its address, one per line.
    pub fn listeners(mut self, listeners: &[&str]) -> Self {
        self.listeners = listeners.iter().map(|l| (*l).to_owned()).collect();
        self
    }

    /// Enables TLS on every listener.
    pub fn tls(mut self, pair: Pair) -> Self {
        let tls = "\ntls: {cert: cert.pem, key: key.pem}";
        self.listeners.iter_mut().for_each(|listener| listener.push_str(tls));
        self.pair = Some(pair);
        self
    }

    /// Allows a user any number of devices on every listener. The matrix of cim would let one device replace another.
    pub fn all_devices(self) -> Self {
        let cim = ["serves: [cim]\ndevices: allow_all", "serves: [cim-tcp]\ndevices: allow_all"];
        self.listeners(&["serves: [ws, api, metrics]", cim[0], cim[1]])
    }

    /// Adds a plugin.
    pub fn plugin(self, name: &'static str) -> Self {
        self.plugin_as(name, name)
    }

    /// Adds a plugin under another file name than that of its component.
    pub fn plugin_as(mut self, file: &'static str, component: &'static str) -> Self {
        self.plugins.push((file, component));
        self
    }

    /// Replaces the manifest of a plugin.
    pub fn manifest(mut self, name: &'static str, text: &str) -> Self {
        self.manifests.push((name, text.to_owned()));
        self
    }

    /// Limits the open files and sockets of the process.
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(format!("-n {most}"));
        self
    }

    /// Limits the open files and sockets of the process; the process may raise the limit.
    pub fn soft_descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(format!("-S -n {most}"));
        self
    }

    /// Runs another build of the command.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Removes every plugin.
    pub fn no_plugins(mut self) -> Self {
        self.plugins.clear();
        self
    }

    /// Starts the node and waits until it reports ready.
    pub fn start(self) -> Gateway {
        let folder = self.prepare();
        let mut command = folder.command("serve");
        if let Some(most) = &self.descriptors {
            command = limited(&command, most);
        }
        Gateway::run(folder, command, self.pair.as_ref().map(Pair::trust))
    }

    /// Creates the folder of a node with its configuration and plugins.
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

/// A configuration file and a plugin directory; deleted with the last owner.
#[derive(Clone)]
pub struct Folder {
    dir: Arc<tempfile::TempDir>,
    program: PathBuf,
}

impl Folder {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The program that runs in this folder.
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

    /// Writes a file of the plugin directory atomically: beside it, then renamed.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.lay(name, bytes);
        self.move_in(name);
    }

    /// Writes a file beside the plugin directory.
    pub fn lay(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.beside(name), bytes).unwrap();
    }

    /// Renames the file beside the directory into it.
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

    /// The command with this folder as working directory and with its configuration.
    pub fn command(&self, name: &str) -> Command {
        let mut command = undisturbed(&self.program);
        command.current_dir(self.path()).arg(name).arg("--config").arg(self.config());
        command
    }
}

/// The built command, or the one that `NODE` names, such as a release build for measurements.
pub fn built() -> PathBuf {
    let named =
        std::env::var_os("NODE").map(|file| std::fs::canonicalize(file).expect("the program that NODE names exists"));
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_skylark").into())
}

/// The built command, ready to run.
pub fn skylark() -> Command {
    undisturbed(&built())
}

/// A command without the environment variables of the test runner.
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

/// The same command in a shell with a limit on open files.
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

/// Directory of the committed sample components and their manifests.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/dist")
}

/// A component: a sample or a test plugin. Uses the committed ones, or with `FRESH_GUESTS=1` those that `plugins/build
/// --check` has just built. A sample that is too large to be committed is in its own folder.
pub fn component(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let folders = match std::env::var_os("FRESH_GUESTS") {
        Some(_) => ["target/fresh", "target/fresh/testing", name],
        None => ["dist", "testing/dist", name],
    };
    let found = folders.iter().find_map(|folder| std::fs::read(root.join(folder).join(format!("{name}.wasm"))).ok());
    found.unwrap_or_else(|| panic!("cannot find {name}.wasm in {folders:?} of plugins/: run plugins/build"))
}
