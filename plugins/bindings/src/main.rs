//! Regenerates the bindings: run `cargo run -p bindings` in `plugins/` after a change of `wit/`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let home = bindings::home();
    for (path, bytes) in bindings::generate()? {
        let file = home.join(path);
        fs::create_dir_all(file.parent().ok_or("a file without a folder")?)?;
        fs::write(file, bytes)?;
    }
    Ok(())
}
