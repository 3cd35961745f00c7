//! Python with the real `filelock`, as the programs that write caches have it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fs2::FileExt;

use super::run;

/// An interpreter that has `filelock`: `CACHEDIRFS_TEST_PYTHON`, else that of `target/test-venv`, which is made if it is missing.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let has_it = |python: &Path| {
            Command::new(python)
                .args(["-c", "import filelock"])
                .output()
                .is_ok_and(|out| out.status.success())
        };
        if let Some(python) = std::env::var_os("CACHEDIRFS_TEST_PYTHON").map(PathBuf::from) {
            assert!(has_it(&python), "{}: has no filelock", python.display());
            return python;
        }
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv");
        let python = venv.join("bin/python");
        if has_it(&python) {
            return python;
        }
        // Test programs run side by side: one of them makes it.
        std::fs::create_dir_all(venv.parent().unwrap()).unwrap();
        let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
        FileExt::lock_exclusive(&lock).unwrap();
        if !has_it(&python) {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).ok();
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "filelock"])).ok();
        }
        python
    })
}

/// A script of `tests/python`, with its arguments still to come.
pub fn python_script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
