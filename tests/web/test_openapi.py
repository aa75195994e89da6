"""The OpenAPI document is right: whatever fits it is answered as it says, whatever does not is refused as it says."""

from __future__ import annotations

import json

import schemathesis
from hypothesis import HealthCheck, settings

from monitor.config import CameraConfig
from monitor.web.app import Page
from monitor.web.login import Attempts
from tests.events.test_tracker import make_score

from .test_app import Shown

TOKEN = "0123456789abcdef"
ALERT = "0d9c0f4e-6a64-5a3c-9a3e-2f1a7c0b9d11"


def page() -> Page:
    """A page with a camera, scores and an alert."""
    shown = Shown()
    shown.reporter.camera_added(CameraConfig(id="yard", name="Yard", url="rtsp://camera/x"))
    shown.feed.history.note(make_score(3, 0.7), {"fight": 0.7})
    shown.messages.append({"alert_id": ALERT, "camera": {"id": "yard"}, "event": {"label": "fight"}})
    return Page(shown, shown.feed, token=TOKEN)


schema = schemathesis.openapi.from_asgi(
    "/api/v1/openapi.json", page().app, headers={"Authorization": f"Bearer {TOKEN}"}
)


@schema.exclude(path="/api/v1/events").parametrize()
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_document_is_right(case, monkeypatch):
    monkeypatch.setattr(Attempts, "note_failure", lambda *_: None)  # it tries wrong tokens, more than a person may
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})


def test_no_parameter_may_be_null():
    """No query and no path can say it; a document that allows it has programs send what arrives as something else."""
    document = page().app.openapi()
    parameters = [
        parameter
        for path in document["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", [])
    ]
    assert len(parameters) > 10
    assert [parameter for parameter in parameters if '"null"' in json.dumps(parameter)] == []
