"""The page in a real browser, on a real monitor with simulated cameras: seen, played, logged in to, by keyboard too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from monitor import __version__
from monitor.bundle import find_bundle, load_bundle
from monitor.config import CameraConfig
from monitor.records import CameraState, CameraStatus, FailureReason, HealthChange, HealthState
from tests.conftest import require
from tests.events.test_tracker import make_score
from tests.services import browser as browser_service
from tests.services.browser import Visit, chromium, visit
from tests.services.monitor import MonitorProcess, configuration
from tests.services.ports import free_port
from tests.services.rtsp import Mount, RtspServer
from tests.web.test_app import Shown as SetView
from tests.web.test_app import served

from .conftest import FPS

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(240)]

TOKEN = "open-sesame-0123456789"
ALERT = "1b0c6f0a-0000-5000-8000-000000000001"
MODEL = load_bundle(find_bundle("demo", Path())).manifest
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
LOOKS = [("light", "desk", DESK), ("dark", "desk", DESK), ("dark", "phone", PHONE)]
EVENT_MILLISECONDS = 60_000


COLOURS_DRAWN = """canvas => {
    const { width, height } = canvas;
    const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const opaque = (from, to) => {
        const found = new Map();
        for (let at = 4 * width * Math.round(height * from); at < 4 * width * Math.round(height * to); at += 4) {
            if (pixels[at + 3] === 255) found.set(String(pixels.slice(at, at + 3)), [...pixels.slice(at, at + 3)]);
        }
        return [...found.values()];
    };
    return [opaque(0, 0.8), opaque(0.88, 0.96)];
}"""
"""The opaque colours of a score line, as red, green, blue: in the place of the line, and in that of the attention."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A monitor with two live cameras and a dead one, and a browser."""

    monitor: MonitorProcess
    browser: Browser

    @property
    def host(self) -> str:
        return self.monitor.address.removeprefix("http://")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require(browser_service.missing())
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown(tmp_path_factory, scene_streams, browser) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("page")
    mount = Mount(scene_streams["h264"], FPS)
    with RtspServer({"yard": mount, "gate": mount}) as server:
        cameras = [
            {"id": "yard", "name": "The yard", "site": "Depot", "url": server.url("yard")},
            {"id": "gate", "name": "Gate", "url": server.url("gate")},
            {"id": "dead", "name": "Dead end", "url": f"rtsp://127.0.0.1:{free_port()}/dead"},
        ]
        evidence = {"pre_seconds": 2.0, "post_seconds": 1.0}
        config = configuration(folder, cameras, bundle="demo", http={"token_env": "MONITOR_TOKEN"}, evidence=evidence)
        with MonitorProcess(config, {"MONITOR_TOKEN": TOKEN}) as monitor:
            yield Shown(monitor, browser)
        assert TOKEN not in monitor.log_text


@pytest.fixture
def visited(shown) -> Iterator[Visit]:
    """A browser that is logged in, on a wide screen."""
    with visit(shown.browser, viewport=DESK, base_url=shown.monitor.address) as here:
        log_in(here)
        yield here
        assert here.complaints == []
        assert here.hosts == {shown.host}, "nothing is asked of anybody else"


def log_in(here: Visit) -> None:
    here.page.goto("/")
    here.page.get_by_label("Token").fill(TOKEN)
    here.page.get_by_role("button", name="Log in").click()
    expect(here.page.get_by_role("heading", name="Cameras", exact=True)).to_be_visible()


def first_alert(here: Visit) -> str:
    """Return the id of an alert whose clip is there."""
    here.page.goto("/alerts")
    expect(here.page.locator(".alert-card video").first).to_be_visible(timeout=EVENT_MILLISECONDS)
    card = here.page.locator(".alert-card", has=here.page.locator("video")).first
    return str(card.get_attribute("data-alert"))


