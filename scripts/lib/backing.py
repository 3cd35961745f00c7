"""File systems to keep a cache on: one directory, or a distributed file system whose servers run on machines of their own.

Every node sees the file system at `node.fs`. A backing says what can happen to it (`can`), and makes it happen.
"""

import errno
import fcntl
import os
import signal
import uuid

import sandbox
from sandbox import Failed, command, start, wait_for


UP = 120  # seconds for each part of a file system to come up, on a machine that is busy with other things


class Local:
    """One directory of this machine, for all nodes."""

    name = "local"
    packages = ()
    late = 0.0
    can = frozenset()

    def __init__(self, base, nodes):
        self.base, self.network = base, None
        self.nodes = nodes

    def up(self):
        os.makedirs(os.path.join(self.base, "fs"))

    def attach(self, node):
        node.fs = os.path.join(self.base, "fs")

    def detach(self, node):
        pass


class Cluster:
    """What distributed file systems have in common: servers and clients on machines, and cables between them."""

    can = frozenset(("server", "pause", "cut"))
    machines = ()
    # Seconds for which a client may show old attributes and names of contents.
    late = 1.0

    def __init__(self, base, nodes):
        self.base, self.nodes = base, nodes
        self.servers, self.clients = {}, {}
        self.network = sandbox.Network(list(self.machines) + [node.name for node in nodes])

    def place(self, *parts):
        """A directory of this run."""
        path = os.path.join(self.base, self.name, *parts)
        os.makedirs(path, exist_ok=True)
        return path

    def write(self, path, *lines):
        with open(path, "w") as file:
            file.writelines(line + "\n" for line in lines)
        return path

    def serve(self, machine, words, part=""):
        log = os.path.join(self.place("logs"), machine + part)
        self.servers[machine + part] = start(words, log, machine)

    def attach(self, node):
        node.fs = os.path.join(self.base, node.name + "-fs")
        os.makedirs(node.fs, exist_ok=True)
        log = os.path.join(self.place("logs"), node.name)
        self.clients[node.name] = start(self.client(node), log, node.name)
        wait_for("%s on %s" % (self.name, node.name), UP, lambda: sandbox.mounted(node.fs))

    def detach(self, node):
        """The client dies without a word."""
        self.clients.pop(node.name).kill()
        while sandbox.mounted(node.fs):
            sandbox.unmount(node.fs)

    def agreed(self):
        """Every client sees what the first has written."""
        probe = ".up"

        def ask():
            try:
                with open(os.path.join(self.nodes[0].fs, probe), "w") as file:
                    file.write("x")
                return True
            except OSError:
                return False

        wait_for("%s to take a file" % self.name, UP, ask)
        for node in self.nodes:
            wait_for("%s to see it" % node.name, UP, lambda: os.path.exists(os.path.join(node.fs, probe)))

    def pause(self):
        """The servers that know where things are stop, and wake up in `resume`."""
        for server in self.masters():
            server.send(signal.SIGSTOP)

    def resume(self):
        for server in self.masters():
            server.send(signal.SIGCONT)

    def cut(self, node):
        self.network.cut(node.name)

    def plug(self, node):
        self.network.plug(node.name)

    def heal(self, node):
        """What an administrator has to do on a node that was cut off; gives what it was, if anything."""
        return None


class MooseFS(Cluster):
    """A master and three chunk servers, every chunk on all three."""

    name = "moosefs"
    packages = (
        ("mfsmaster", "moosefs-master"), ("mfschunkserver", "moosefs-chunkserver"), ("mfsmount", "moosefs-client"),
        ("ip", "iproute2"), ("nsenter", "util-linux"),
    )
    machines = ("master", "chunk1", "chunk2", "chunk3")
    storing = ("chunk1", "chunk2", "chunk3")
    # Seconds after which the master forgets a client that it does not hear of, and with it the client's locks.
    session = 60

    def up(self):
        address = self.network["master"]
        home = self.place("master")
        with open(os.path.join(home, "metadata.mfs"), "w") as file:
            file.write("MFSM NEW")
        self.write(
            os.path.join(home, "cfg"), "WORKING_USER = root", "WORKING_GROUP = root", "DATA_PATH = " + home,
            "EXPORTS_FILENAME = " + self.write(os.path.join(home, "exports"), "* / rw,alldirs,admin,maproot=0:0"),
            "TOPOLOGY_FILENAME = " + self.write(os.path.join(home, "topology")),
            "REPLICATIONS_DELAY_INIT = 5", "SESSION_SUSTAIN_TIME = %d" % self.session,
        )
        self.start_master()
        for machine in self.storing:
            home = self.place(machine)
            self.write(
                os.path.join(home, "cfg"), "WORKING_USER = root", "WORKING_GROUP = root", "DATA_PATH = " + home,
                "HDD_CONF_FILENAME = " + self.write(os.path.join(home, "disks"), self.place(machine, "disk")),
                "MASTER_HOST = " + address, "MASTER_RECONNECTION_DELAY = 1", "BIND_HOST = " + self.network[machine],
            )
            self.start_server(machine)
        for port in (9419, 9420, 9421):
            ask = ["bash", "-c", "</dev/tcp/%s/%d" % (address, port)]
            wait_for("the master", UP, lambda: _succeeds(ask, "master"))
        for node in self.nodes:
            self.attach(node)
        node = self.nodes[0]
        wait_for("the goal", UP, lambda: _succeeds(["mfssetgoal", "-r", "3", node.fs], node.name))
        self.agreed()

    def start_master(self):
        self.serve("master", ["mfsmaster", "-f", "-a", "-c", os.path.join(self.place("master"), "cfg"), "start"])

    def start_server(self, machine):
        self.serve(machine, ["mfschunkserver", "-f", "-c", os.path.join(self.place(machine), "cfg"), "start"])

    def kill_server(self, machine):
        self.servers.pop(machine).kill()

    def masters(self):
        return [self.servers["master"]]

    def client(self, node):
        return ["mfsmount", node.fs, "-f", "-H", self.network["master"]]


