"""Secrets leave in no spelling."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.telemetry.redaction import Redactor

SECRET = "p@ss w:rd/ü"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        quote(SECRET, safe="").lower(),
        base64.b64encode(SECRET.encode()).decode(),
    ],
)
def test_every_spelling_is_taken_out(spelling):
    cleaned = Redactor([SECRET]).clean(f"before {spelling} after")
    assert cleaned == "before [redacted] after"


def test_userinfo_of_any_address_is_taken_out():
    text = "cannot open rtsp://anna:unknown@camera:8554/x and http://token@host/"
    assert Redactor(()).clean(text) == "cannot open rtsp://[redacted]@camera:8554/x and http://[redacted]@host/"


def test_an_at_in_the_password_leaves_nothing_behind():
    assert Redactor(()).clean("rtsp://an@na:hun@ter2@cam/x") == "rtsp://[redacted]@cam/x"


def test_an_empty_secret_redacts_nothing():
    assert Redactor([""]).clean("as it was") == "as it was"


@given(secret=st.text(min_size=1), before=st.text(), after=st.text())
def test_no_secret_survives(secret, before, after):
    cleaned = Redactor([secret]).clean(f"{before}{secret}{after}")
    assert all(secret not in part for part in cleaned.split("[redacted]"))
