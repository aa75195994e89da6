"""The variables `MONITOR_…` of the environment in; those that nothing reads, with what may be meant, out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from monitor.errors import Problem

PREFIX, NESTED = "MONITOR_", "__"
CONFIG, TOKEN = "MONITOR_CONFIG", "MONITOR_TOKEN"
"""Where the configuration is, and the name that the guides give to the secret of the page."""
SERVICE_LINK = re.compile(r"MONITOR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""What Kubernetes sets in pods beside a Service `monitor`, unless told not to; `…_PORT` is then an address with `://`."""


def unread_variables(values: Mapping[str, Any], keys: Mapping[str, type[BaseModel] | None]) -> list[Problem]:
    """Return a problem for each variable of ours that nothing reads.

    Args:
        values: what the file says: it may name variables that hold secrets.
        keys: the keys of the configuration, each with its section where it is one.
    """
    ours = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    secrets = {*_named(values), CONFIG, TOKEN}
    readable = [_spelled(key) for key, section in keys.items() if section is None]
    readable += [_spelled(key, inner) for key, section in keys.items() if section for inner in section.model_fields]
    return [
        Problem(name, _reason(name, [*readable, CONFIG, TOKEN]))
        for name in sorted(ours)
        if name not in secrets
        and not _is_service_link(name, ours[name])
        and not _is_read(name, keys)
        and not any(name in text for other, text in ours.items() if other != name)  # MONITOR_HTTP__TOKEN_ENV names it
    ]


def variable_of(location: Sequence[int | str]) -> str:
    """Return the variable that sets a place of the configuration, as it stands in the environment; empty: none does."""
    ours = {name.upper(): name for name in os.environ}
    spelled = (_spelled(*map(str, location)), _spelled("cameras") if location[:1] == ("cameras",) else "")
    return next((ours[name] for name in spelled if name in ours), "")


def _is_read(name: str, keys: Mapping[str, type[BaseModel] | None]) -> bool:
    key, nested, _ = name[len(PREFIX) :].lower().partition(NESTED)
    return key in keys and (not nested or keys[key] is not None)


def _is_service_link(name: str, value: str) -> bool:
    return SERVICE_LINK.fullmatch(name) is not None and (not name.endswith("_PORT") or "://" in value)


def _named(values: Any) -> Iterator[str]:
    """Yield the variables that a configuration names, anywhere: the values of its keys `…_env`."""
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, str) and key.endswith("_env"):
                yield value
            yield from _named(value)
    elif isinstance(values, list):
        for value in values:
            yield from _named(value)


def _spelled(*keys: str) -> str:
    return PREFIX + NESTED.join(keys).upper()


def _reason(name: str, readable: list[str]) -> str:
    bare = {each.removeprefix(PREFIX): each for each in readable}
    near = get_close_matches(name[len(PREFIX) :].upper(), bare, n=1)
    return f"nothing reads this variable; {f'did you mean {bare[near[0]]}?' if near else 'unset it'}"
