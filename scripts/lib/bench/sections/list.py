"""listings of a view against a tmpfs directory of the same links, and fuser with static ones"""

import os
import shutil
import sys

from bench.caches import make_cache
from bench.mounts import Mount, Served, execute, tmpfs

MILLION = 1_000_000


def run(bench):
    cache, mountpoint, native = bench.scratch("cache"), bench.scratch("mnt"), bench.scratch("native")
    make_cache(cache, bench.entries)
    ls = shutil.which("ls")
    # A fifth and a tenth of the cache: 200,000 and 100,000 links of a million entries.
    lists = [("ls -f", "-f", "by-attr/model/vit-s", 1.5, 0.9), ("ls -l", "-l", "by-attr/lr/0.1", 3.5, 1.2)]
    times = {name: {key: [] for key in ("cold", "again", "native", "static", "static again")} for name, *_ in lists}
    counts = {}
    with tmpfs(native):
        with Mount(cache, mountpoint):
            for name, _, view, *_ in lists:
                os.mkdir(os.path.join(native, name))
                links = os.listdir(os.path.join(mountpoint, view))
                counts[name] = len(links)
                for link in links:
                    os.symlink("../../../entries/" + link, os.path.join(native, name, link))
                if os.readlink(os.path.join(mountpoint, view, links[0])) != "../../../entries/" + links[0]:
                    sys.exit("bench: the links differ")
        for _ in range(bench.runs):
            with Mount(cache, mountpoint):
                for name, option, view, *_ in lists:
                    execute(ls, option, os.path.join(native, name))
                    times[name]["native"].append(execute(ls, option, os.path.join(native, name)))
                    times[name]["cold"].append(execute(ls, option, os.path.join(mountpoint, view)))
                    times[name]["again"].append(execute(ls, option, os.path.join(mountpoint, view)))
            for name, option, *_ in lists if bench.compares else []:
                with Served(bench.limits(), "serve", mountpoint, counts[name], 4):
                    times[name]["static"].append(execute(ls, option, mountpoint))
                    times[name]["static again"].append(execute(ls, option, mountpoint))
    for name, _, _, cold, again in lists:
        took, label = times[name], "%s of a view of %d links" % (name, round(counts[name], -len(str(counts[name])) + 2))
        if not bench.compares:
            label = "%s of a view" % name
        table = bench.table
        table.add(label + ", first", "tmpfs", took["cold"], took["native"], cold, at=MILLION, grows=True)
        table.add(label + ", again", "tmpfs", took["again"], took["native"], again, at=MILLION, grows=True)
        if bench.compares:
            table.add(label + ", first", "fuser, static links", took["cold"], took["static"], grows=True)
            table.add(label + ", again", "fuser, static links", took["again"], took["static again"], grows=True)
            table.add("fuser, as many static links, " + name + ", first", "tmpfs", took["static"], took["native"], grows=True)
            table.add("fuser, as many static links, " + name + ", again", "tmpfs", took["static again"], took["native"], grows=True)
