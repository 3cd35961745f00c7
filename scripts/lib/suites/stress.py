"""stress-ng's stressors of files with --verify: each ends as it does in a plain directory."""

import os
import re

from . import place

# The class "filesystem" of Debian 12's version, and those of other classes that work on files.
STRESSORS = """
    access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify fallocate fanotify fcntl fiemap file-ioctl
    filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify io iomix lease link locka lockf lockofd mknod open
    rename symlink sync-file touch utime verity xattr
    aio aiol chroot mmap mmapfork mmapmany msync readahead revio seek sendfile splice
""".split()
# What of that class is not run, as it is not about the files of the directory: binderfs, bind-mount, dup, eventfd, ioprio,
# procfs.
SHORT = "access chdir copy-file dentry dirdeep fallocate fpunch getdent hdd iomix link msync open rename seek symlink utime xattr".split()

# Stressors that end otherwise than in a plain directory: how they end in the mount, and why.
EXCEPTIONS = {
    "fiemap": ("skipped", "the kernel answers FS_IOC_FIEMAP itself, and FUSE has no such request that it could send on"),
}

SECONDS = 2
WORKERS = 2


def prepare(_base, _options):
    return {}


def outcome(name, directory, log):
    """How a stressor ends: ok, skipped, or what it says is wrong."""
    words = ["stress-ng", "--" + name, str(WORKERS), "--timeout", "%ds" % SECONDS, "--verify", "--temp-path",
             place.fresh(directory, "stress"), "--oomable", "--no-rand-seed"]
    status, text = place.run(words, 90, log, cwd=directory)
    if status:
        complaints = re.findall(r"fail: +\[\d+\] (.*)", text)
        return complaints[0] if complaints else "status %d" % status
    return "skipped" if re.search(r"skipping|not supported|not implemented", text) else "ok"


def run(spot, mode, plain, entry, options):
    """Gives what is wrong."""
    log = os.path.join(options.logs, "stress-%s-%s.log" % (spot.kind, mode))
    stressors = SHORT if options.short else STRESSORS
    wrong, different = [], 0
    for name in stressors:
        # One comparison serves both modes.
        if (spot.kind, name) not in plain:
            plain[spot.kind, name] = outcome(name, spot.plain, log)
        expected = plain[spot.kind, name]
        if expected not in ("ok", "skipped"):
            wrong.append("%s fails in a plain directory: %s" % (name, expected))
        found = outcome(name, entry, log)
        known = EXCEPTIONS.get(name)
        if known and found == known[0] != expected:
            different += 1
        elif known:
            wrong.append("%s: listed as an exception, but it is %s in a plain directory and %s in the mount" % (name, expected, found))
        elif found != expected:
            wrong.append("%s: %s in a plain directory, in the mount: %s" % (name, expected, found))
    return "%d stressors, %d of them otherwise as listed" % (len(stressors), different), wrong
