"""Apache Kafka on this machine, of one node or three, whose nodes a test may kill and freeze."""

import atexit
import base64
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from tests.brokers.jars import BrokerUnavailable, find_java, kafka_jars
from tests.brokers.ports import reserve
from tests.brokers.probe import ask
from tests.brokers.processes import spawn
from tests.brokers.security import (
    Certificates,
    Security,
    make_certificates,
    security_settings,
)

__all__ = ("Cluster", "shared_settings")

HERE = Path(__file__).resolve().parent
READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.02
# Measured: the first compiler alone starts in 1.7 s for 2.6, and in runs of minutes it serves
# more a second with less CPU than both compilers, which spend more than they save.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms128m", "-Djava.awt.headless=true")
PROTOCOLS: Mapping[Security | None, str] = {
    None: "PLAINTEXT",
    "scram": "SASL_PLAINTEXT",
    "sasl_ssl": "SASL_SSL",
    "mtls": "SSL",
}


class Cluster:
    """Brokers in KRaft mode on loopback ports; nodes are named 1 to `nodes`, as in Kafka.

    `folder` takes all files (a fresh one when none is given) and loses them at `close`;
    `logs_in` takes the records' files only, so that a test can let a small disk fill up.
    `settings` are broker settings that win over ours. Clients use `bootstrap`; with `security`
    they need `user` and `password`, or `certificates`. `internal` is always plain.
    """

    user = "madlog"
    password = "secret-of-the-tests"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        nodes: int = 1,
        security: Security | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        logs_in: Path | None = None,
        heap_mb: int = 384,
    ) -> None:
        self.nodes = tuple(range(1, nodes + 1))
        self.security = security
        self.certificates: Certificates | None = None
        self._given = folder
        self._folder = Path()
        self._logs_in = logs_in
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        self._java, self._jars = find_java(), kafka_jars()
        self._clients = {i: reserve(port + i - 1 if port else None) for i in self.nodes}
        self._controllers = {i: reserve() for i in self.nodes}
        # The brokers' own talk is always plain: a secured cluster has a listener more.
        self._internals = {i: reserve() for i in self.nodes} if security else self._clients

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        """Where clients connect: HOST:PORT of each node, with commas."""
        return ",".join(f"127.0.0.1:{port.port}" for port in self._clients.values())

    @property
    def internal(self) -> str:
        """Where a plain connection is accepted, whatever `security` is."""
        return ",".join(f"127.0.0.1:{port.port}" for port in self._internals.values())

    @property
    def pids(self) -> dict[int, int]:
        """The process id of each node that runs or is paused."""
        return {i: process.pid for i, process in self._processes.items() if process.poll() is None}

    def log_file(self, node: int) -> Path:
        """Return the file of a node's own log."""
        return self._folder / f"node-{node}.log"

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Format and start all nodes and wait until they serve; raises BrokerUnavailable."""
        self._folder = self._given or Path(tempfile.mkdtemp(prefix="madlog-kafka-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.close)
        try:
            if self.security in ("mtls", "sasl_ssl"):
                self.certificates = make_certificates(self._folder / "certificates")
            cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(lambda node: self._format(node, cluster_id), self.nodes))
            for node in self.nodes:
                self.start_node(node)
            self.wait_ready(timeout_s)
        except BaseException:
            self.close()
            raise

    def start_node(self, node: int) -> None:
        """Start a node on its own ports and files; `wait_ready` says when it serves."""
        if node in self.pids:
            raise ValueError(f"node {node} runs already")
        command = [
            self._java,
            *JVM,
            f"-Xmx{self._heap_mb}m",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            f"-Dmadlog.broker.log={self.log_file(node)}",
            "-Dmadlog.broker.level=info",
            *("-cp", f"{self._jars}/*", "kafka.Kafka", str(self._properties(node))),
        ]
        self._processes[node] = spawn(command, self._folder / f"node-{node}.out")

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until each node that should run serves and knows the others that run.

        Raises BrokerUnavailable when a node has ended or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        wanted = set(self._processes) - self._paused
        for node in sorted(wanted):
            while True:
                answer = ask("127.0.0.1", self._internals[node].port)
                if answer is not None and wanted <= answer.brokers and answer.controller >= 0:
                    break
                if self._processes[node].poll() is not None:
                    raise BrokerUnavailable(f"Kafka's node {node} ended: {self._last_words(node)}")
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"Kafka's node {node} was not ready in {timeout_s:g} s: it answers "
                        f"{answer}, its log ends with {self._last_words(node)}"
                    )
                time.sleep(POLL_S)

    def kill(self, node: int) -> None:
        """End a node with SIGKILL, as a power cut of its process would."""
        process = self._processes.pop(node)
        self._paused.discard(node)
        process.kill()
        process.wait()

    def stop(self, node: int, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End a node in order, as a rolling restart does; SIGKILL when the time is over."""
        if node in self._paused:
            self.resume(node)
        process = self._processes.pop(node)
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self, node: int) -> None:
        """Freeze a node with SIGSTOP: its connections stay open and nothing answers."""
        self._processes[node].send_signal(signal.SIGSTOP)
        self._paused.add(node)

    def resume(self, node: int) -> None:
        """Let a frozen node go on."""
        self._processes[node].send_signal(signal.SIGCONT)
        self._paused.discard(node)

    def close(self) -> None:
        """End all nodes and remove their files; a second call does nothing."""
        atexit.unregister(self.close)
        for node in list(self._processes):
            self.kill(node)
        for port in (*self._clients.values(), *self._controllers.values()):
            port.release()
        for port in self._internals.values():
            port.release()
        if self._folder == Path():
            return
        if self._given is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for path in [*self._folder.glob("node-*"), self._folder / "certificates"]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        if self._logs_in is not None:
            for node in self.nodes:
                shutil.rmtree(self._records(node), ignore_errors=True)

    def tool(self, main: str, *arguments: str, timeout_s: float = 60) -> str:
        """Run one of Kafka's own Java programs by class name and return what it prints.

        Raises CalledProcessError, TimeoutExpired.
        """
        command = [self._java, *JVM, "-Xmx256m", "-cp", f"{self._jars}/*", main, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        return done.stdout

    def _records(self, node: int) -> Path:
        return (self._logs_in or self._folder) / f"node-{node}"

    def _properties(self, node: int) -> Path:
        return self._folder / f"node-{node}.properties"

    def _format(self, node: int, cluster_id: str) -> None:
        path = self._properties(node)
        settings = self._node_settings(node)
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # One word: an id may begin with a dash.
        arguments = ["format", f"--cluster-id={cluster_id}", "--config", str(path)]
        if self.security in ("scram", "sasl_ssl"):
            account = f"[name={self.user},password={self.password}]"
            arguments += ["--add-scram", f"SCRAM-SHA-512={account}"]
        try:
            self.tool("kafka.tools.StorageTool", *arguments)
        except subprocess.CalledProcessError as error:
            said = " ".join((error.stdout + error.stderr).split())[:500]
            raise BrokerUnavailable(f"Kafka could not format node {node}: {said}") from error

    def _node_settings(self, node: int) -> dict[str, str]:
        names = ["CLIENT", "CONTROLLER"]
        at = {"CLIENT": self._clients[node].port, "CONTROLLER": self._controllers[node].port}
        protocols = {"CLIENT": PROTOCOLS[self.security], "CONTROLLER": "PLAINTEXT"}
        if self.security is not None:
            names.append("INTERNAL")
            at["INTERNAL"] = self._internals[node].port
            protocols["INTERNAL"] = "PLAINTEXT"
        addresses = {name: f"{name}://127.0.0.1:{at[name]}" for name in names}
        voters = (f"{i}@127.0.0.1:{port.port}" for i, port in self._controllers.items())
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(
                address for name, address in addresses.items() if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(
                f"{name}:{protocol}" for name, protocol in protocols.items()
            ),
            "inter.broker.listener.name": "INTERNAL" if self.security else "CLIENT",
            # Apart from the records, so that a full disk stops appends and not the quorum.
            "metadata.log.dir": str(self._folder / f"node-{node}-metadata"),
            "log.dirs": str(self._records(node)),
            **shared_settings(len(self.nodes)),
            **(security_settings(self.security, self.certificates) if self.security else {}),
            **self._settings,
        }

    def _last_words(self, node: int) -> str:
        """Return the end of what a node wrote, for an error's text."""
        for path in (self.log_file(node), self._folder / f"node-{node}.out"):
            if path.is_file():
                lines = path.read_text(errors="replace").splitlines()
                wrong = [line for line in lines if " ERROR " in line or "Exception" in line]
                if wrong or lines:
                    return " | ".join((wrong or lines)[-3:])[:800]
        return "(nothing was written)"


def shared_settings(nodes: int) -> dict[str, str]:
    """Return the settings that are the same on every node: small, quick, strict."""
    replicas, in_sync = str(min(3, nodes)), str(2 if nodes >= 3 else 1)
    return {
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        # A dead broker is found in 3 s, a dead transaction half a second after its time-out.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        # Retention and compaction act while a test looks.
        "log.initial.task.delay.ms": "500",
        "log.retention.check.interval.ms": "1000",
        "log.segment.delete.delay.ms": "1000",
        "log.cleaner.backoff.ms": "1000",
        # The default map of the cleaner alone is 128 MiB of heap.
        "log.cleaner.dedupe.buffer.size": str(8 << 20),
        "offsets.topic.segment.bytes": str(16 << 20),
        "transaction.state.log.segment.bytes": str(16 << 20),
    }
