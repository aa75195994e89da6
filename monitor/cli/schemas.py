"""`monitor schema`: what the program reads and says, as schemas."""

from __future__ import annotations

import json
from typing import Any

import typer

from monitor.config import Config
from monitor.events.asyncapi import asyncapi_text
from monitor.events.messages import alert_schema_text, health_schema_text
from monitor.telemetry.reference import reference_text
from monitor.web.app import openapi_document

schema_app = typer.Typer(help="Print the schemas of what the program reads and says.", no_args_is_help=True)


@schema_app.command("config")
def schema_config() -> None:
    """Print the JSON Schema of config.toml; editors complete its keys with it."""
    print(json.dumps(config_schema(), indent=2))


@schema_app.command("alert")
def schema_alert() -> None:
    """Print the JSON Schema of the alert messages."""
    print(alert_schema_text(), end="")


@schema_app.command("metrics")
def schema_metrics() -> None:
    """Print the reference of the metrics, docs/metrics.md."""
    print(reference_text(), end="")


@schema_app.command("camera")
def schema_camera() -> None:
    """Print the JSON Schema of the messages on a camera's health."""
    print(health_schema_text(), end="")


@schema_app.command("asyncapi")
def schema_asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of both topics, with the messages' schemas in it."""
    print(asyncapi_text(), end="")


@schema_app.command("openapi")
def schema_openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    print(json.dumps(openapi_document(), indent=2))


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Video event monitor", **schema}
