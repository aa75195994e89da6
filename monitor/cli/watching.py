"""`monitor run`."""

from __future__ import annotations

from pathlib import Path

import structlog

from monitor.cli.console import ConfigPath, speak
from monitor.config import load_config
from monitor.service import open_service
from monitor.signals import signals_while_loading
from monitor.surroundings import check_surroundings

log = structlog.get_logger()


def run(config: ConfigPath = Path("config.toml")) -> None:
    """Watch the cameras until SIGINT or SIGTERM; SIGHUP reads the configuration and the model anew.

    Example: `monitor run --config config.toml`
    """
    with signals_while_loading() as reload_asked:
        loaded = load_config(config)
        redactor = speak(loaded)
        # A file that is missing is looked for again and again, as a camera is.
        for missing in check_surroundings(loaded, config, every_file=False):
            log.warning("video_file_missing", key=missing.key, reason=missing.reason)
        service = open_service(loaded, config_path=config, learn_secrets=redactor.learn)
        if reload_asked.is_set():
            service.ask_to_reload()
        service.run()
