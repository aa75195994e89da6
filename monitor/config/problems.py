"""What pydantic finds wrong with a configuration in; plain words, each under the key that a person looks for, out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from monitor.config.environment import variable_of
from monitor.errors import Problem

Location = tuple[int | str, ...]

KINDS = {
    "bool": "true or false",
    "dict": "a table of its own",
    "float": "a number",
    "int": "a whole number",
    "tuple": "a list in [ ]",
}
TEXTS = {"path": "a path in quotes", "string": "a text in quotes"}
"""A number in place of one is not shown: a password may consist of digits."""
BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
}
LENGTHS = {
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length}",
}
PATTERNS = {
    "id": "must be letters, digits and . _ -, at most 63, the first a letter or digit",
    "instance": "must be letters, digits and . _ -, at most 63, the first a letter or digit",
    "topic": "must be letters, digits and . _ -, at most 249",
    "health_topic": "must be letters, digits and . _ -, at most 249",
    "upload_url": "must be s3://bucket/folder, without credentials",
    "upload_endpoint_url": "must begin with https:// or http://, and hold no credentials",
}
WORD = re.compile(r"[\w.+-]{1,40}")
"""What may be shown of a wrong value: nothing that could be an address with a password in it."""


def problems_of(invalid: ValidationError, values: Mapping[str, Any], settings: type[BaseModel]) -> list[Problem]:
    """Return every problem of a configuration.

    Args:
        invalid: what pydantic found.
        values: what the file says.
        settings: the model that does not take them.
    """
    errors = invalid.errors(include_url=False)
    return [_problem(error, values, settings) for error in errors if not _follows(error, errors)]


def _problem(error: ErrorDetails, values: Mapping[str, Any], settings: type[BaseModel]) -> Problem:
    variable = variable_of(error["loc"])
    reason = _reason(error, settings)
    return Problem(
        _key(error["loc"], {} if variable else values), f"{reason} (set by {variable})" if variable else reason
    )


def _follows(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether an error only follows from others: no camera is left because each one is wrong."""
    of_cameras = [other for other in errors if other["loc"][:1] == ("cameras",)]
    return error["type"] == "too_short" and error["loc"] == ("cameras",) and len(of_cameras) > 1


def _key(location: Location, values: Mapping[str, Any]) -> str:
    """Spell a location as a person would look for it: `cameras[1] (yard).url`."""
    key = ""
    here: Any = values
    for part in location:
        if isinstance(part, int):
            here = here[part] if isinstance(here, list) and part < len(here) else None
            name = here.get("id") if isinstance(here, dict) else None
            key += f"[{part}]" + (f" ({name})" if isinstance(name, str) else "")
        else:
            here = here.get(part) if isinstance(here, dict) else None
            key += f".{part}" if key else part
    return key or "configuration"


def _reason(error: ErrorDetails, settings: type[BaseModel]) -> str:
    kind, location, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return _unknown(location, settings)
    if location[:1] == ("cameras",) and len(location) <= 2 and kind in {"tuple_type", "model_type"}:
        return "write [[cameras]] before the keys of each camera"
    if kind == "model_type":
        return f"must be a table with the keys {', '.join(_keys_at(location, settings))}"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(location[-1]), error["msg"])
    if kind in LENGTHS:
        return LENGTHS[kind].format(**context)
    family = kind.partition("_")[0]
    if family in TEXTS:
        return f"must be {TEXTS[family]}"
    if family in KINDS:
        return f"must be {KINDS[family]}{_shown(error['input'])}"
    if kind in BOUNDS:
        return f"must be {BOUNDS[kind].format(**context)}{_shown(error['input'])}"
    return error["msg"].removeprefix("Value error, ")


def _shown(value: object) -> str:
    """Return a wrong value as the file spells it; nothing where it could hold a secret."""
    if not isinstance(value, str | int | float) or not WORD.fullmatch(str(value)):
        return ""
    return f", not {str(value).lower() if isinstance(value, bool) else repr(value)}"


def _unknown(location: Location, settings: type[BaseModel]) -> str:
    """Say that a key is unknown, and which one may be meant."""
    name, top = str(location[-1]), len(location) == 1
    for near in get_close_matches(name.lower(), _keys_at(location[:-1], settings), n=1, cutoff=0.7):
        section = top and section_of(settings.model_fields[near])
        return f"unknown key; did you mean {_header(near) if section else near}?"
    elsewhere = [(section, key) for section in settings.model_fields for key in _keys_at((section,), settings)]
    close = get_close_matches(name.lower(), [key for _, key in elsewhere], n=1, cutoff=0.7)
    homes = [f"{key} below {_header(section)}" for section, key in elsewhere if [key] == close]
    return f"unknown key; did you mean {homes[0]}?" if len(homes) == 1 else "unknown key"


def _header(section: str) -> str:
    return "[[cameras]]" if section == "cameras" else f"[{section}]"


def _keys_at(location: Location, settings: type[BaseModel]) -> list[str]:
    """Return the keys that a place in the configuration has; none where it is no table."""
    here = settings
    for part in location:  # the places of a list, and the labels of thresholds, are no fields
        field = here.model_fields.get(str(part))
        here = here if field is None else section_of(field) or BaseModel
    return list(here.model_fields)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a key holds, as `tuple[CameraConfig, ...]` and `KafkaConfig | None` do; None: a value."""
    return next(_models_in(field.annotation), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