class GlusterFS(Cluster):
    """Three servers, every file on all of them; the caches of the clients are off, for they show what was."""

    name = "gluster"
    packages = (
        ("glusterd", "glusterfs-server"), ("gluster", "glusterfs-client"), ("glusterfs", "glusterfs-client"),
        ("ip", "iproute2"), ("nsenter", "util-linux"),
    )
    machines = ("brick1", "brick2", "brick3")
    storing = ("brick2", "brick3")
    can = frozenset(("server", "cut"))
    # Seconds after which clients and servers give each other up.
    ping = 10
    caches = ("quick-read", "io-cache", "stat-prefetch", "read-ahead", "readdir-ahead", "open-behind", "write-behind")

    def up(self):
        for machine in self.machines:
            self.start_server(machine)
        for machine in self.machines:
            wait_for(machine, UP, lambda: _succeeds(self.inside(machine, "peer", "status"), machine))
        self.ask("peer", "probe", self.network["brick2"])
        self.ask("peer", "probe", self.network["brick3"])
        wait_for("the servers to know each other", UP,
                 lambda: self.ask("peer", "status").count("Peer in Cluster (Connected)") == 2)
        bricks = ["%s:%s" % (self.network[machine], self.place(machine, "brick")) for machine in self.machines]
        self.ask("volume", "create", "cache", "replica", "3", *bricks, "force")
        # Who has written a file keeps its lock among the servers for this long: 1 s by default, at every handover of the log.
        for option, value in [("network.ping-timeout", str(self.ping)), ("cluster.post-op-delay-secs", "0")] + [
                ("performance." + cache, "off") for cache in self.caches]:
            self.ask("volume", "set", "cache", option, value)
        self.ask("volume", "start", "cache")
        for node in self.nodes:
            self.attach(node)
        self.agreed()

    def start_server(self, machine):
        """A machine with files of its own where glusterd keeps its state."""
        script = "; ".join([
            "mkdir -p /var/lib/glusterd /var/log/glusterfs", "mount --bind %s /var/lib/glusterd" % self.place(machine, "lib"),
            "mount --bind %s /var/log/glusterfs" % self.place(machine, "log"), "mount -t tmpfs tmpfs /run",
            "mkdir -p /run/gluster", "glusterd -N --log-level WARNING & wait",
        ])
        self.serve(machine, ["unshare", "-m", "-u", "-p", "-f", "--kill-child", "--mount-proc", "bash", "-c",
                             "hostname %s; %s" % (machine, script)])

    def kill_server(self, machine):
        self.servers.pop(machine).kill()

    def inside(self, machine, *words):
        """A command of gluster in a machine."""
        pid = self.servers[machine].pid
        with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
            child = file.read().split()[0]
        return ["nsenter", "-m", "-p", "-t", child, "--", "gluster", "--mode=script", *words]

    def ask(self, *words):
        return command(self.inside("brick1", *words), UP, "brick1")

    def client(self, node):
        servers = ["--volfile-server=" + self.network[machine] for machine in self.machines]
        return ["glusterfs", "-N", *servers, "--volfile-id=cache", "--attribute-timeout=0", "--entry-timeout=0", "--fopen-keep-cache=false",
                "--log-level=WARNING", "--log-file=" + os.path.join(self.place("logs"), node.name + ".client"), node.fs]


