"""A real Kafka broker (KRaft, one node) for tests: a data folder in, bootstrap addresses out."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tests.services.certificates import Certificates, make_certificates
from tests.services.guarded import GuardedProcess, ServiceError
from tests.services.ports import free_port

__all__ = ["KafkaBroker", "ServiceError", "consume", "missing"]

LIBRARIES = Path(__file__).parents[3] / ".cache" / "kafka" / "lib"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
READY = "Kafka Server started"


def missing() -> str | None:
    """Return why the broker cannot run on this machine, or None when it can."""
    if shutil.which("java") is None:
        return "no Java; run scripts/setup-services.sh kafka"
    if not any(LIBRARIES.glob("kafka_2.13-*.jar")):
        return "Kafka's jars are not in .cache/kafka/lib; run scripts/setup-services.sh kafka"
    return None


class KafkaBroker:
    """Own one broker; its records and its ports outlast `stop`, `kill` and `start`.

    Listeners: plain at `bootstrap`; with `secure`, also TLS with SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512) at
    `bootstrap_sasl_tls` and TLS that asks for a client certificate at `bootstrap_mutual_tls`.

    Example:
        with KafkaBroker() as broker:
            KafkaProducer(bootstrap_servers=broker.bootstrap)
    """

    user = "alerts"
    password = "correct horse battery"

    def __init__(self, *, secure: bool = False, heap_megabytes: int = 256, extra: Sequence[str] = ()) -> None:
        """Describe the broker; nothing starts yet.

        Args:
            secure: add the TLS listeners.
            extra: lines for `server.properties`, such as `auto.create.topics.enable=false`.
        """
        self.secure = secure
        self._heap_megabytes = heap_megabytes
        self._extra = tuple(extra)
        self._ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", "SASL_SSL", "SSL")}
        self._folder: Path | None = None
        self._process: GuardedProcess | None = None
        self._certificates: Certificates | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap(self) -> str:
        """Address of the plain listener."""
        return f"127.0.0.1:{self._ports['PLAINTEXT']}"

    @property
    def bootstrap_sasl_tls(self) -> str:
        """Address of the listener with TLS and a password."""
        return f"localhost:{self._ports['SASL_SSL']}"

    @property
    def bootstrap_mutual_tls(self) -> str:
        """Address of the listener with TLS and client certificates."""
        return f"localhost:{self._ports['SSL']}"

    @property
    def certificates(self) -> Certificates:
        """The authority's, server's and client's PEM files."""
        if self._certificates is None:
            raise ServiceError("the broker was not made secure, or has not started")
        return self._certificates

    @property
    def ca_file(self) -> Path:
        """The authority that signed the broker's certificate."""
        return self.certificates.ca

    @property
    def running(self) -> bool:
        """Whether the broker's process lives."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start the broker, with the records it had; return when it serves."""
        if self.running:
            return
        if self._folder is None:
            self._format()
        assert self._process is not None
        process = self._process
        process.start()
        process.wait_until(lambda: READY in process.log_tail(20_000), timeout_seconds=START_SECONDS)

    def stop(self) -> None:
        """Shut the broker down in order; records stay."""
        if self._process is not None:
            self._process.stop(timeout_seconds=STOP_SECONDS)

    def kill(self) -> None:
        """End the broker by SIGKILL; what it had acknowledged stays."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Kill the broker and start it with the same records on the same ports."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Kill the broker and delete its folder."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _format(self) -> None:
        """Write the configuration and format the storage, with the SCRAM user in it."""
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        if self.secure:
            self._certificates = make_certificates(self._folder / "certificates")
        properties = self._folder / "server.properties"
        properties.write_text("\n".join([*self._properties(), *self._extra, ""]))
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "a")  # "-" begins an option
        users: list[str] = []
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512") if self.secure else ():
            users += ["--add-scram", f"{mechanism}=[name={self.user},password={self.password}]"]
        tool = [*self._java(), "kafka.tools.StorageTool", "format", "-t", identity, "-c", str(properties), *users]
        formatted = subprocess.run(tool, capture_output=True, text=True, timeout=START_SECONDS, check=False)
        if formatted.returncode != 0:
            self.close()
            raise ServiceError(f"StorageTool failed:\n{(formatted.stdout + formatted.stderr)[-3000:]}")
        self._process = GuardedProcess(
            [*self._java(), "kafka.Kafka", str(properties)],
            log=self._folder / "broker.log",
            environment={name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")},
        )

    def _java(self) -> list[str]:
        quick = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true"]
        logger = "-Dorg.slf4j.simpleLogger"
        log = [f"{logger}.showDateTime=true", f"{logger}.log.org.apache.kafka.common.config.AbstractConfig=warn"]
        heap = [f"-Xmx{self._heap_megabytes}m", "-Xms64m"]
        return ["java", *heap, *quick, *log, "-cp", f"{LIBRARIES}/*"]

    def _properties(self) -> list[str]:
        """Return `server.properties`: one node that is broker and controller, everything replicated once."""
        names = ["PLAINTEXT", "SASL_SSL", "SSL"] if self.secure else ["PLAINTEXT"]
        hosts = {"PLAINTEXT": "127.0.0.1"}
        shown = [f"{name}://{hosts.get(name, 'localhost')}:{self._ports[name]}" for name in names]
        bound = [f"{name}://127.0.0.1:{self._ports[name]}" for name in [*names, "CONTROLLER"]]
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@127.0.0.1:{self._ports['CONTROLLER']}",
            "controller.listener.names=CONTROLLER",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            f"listeners={','.join(bound)}",
            f"advertised.listeners={','.join(shown)}",
            "inter.broker.listener.name=PLAINTEXT",
            f"log.dirs={self._folder}/data",
            "num.partitions=1",
            "offsets.topic.num.partitions=1",
            "offsets.topic.replication.factor=1",
            "transaction.state.log.num.partitions=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "share.coordinator.state.topic.num.partitions=1",
            "share.coordinator.state.topic.replication.factor=1",
            "share.coordinator.state.topic.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            "broker.session.timeout.ms=2000",  # a killed broker may come back only when its session is over
            "broker.heartbeat.interval.ms=500",
            "num.network.threads=1",
            "num.io.threads=2",
            "background.threads=2",
            "log.cleaner.dedupe.buffer.size=2097152",
        ]
        return [*lines, *self._secure_properties()] if self.secure else lines

    def _secure_properties(self) -> list[str]:
        module = "org.apache.kafka.common.security"
        scram = f"{module}.scram.ScramLoginModule required;"
        plain = f'{module}.plain.PlainLoginModule required user_{self.user}="{self.password}";'
        return [
            "ssl.keystore.type=PEM",
            f"ssl.keystore.location={self.certificates.server_store}",
            "ssl.truststore.type=PEM",
            f"ssl.truststore.location={self.certificates.ca}",
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            f"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}",
            f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}",
            f"listener.name.sasl_ssl.plain.sasl.jaas.config={plain}",
            "listener.name.ssl.ssl.client.auth=required",
        ]


def consume(
    bootstrap: str,
    topic: str,
    *,
    until: Callable[[list[Any]], bool],
    timeout_seconds: float,
    **settings: Any,
) -> list[Any]:
    """Read a topic from its beginning until the records read satisfy `until`, or the time is over.

    Args:
        bootstrap: address of the broker.
        until: is given every record so far (kafka-python's `ConsumerRecord`), in the order of reading.
        settings: further settings of `KafkaConsumer`, such as those for TLS.

    Returns:
        The records; whether they suffice is the caller's to assert.
    """
    records: list[Any] = []
    deadline = time.monotonic() + timeout_seconds
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", **settings)
    try:
        assigned: set[TopicPartition] = set()
        while not until(records) and time.monotonic() < deadline:
            known = {TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()}
            if known - assigned:
                assigned = known
                consumer.assign(sorted(assigned))
            if not assigned:
                time.sleep(0.1)
                continue
            for batch in consumer.poll(timeout_ms=200).values():
                records.extend(batch)
    finally:
        consumer.close()
    return records
