//! Controls a node's wall clock and disk in a test: a preloaded library (`weather.c`) obeys a control file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::Mode;

/// The control file of one node's clock and disk.
pub struct Weather {
    control: File,
    path: PathBuf,
}

impl Weather {
    /// Creates the control file in `folder`, with no fault set.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("weather");
        let control = File::create_new(&path).unwrap();
        control.write_all_at(&[0; 16], 0).unwrap();
        Self { control, path }
    }

    /// Preloads the library into `command`; `disk` is the folder that can become full.
    pub fn over(&self, command: &mut Command, disk: &Path) {
        command.env("LD_PRELOAD", library()).env("WEATHER", &self.path).env("DISK", disk);
    }

    /// Moves the wall clock this many seconds away from the true time.
    pub fn move_clock(&self, seconds: i64) {
        self.control.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0).unwrap();
    }

    /// Makes the disk full, or usable again.
    pub fn fill_disk(&self, is_full: bool) {
        self.control.write_all_at(&i64::from(is_full).to_ne_bytes(), 8).unwrap();
    }
}

/// The library; the first test of the process that needs it compiles it.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("weather-{}", std::process::id()));
        rustix::fs::mkdir(&folder, Mode::RWXU).unwrap();
        let (source, library) = (
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/gateway/weather.c"),
            folder.join("weather.so"),
        );
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        let done = compiler.status().unwrap();
        assert!(done.success(), "weather.c does not compile");
        library
    })
}
