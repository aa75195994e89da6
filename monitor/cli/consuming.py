"""`monitor consume`: the alerts out of Kafka, checked and each told once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape

from monitor.cli.console import AsJson, ConfigPath, err, speak
from monitor.cli.messages import print_messages
from monitor.config import KafkaConfig, load_config
from monitor.config.problems import problems_of
from monitor.delivery.consumer import Consumer
from monitor.errors import InputInvalid


def consume(
    config: ConfigPath = Path("config.toml"),
    servers: Annotated[
        str, typer.Option("--bootstrap-servers", "-b", help="host:port,…; then no configuration is read.")
    ] = "",
    topic: Annotated[str, typer.Option("--topic", "-t", help="Read this topic instead of the configured one.")] = "",
    health: Annotated[bool, typer.Option("--health", help="The messages on cameras' health instead.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest; a group goes on where it was.")
    ] = False,
    group: Annotated[
        str, typer.Option("--group", "-g", help="Consumer group that keeps its place in Kafka; without, none is kept.")
    ] = "",
    maximum: Annotated[int | None, typer.Option("--max", "-n", min=1, help="End after so many messages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read alerts from Kafka: check each against its schema, drop what repeats, print the others as they come.

    Ends on SIGINT or SIGTERM, or after --max messages. A Kafka that cannot be reached at the beginning, or that refuses
    us, is an error (exit code 1); one that goes away later is waited for. Records that are no message of the schema are
    told on standard error and passed over; then the exit code is 1 at the end.

    Examples: `monitor consume --from-beginning`, `monitor consume -b kafka:9092 --json --group archive | jq .event`
    """
    settings = _kafka_to_read(config, servers=servers, topic=topic, health=health)
    consumer = Consumer(
        settings,
        health=health,
        group=group,
        from_beginning=from_beginning,
        on_remark=lambda remark: err.print(escape(remark), highlight=False, soft_wrap=True),
    )
    header = True
    with _asked_to_stop() as stop:
        for messages in consumer.batches(stop, maximum=maximum):
            print_messages(messages, as_json=as_json, health=health, header=header)
            header = False
    counts = consumer.counts
    err.print(f"{counts.told} messages, {counts.repeated} repeated, {counts.invalid} invalid", highlight=False)
    if counts.invalid:
        raise typer.Exit(1)


def _kafka_to_read(config: Path, *, servers: str, topic: str, health: bool) -> KafkaConfig:
    """Return where to read: as the options say, or else as the configuration does.

    Raises:
        InputInvalid: an option cannot be used, or neither names a Kafka.
        ConfigInvalid: the configuration cannot be used.
    """
    named = {"health_topic" if health else "topic": topic} if topic else {}
    if servers:
        speak(None)
        settings = {"bootstrap_servers": servers}
    else:
        loaded = load_config(config)
        speak(loaded)
        if loaded.kafka is None:
            raise InputInvalid(config, "has no section [kafka]; add it, or give --bootstrap-servers")
        settings = loaded.kafka.model_dump()
    try:
        return KafkaConfig.model_validate(settings | named)
    except ValidationError as exc:
        [problem, *_] = problems_of(exc, {}, KafkaConfig)
        option = "--topic" if "topic" in problem.key else "--bootstrap-servers"
        raise InputInvalid(option, problem.reason) from None


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set an event on the first SIGINT or SIGTERM; the second ends the process as if nobody had listened."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
