"""pjdfstest: every system call on files and its errors, case by case as in a plain directory."""

import grp
import os
import pwd
import re

import sandbox
from sandbox import Failed

from . import install, place

EXPECTED = 398  # cases of this version
SHORT = "/mnt"  # a short path to the directory under test, in the sandbox alone
MS_BIND = 4096
USERS = ("nobody", "daemon")  # every system has them
# Cases that differ, by file system below: what the plain directory gives, what the mount gives, and why.
EXCEPTIONS = {
    "link::link_count_max": {
        "kinds": ("ext4",),
        "plain": "ok",
        "mount": "skipped",
        "why": "pathconf(_PC_LINK_MAX) is glibc's table of known file systems; FUSE, which cannot tell a limit, is not in it",
    },
}
# Cases that fail in a plain directory already, by file system.
FAILING = {
    # Its directories have one link, however many are in them.
    "btrfs": ("rename::updates_link_parent",),
}

CONFIG = """
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
stat_st_birthtime = {}
[settings]
naptime = 0.02
allow_remount = %s
[dummy_auth]
entries = [%s]
"""
# Cases that make the file system read-only. They run by themselves: others leave files open for writing.
REMOUNTING = "erofs"


def prepare(base, _options):
    users = [(name, grp.getgrgid(pwd.getpwnam(name).pw_gid).gr_name) for name in USERS]
    for remount in ("true", "false"):
        with open(os.path.join(base, remount + ".toml"), "w") as file:
            file.write(CONFIG % (remount, ", ".join('["%s", "%s"]' % pair for pair in users)))
    # A file system is remounted by the kernel: mount(8) would ask for help from the program that mounted it.
    wrapper = os.path.join(base, "bin", "mount")
    os.makedirs(os.path.dirname(wrapper))
    with open(wrapper, "w") as file:
        file.write('#!/bin/sh\nPATH=${PATH#*:} exec mount -i "$@"\n')
    os.chmod(wrapper, 0o755)
    return install.crate("pjdfstest"), base


def cases(prepared, directory, spot, log):
    """The result of every case."""
    program, base = prepared
    environment = dict(os.environ, PATH="%s:%s" % (os.path.join(base, "bin"), os.environ["PATH"]))
    found = {}
    # The name of a socket, with all directories, has at most 108 bytes.
    sandbox.mount(place.fresh(directory, "pj"), SHORT, None, MS_BIND)
    try:
        for remount, patterns in (("false", []), ("true", [REMOUNTING])):
            words = [program, "-c", os.path.join(base, remount + ".toml"), "-p", SHORT, "-s", spot.other]
            _, text = place.run(words + patterns, 300, log, env=environment)
            plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
            results = dict(re.findall(r"^(\S+) +(ok|skipped|FAILED)$", plain, re.MULTILINE))
            if "%d total" % len(results) not in plain:
                raise Failed("what pjdfstest says is not understood; see %s" % log)
            found.update(results)
    finally:
        sandbox.unmount(SHORT)
    if len(found) != EXPECTED:
        raise Failed("pjdfstest gave %d cases instead of %d; see %s" % (len(found), EXPECTED, log))
    return found


def run(spot, mode, prepared, entry, options):
    """Gives what is wrong."""
    log = os.path.join(options.logs, "pjdfstest-%s-%s.log" % (spot.kind, mode))
    plain = cases(prepared, spot.plain, spot, log)
    mounted = cases(prepared, entry, spot, log)
    failing = {name for name, result in plain.items() if result == "FAILED"}
    wrong = ["%s: %s in a plain directory" % (name, plain.get(name, "is not there"))
             for name in sorted(failing ^ set(FAILING.get(spot.kind, ())))]
    for name in sorted(plain):
        known = EXCEPTIONS.get(name, {})
        pair = (plain[name], mounted.get(name))
        if spot.kind in known.get("kinds", ()):
            if pair != (known["plain"], known["mount"]):
                wrong.append("%s: listed as an exception, but %s in a plain directory and %s in the mount" % (name, *pair))
        elif pair[0] != pair[1]:
            wrong.append("%s: %s in a plain directory, %s in the mount" % (name, *pair))
    wrong += ["%s: listed as an exception, but there is no such case" % name for name in EXCEPTIONS if name not in plain]
    counts = [list(mounted.values()).count(result) for result in ("ok", "skipped", "FAILED")]
    return "%d ok, %d skipped, %d failed" % tuple(counts), wrong
