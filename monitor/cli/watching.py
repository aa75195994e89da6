"""`monitor run`."""

from __future__ import annotations

from pathlib import Path

from monitor.cli.console import ConfigPath, speak
from monitor.config import load_config
from monitor.service import open_service
from monitor.surroundings import check_surroundings


def run(config: ConfigPath = Path("config.toml")) -> None:
    """Watch the cameras until SIGINT or SIGTERM; SIGHUP reads the configuration and the model anew.

    Example: `monitor run --config config.toml`
    """
    loaded = load_config(config)
    redactor = speak(loaded)
    check_surroundings(loaded, config)
    open_service(loaded, config_path=config, learn_secrets=redactor.learn).run()