def test_an_event_appears_without_a_reload_and_its_clip_plays(visited):
    page = visited.page
    page.evaluate("window.stayed = true")
    before = page.locator("#alerts [data-alert]").evaluate_all("cards => cards.map(card => card.dataset.alert)")
    known = ", ".join(f'[data-alert="{alert}"]' for alert in before) or "[data-none]"
    fresh = page.locator(f"#alerts [data-alert]:not({known})")
    expect(fresh.first).to_be_visible(timeout=EVENT_MILLISECONDS)
    expect(page.locator("#announce")).to_contain_text("scuffle on")
    alert = fresh.first.get_attribute("data-alert")
    assert page.evaluate("window.stayed"), "the page was not loaded again"

    page.goto("/alerts")
    page.evaluate("window.stayed = true")
    card = page.locator(f'[data-alert="{alert}"]')
    video = card.locator("video")  # comes when the clip is complete
    expect(video).to_be_visible(timeout=EVENT_MILLISECONDS)
    assert page.evaluate("window.stayed")
    play = """one => {
        const video = document.querySelector(one);
        video.muted = true;
        if (video.paused) video.play().catch(() => {});
        return video.currentTime > 1;
    }"""
    page.wait_for_function(play, arg=f'[data-alert="{alert}"] video')  # its card may be renewed until it plays
    assert video.evaluate("video => [video.videoWidth, video.error]") == [640, None]
    video.evaluate("video => { video.pause(); video.currentTime = 0.2; }")
    page.wait_for_function("video => !video.seeking && video.currentTime < 1", arg=video.element_handle())


def test_the_strip_shows_as_many_frames_as_the_window_has(visited):
    alert = first_alert(visited)
    page = visited.page
    selector = f'[data-alert="{alert}"] .strip img'
    loaded = (
        "one => { const i = document.querySelector(one); i.scrollIntoView(); return i.complete && i.naturalWidth; }"
    )
    page.wait_for_function(loaded, arg=selector)
    strip = page.locator(selector)
    assert strip.evaluate("image => image.naturalWidth") == MODEL.window_slots * 218 + 10
    assert f"The {MODEL.window_slots} frames" in str(strip.get_attribute("alt"))
    page.goto(f"/alerts/{alert}")
    assert page.locator(".frames li").count() == MODEL.window_slots
    weights = page.locator(".frames meter").evaluate_all("meters => meters.map(meter => meter.value)")
    (decided, *_) = page.evaluate(f"fetch('/api/v1/alerts/{alert}').then(answer => answer.json())")["messages"]
    assert weights == pytest.approx(decided["evidence"]["attention"]), "those of the window that the strip shows"
    most = page.locator(".frames li").evaluate_all("all => all.map(one => one.classList.contains('most'))")
    assert [index for index, chosen in enumerate(most) if chosen] == [weights.index(max(weights))]


def test_the_wall_lives(visited):
    """States, pictures, scores and the attention under them come without a reload."""
    page = visited.page
    yard, dead = (page.locator(f'.camera[data-camera="{camera}"]') for camera in ("yard", "dead"))
    expect(yard.locator(".condition-text")).to_have_text("online")
    expect(dead.locator(".condition-text")).to_have_text("offline")
    expect(page.locator("#count")).to_have_text("2 of 3 online")
    expect(page.locator("#live")).to_have_text("Live")
    model = page.evaluate("fetch('/api/v1/monitor').then(answer => answer.json())")
    assert model["engine"] in {"openvino", "onnxruntime", "tensorrt"}
    expect(page.locator("footer")).to_contain_text(
        f"Model demo {MODEL.version} on {model['engine']} {model['precision']}"
    )
    expect(page.locator("footer")).to_contain_text(f"version {__version__}")
    page.wait_for_function("image => image.naturalWidth === 640", arg=yard.locator("img").element_handle())
    first = yard.locator("img").get_attribute("src")
    expect(yard.locator("img")).not_to_have_attribute("src", str(first))
    canvas = yard.locator("canvas")
    page.wait_for_function("canvas => /now \\d\\.\\d\\d/.test(canvas.ariaLabel)", arg=canvas.element_handle())
    above, below = canvas.evaluate(COLOURS_DRAWN)
    blue, orange = (lambda of: of[2] - of[0] > 100), (lambda of: of[0] - of[2] > 30)
    assert any(map(blue, above)), "the line"
    assert not any(map(orange, above))
    assert len(list(filter(orange, below))) > 3, "the attention under it, in shades"
    assert not any(map(blue, below))


