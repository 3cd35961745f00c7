"""The suites that come from crates.io: built once, kept in the target directory."""

import os
import subprocess
import time

import setup

VERSIONS = {"pjdfstest": "0.2.2", "fsx": "0.3.2"}


def crate(name):
    """The path of a program, which is built if need be."""
    root = os.path.join(setup.TARGET, "suites", "%s-%s" % (name, VERSIONS[name]))
    path = os.path.join(root, "bin", name)
    if not os.path.exists(path):
        print("building %s %s" % (name, VERSIONS[name]), end=" ", flush=True)
        begun = time.monotonic()
        # Without optimization: half the time to build, and its own work is the least of a run.
        words = ["cargo", "install", "--quiet", "--locked", "--debug", "--version", "=" + VERSIONS[name], "--root", root,
                 "--target-dir", os.path.join(setup.TARGET, "suites", "build"), name]
        if subprocess.run(words, cwd=setup.ROOT, timeout=1800, check=False).returncode:
            raise setup.Missing("%s of crates.io cannot be built" % name)
        print("(%.0f s)" % (time.monotonic() - begun))
    return path
