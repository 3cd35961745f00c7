"""File systems to keep a cache on: one directory, or a distributed file system whose servers run on machines of their own.

Every node sees the file system at `node.fs`. A backing says what can happen to it (`can`), and makes it happen.
"""

import os
import signal

import sandbox
from sandbox import Failed, command, start, wait_for


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
        wait_for("%s on %s" % (self.name, node.name), 40, lambda: sandbox.mounted(node.fs))

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

        wait_for("%s to take a file" % self.name, 60, ask)
        for node in self.nodes:
            wait_for("%s to see it" % node.name, 20, lambda: os.path.exists(os.path.join(node.fs, probe)))

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
            wait_for("the master", 20, lambda: _succeeds(ask, "master"))
        for node in self.nodes:
            self.attach(node)
        node = self.nodes[0]
        wait_for("the goal", 20, lambda: _succeeds(["mfssetgoal", "-r", "3", node.fs], node.name))
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


def _succeeds(words, machine):
    try:
        command(words, 5, machine)
        return True
    except Failed:
        return False


KINDS = {kind.name: kind for kind in (Local, MooseFS)}