def test_a_camera_that_is_no_longer_watched_leaves_the_wall(browser):
    shown = SetView()
    for camera in ("yard", "gate", "attic"):
        shown.reporter.camera_added(CameraConfig(id=camera, url="rtsp://camera/x"))
    with served(shown) as address, visit(browser, base_url=address) as here:
        page = here.page
        page.goto("/")
        expect(page.locator("#live")).to_have_text("Live")
        shown.reporter.camera_removed("gate")
        expect(page.locator("[data-camera]")).to_have_count(2)
        expect(page.locator("#count")).to_have_text("0 of 2 online")
        assert here.complaints == []


@pytest.mark.parametrize("path", ["/", "/cameras/gate"])
def test_a_camera_that_was_taken_away_before_the_page_listened_leaves_it(browser, path):
    shown = SetView()
    for camera in ("yard", "gate"):
        shown.reporter.camera_added(CameraConfig(id=camera, url="rtsp://camera/x"))

    def take_away(route: Route) -> None:
        shown.reporter.camera_removed("gate")
        route.continue_()

    with served(shown) as address, visit(browser, base_url=address) as here:
        here.page.route("**/api/v1/events?*", take_away, times=1)
        here.page.goto(path)
        if path == "/":
            expect(here.page.locator("[data-camera]")).to_have_count(1)
            expect(here.page.locator("#count")).to_have_text("0 of 1 online")
        else:
            expect(here.page.locator("main")).to_contain_text("There is no such camera.")


def test_a_camera_that_is_lost_shows_since_when_and_no_score_of_now(browser):
    shown = SetView()
    shown.reporter.camera_added(CameraConfig(id="yard", url="rtsp://camera/x"))
    shown.reporter.status(CameraStatus("yard", CameraState.ONLINE, 60.0))
    shown.feed.history.note(make_score(0, 0.9), {"scuffle": 0.9})
    with served(shown) as address, visit(browser, base_url=address) as wall, visit(browser, base_url=address) as one:
        for here, path in ((wall, "/"), (one, "/cameras/yard")):
            here.page.goto(path)
            expect(here.page.locator("#live")).to_have_text("Live")
            expect(here.page.locator(".score-value")).to_have_text("0.90")
        shown.reporter.status(CameraStatus("yard", CameraState.OFFLINE, 3600.0, reason=FailureReason.STALLED))
        for here in (wall, one):
            expect(here.page.locator(".camera .condition-text")).to_have_text("offline")
            expect(here.page.locator(".score-value")).to_have_text("–")
        expect(one.page.locator("time.since")).to_have_text("1970-01-01 01:00:00")
        shown.feed.history.note(make_score(1, 0.8), {"scuffle": 0.8})  # a window that was still on its way
        time.sleep(1.5)
        for here in (wall, one):
            expect(here.page.locator(".score-value")).to_have_text("–")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_no_name_is_too_long_for_the_page(browser, size):
    shown, name, label = SetView(), "N" * 200, "l" * 60
    shown.reporter.camera_added(CameraConfig(id="i" * 63, name=name, site="S" * 200, url="rtsp://camera/x"))
    lost = CameraStatus("i" * 63, CameraState.OFFLINE, 60.0, reason=FailureReason.STALLED, detail="d" * 300)
    shown.reporter.status(lost)
    time_told = "2026-01-31T12:00:00.000Z"
    shown.messages = [
        {
            "alert_id": ALERT,
            "phase": "started",
            "reason": None,
            "camera": {"id": "i" * 63, "name": name, "site": "S" * 200},
            "event": {"label": label, "score": 0.9, "peak_score": 0.9, "threshold_on": 0.8, "threshold_off": 0.5},
            "time": {"started_at": time_told, "published_at": time_told, "duration_seconds": None},
            "evidence": {
                "frame_times": [time_told] * 8,
                "attention": [0.125] * 8,
                "most_attended_at": time_told,
                "coverage": 1.0,
                "degraded": False,
                "clip": None,
            },
            "model": {"name": "m" * 60, "version": "1", "engine": "openvino", "precision": "fp32"},
        }
    ]
    with served(shown) as address, visit(browser, base_url=address, viewport=size) as here:
        for path in ("/", "/alerts", f"/alerts?label={label}", f"/alerts/{ALERT}", f"/cameras/{'i' * 63}"):
            here.page.goto(path)
            expect(here.page.locator("#live")).to_have_text("Live")
            assert here.page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        assert here.complaints == []