class CephFS(Cluster):
    """A monitor, three object servers, an active and a standby metadata server, ceph-fuse on the nodes."""

    name = "ceph"
    packages = (
        ("ceph-mon", "ceph-mon"), ("ceph-mgr", "ceph-mgr"), ("ceph-osd", "ceph-osd"), ("ceph-mds", "ceph-mds"),
        ("ceph-fuse", "ceph-fuse"), ("ceph", "ceph-common"), ("ip", "iproute2"), ("nsenter", "util-linux"),
    )
    machines = ("monitor", "osd0", "osd1", "osd2", "mds0", "mds1")
    storing = ("osd1", "osd2")

    def up(self):
        home = self.place("state")
        address = self.network["monitor"]
        self.conf = self.write(
            os.path.join(home, "ceph.conf"), "[global]", "fsid = 11111111-2222-3333-4444-555555555555",
            "mon_host = " + address, "public_network = %s.0/24" % self.network.PREFIX,
            "auth_cluster_required = none", "auth_service_required = none", "auth_client_required = none",
            "osd_pool_default_size = 3", "osd_pool_default_min_size = 2", "osd_pool_default_pg_num = 8",
            "osd_pool_default_pg_autoscale_mode = off", "osd_crush_chooseleaf_type = 0",
            "mon_max_pg_per_osd = 1000", "osd_objectstore = bluestore", "bluestore_block_size = 2147483648",
            "bluestore_block_wal_create = false", "bluestore_block_db_create = false", "osd_memory_target = 939524096",
            "run_dir = %s" % self.place("run"), "pid_file = %s/$cluster-$name.pid" % self.place("run"),
            "admin_socket = %s/$cluster-$name.$pid.asok" % self.place("run"),
            "log_file = %s/$name.log" % self.place("logs"),
            "mon_data = %s/$name" % home, "mgr_data = %s/$name" % home, "osd_data = %s/$name" % home,
            "mds_data = %s/$name" % home, "mgr_initial_modules =", "mon_data_avail_crit = 1", "mon_data_avail_warn = 1",
            "mon_warn_on_insecure_global_id_reclaim_allowed = false",
            # A change waits for the next tick of the metadata server: five seconds by default.
            "mds_tick_interval = 0.1",
            # A client that was evicted comes back as a new one.
            "client_reconnect_stale = true",
        )
        for name in ("mon.a", "mgr.x", "osd.0", "osd.1", "osd.2", "mds.mds0", "mds.mds1"):
            self.place("state", name)
        monmap = os.path.join(home, "monmap")
        command(["monmaptool", "--create", "--fsid", "11111111-2222-3333-4444-555555555555", "--addv", "a",
                 "[v2:%s:3300,v1:%s:6789]" % (address, address), monmap])
        command(["ceph-mon", "--mkfs", "-i", "a", "-c", self.conf, "--monmap", monmap], 30, "monitor")
        self.serve("monitor", ["ceph-mon", "-f", "-i", "a", "-c", self.conf])
        wait_for("the monitor", UP, lambda: _succeeds(self.words("mon", "stat"), "monitor"))
        self.serve("monitor", ["ceph-mgr", "-f", "-i", "x", "-c", self.conf], "-manager")
        for number in range(3):
            ident = str(uuid.uuid4())
            self.ask("osd", "new", ident)
            command(["ceph-osd", "--mkfs", "-i", str(number), "-c", self.conf, "--osd-uuid", ident], 60, "osd%d" % number)
            self.start_server("osd%d" % number)
        wait_for("three object servers", UP, lambda: "3 up" in self.ask("osd", "stat"), every=0.2)
        for machine in ("mds0", "mds1"):
            self.serve(machine, ["ceph-mds", "-f", "-i", machine, "-c", self.conf])
        for words in ("osd pool create meta 8", "osd pool create data 8", "fs new fs meta data"):
            self.ask(*words.split())
        wait_for("a metadata server", UP, lambda: "up:active" in self.ask("mds", "stat"), every=0.2)
        for node in self.nodes:
            self.attach(node)
        self.agreed()

    def heal(self, node):
        """ceph-fuse refuses all further locks of a file of which it has lost one (EIO), until it is mounted anew."""
        answers = []

        def answer():
            answers.append(_lock_answer(os.path.join(node.cache, "_lock")))
            return answers[-1] in (None, errno.EAGAIN) or answers[-50:] == [errno.EIO] * 50

        wait_for("ceph-fuse on %s to answer again" % node.name, 60, answer, every=0.1)
        if answers[-1] != errno.EIO:
            return None
        node.down()
        self.detach(node)
        self.attach(node)
        node.up()
        return "ceph-fuse of %s had lost a lock and refused all others (EIO): mounted anew" % node.name

    def words(self, *words):
        return ["timeout", "50", "ceph", "-c", self.conf, "--connect-timeout", "40", *words]

    def ask(self, *words):
        return command(self.words(*words), 60, "monitor")

    def start_server(self, machine):
        address = self.network[machine]
        self.serve(machine, ["ceph-osd", "-f", "-i", machine[-1], "-c", self.conf, "--public-addr", address,
                             "--cluster-addr", address])

    def kill_server(self, machine):
        self.servers.pop(machine).kill()

    def masters(self):
        return [server for name, server in self.servers.items() if name.startswith(("mon", "mds"))]

    def client(self, node):
        return ["ceph-fuse", "-f", "-c", self.conf, "-n", "client." + node.name, "--client_mountpoint=/", node.fs]


def _lock_answer(path):
    """The error of trying a lock; None if there is none."""
    try:
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(file)
    except OSError as error:
        return error.errno
    return None


def _succeeds(words, machine):
    try:
        command(words, 5, machine)
        return True
    except Failed:
        return False


KINDS = {kind.name: kind for kind in (Local, MooseFS, GlusterFS, CephFS)}