def test_cameras_that_show_nothing_are_named_above_the_wall(browser):
    shown = SetView()
    for number in range(60):
        shown.reporter.camera_added(CameraConfig(id=f"hall-{number}", name=f"Hall {number}", url="rtsp://camera/x"))
        shown.reporter.status(CameraStatus(f"hall-{number}", CameraState.ONLINE, 60.0))
    lost = CameraStatus("hall-41", CameraState.OFFLINE, 61.0, reason=FailureReason.STALLED)
    shown.reporter.status(lost)
    with served(shown) as address, visit(browser, base_url=address, viewport=DESK) as here:
        page, named = here.page, here.page.locator("#troubled")
        page.goto("/")
        expect(page.locator("#live")).to_have_text("Live")
        expect(named).to_have_text("Look at: Hall 41 (offline)")
        named.get_by_role("link", name="Hall 41").focus()
        shown.reporter.health(HealthChange("hall-3", HealthState.DARK, None, 62.0, 63.0, None, ""))
        expect(named).to_have_text("Look at: Hall 3 (dark), Hall 41 (offline)")
        named.get_by_role("link", name="Hall 41").click()
        expect(page.locator("#camera-hall-41 h2")).to_be_in_viewport()
        for camera in ("hall-41", "hall-3"):
            shown.reporter.status(CameraStatus(camera, CameraState.ONLINE, 64.0))
        shown.reporter.health(HealthChange("hall-3", HealthState.ONLINE, HealthState.DARK, 65.0, 66.0, None, ""))
        expect(named).to_be_hidden()
        assert here.judge() == []
        assert here.complaints == []


def test_a_camera_s_page_draws_its_hour(visited):
    page = visited.page
    page.goto("/cameras/yard")
    expect(page.locator(".u-over")).to_be_visible()
    expect(page.locator("#window li")).to_have_count(MODEL.window_slots)
    expect(page.locator("#chart-says")).to_contain_text("Highest score:")
    fetched = "fetch('/api/v1/cameras/yard/scores').then(answer => answer.json())"
    page.wait_for_function(f"{fetched}.then(points => points.ends.length > 5)")
    points = page.evaluate(fetched)
    assert points["labels"] == ["scuffle"]
    assert len(points["ends"]) == len(points["scores"]) == len(points["attention"])
    button = page.get_by_role("button", name="5 min", exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    visited.photograph("camera-desk-chart", full_page=True)


def test_filters_stand_in_the_address(visited):
    alert = first_alert(visited)
    page = visited.page
    page.get_by_label("Camera").select_option(label="Dead end")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url("**camera=dead**")
    expect(page.get_by_text("No alert fits.")).to_be_visible()
    page.goto("/alerts?label=scuffle&since=2020-01-01T00:00&until=2199-01-01T00:00")
    expect(page.locator(f'[data-alert="{alert}"]')).to_be_visible()
    for asked in ("until=2020-01-01T00:00", "since=2199-01-01T00:00", "label=fall", "camera=none"):
        page.goto(f"/alerts?{asked}")
        assert page.locator("[data-alert]").count() == 0, asked


def test_who_does_not_know_the_token_sees_nothing(shown):
    with visit(shown.browser, viewport=DESK, base_url=shown.monitor.address) as here:
        page = here.page
        page.goto("/alerts?camera=yard")
        assert page.url.endswith("/login?next=/alerts%3Fcamera%3Dyard")
        page.get_by_label("Token").fill("wrong-token-0123456789")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        assert page.evaluate("document.cookie") == ""
        here.photograph("login-refused")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url("**/alerts?camera=yard")
        assert page.evaluate("document.cookie") == "", "no script can read it"
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        page.goto("/")
        assert page.url.endswith("/login")
        refused = [line for line in here.complaints if "401" not in line]  # the browser itself says that it was refused
        assert refused == []
        assert TOKEN not in page.url


def test_everything_is_reached_by_keyboard(visited):
    page = visited.page
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    expect(page.locator("#troubled").get_by_role("link", name="Dead end")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="The yard", exact=True)).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/cameras/yard")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
    assert {"Cameras", "Alerts", "Log out", "All cameras", "5 min", "15 min", "1 h"} <= reached


def test_without_scripts_everything_is_there_to_read(shown):
    alert = None
    with visit(shown.browser, viewport=DESK, base_url=shown.monitor.address) as here:
        log_in(here)
        alert = first_alert(here)
    with visit(shown.browser, viewport=DESK, base_url=shown.monitor.address, java_script_enabled=False) as here:
        log_in(here)
        page = here.page
        expect(page.locator('.camera[data-camera="yard"] .condition-text')).to_have_text("online")
        expect(page.locator('.camera[data-camera="yard"] .score-value')).not_to_have_text("–")
        page.goto(f"/alerts/{alert}")
        expect(page.locator("video")).to_be_visible()
        assert page.locator(".frames li").count() == MODEL.window_slots


@pytest.mark.parametrize(("scheme", "screen", "size"), LOOKS)
def test_nobody_is_kept_out(scheme, screen, size, shown):
    """axe-core finds nothing on any page; and nothing is wider than a phone."""
    options = {"color_scheme": scheme, "viewport": size, "base_url": shown.monitor.address}
    with visit(shown.browser, **options) as here:
        page = here.page
        page.goto("/login")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(ground[4:].split(",")[0]) > 200) == (scheme == "light")
        found = {"login": here.judge()}
        here.photograph(f"login-{scheme}-{screen}")
        log_in(here)
        alert = first_alert(here)
        for name, path in (
            ("wall", "/"),
            ("alerts", "/alerts"),
            ("no-alert", "/alerts?camera=dead&since=rubbish"),
            ("alert", f"/alerts/{alert}"),
            ("camera", "/cameras/yard"),
            ("dead-camera", "/cameras/dead"),
            ("missing", "/cameras/none"),
        ):
            page.goto(path)
            time.sleep(0.7)  # what comes by the stream is judged as well
            found[name] = here.judge()
            here.photograph(f"{name}-{scheme}-{screen}", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], f"{name} is too wide"
    assert found == {name: [] for name in found}
    allowed = ("422", "404")  # of the two pages that are asked for wrongly on purpose
    assert [line for line in here.complaints if not any(code in line for code in allowed)] == []


def test_the_judge_of_accessibility_finds_what_is_wrong(browser):
    with visit(browser) as here:
        here.page.set_content('<p style="color: #999; background: #bbb">faint</p><input><img src="data:,">')
        found = " ".join(here.judge())
    assert all(rule in found for rule in ("color-contrast", "label", "image-alt", "html-has-lang"))
