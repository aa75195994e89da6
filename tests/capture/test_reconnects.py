"""Connections that are lost in numbers: one camera's a hundred times, and all cameras' at once."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable

import pytest

from monitor.config import CameraConfig, CaptureConfig
from monitor.records import CameraState
from tests.capture.faults import Clips
from tests.capture.watching import SAMPLE_FPS, Watch, wait_for
from tests.services.processes import held_by
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import RtspServer

pytestmark = pytest.mark.alone

RECONNECTS = 100
RETURN_SECONDS = 10.0
ALL_RETURN_SECONDS = 15.0
AWAY_SECONDS = 12.0
SLOW_FPS = 5.0
"""Pictures a second where many cameras are watched: it is their number that counts."""
AT_ONCE_SECONDS = 0.1
MOST_AT_ONCE = {16: 0.8, 64: 0.6}
"""Share of so many cameras: a fifth is expected of waits of up to half a second, and few stray further from it."""


def test_a_hundred_reconnects_in_a_row_leave_nothing_behind(clips: Clips) -> None:
    quick = CaptureConfig(workers=1, retry_min_seconds=0.1, retry_max_seconds=0.1)
    with RtspServer({"yard": clips.mount(), "hall": clips.mount()}) as server, FaultyProxy(server.port) as proxy:
        with Watch(quick) as watch:
            watch.supervisor.add(CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{proxy.port}/yard"))
            watch.supervisor.add(CameraConfig(id="hall", url=server.url("hall")))
            wait_for(lambda: len(watch.samples["yard"]) > 8 and len(watch.samples["hall"]) > 8, 20.0)
            [pid] = watch.pids()
            before = held_by(pid)
            while len(watch.connects(0.0)) < RECONNECTS:
                proxy.reset()
                time.sleep(0.02)
            ended = time.time()
            heard = len(watch.samples["yard"])
            wait_for(lambda: len(watch.samples["yard"]) > heard + 8, RETURN_SECONDS)
            after = held_by(pid)
            slots = [sample.slot for _, sample in watch.samples["hall"]]
            back = watch.samples["yard"][heard][1].time_seconds - ended
            print(f"back after {back:.1f} s; {before} before, {after} after {len(watch.connects(0.0))} connections")
        assert watch.pids() == [pid]
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    assert [status.state for status in watch.states["hall"]] == [CameraState.CONNECTING, CameraState.ONLINE]
    assert after.threads <= before.threads
    assert after.descriptors <= before.descriptors
    assert after.resident_bytes - before.resident_bytes < 16 * 2**20


def most_at_once(moments: list[float]) -> int:
    """Return the most of these moments, in order, that lie within AT_ONCE_SECONDS."""
    return max(bisect_right(moments, moment + AT_ONCE_SECONDS) - number for number, moment in enumerate(moments))


def switch_reboots(_server: RtspServer, proxy: FaultyProxy) -> Callable[[], None]:
    """Nothing passes any more, and nobody is told."""
    proxy.pause()
    return proxy.resume


def power_fails(server: RtspServer, _proxy: FaultyProxy) -> Callable[[], None]:
    """Every connection ends in the same moment, and new ones are refused."""
    server.kill()
    return server.start


@pytest.mark.parametrize(
    ("count", "lose"),
    [
        pytest.param(16, switch_reboots, id="16 cameras, a switch reboots"),
        pytest.param(64, switch_reboots, id="64 cameras, a switch reboots", marks=pytest.mark.soak),
        pytest.param(64, power_fails, id="64 cameras, their power fails", marks=pytest.mark.soak),
    ],
)
def test_all_cameras_are_lost_at_once_and_return(
    count: int, lose: Callable[[RtspServer, FaultyProxy], Callable[[], None]], clips: Clips
) -> None:
    names = [f"camera-{number:02}" for number in range(count)]
    mount = clips.mount(fps=SLOW_FPS)
    with RtspServer(dict.fromkeys(names, mount)) as server, FaultyProxy(server.port) as proxy:
        port = server.port if lose is power_fails else proxy.port
        with Watch(CaptureConfig()) as watch:
            for name in names:
                watch.supervisor.add(CameraConfig(id=name, url=f"rtsp://127.0.0.1:{port}/{name}"))
            wait_for(lambda: all(len(watch.samples[name]) > SAMPLE_FPS for name in names), 60.0)
            lost = time.time()
            give_back = lose(server, proxy)
            time.sleep(AWAY_SECONDS)
            assert all(watch.states[name][-1].state is not CameraState.ONLINE for name in names)
            given_back = time.time()
            give_back()
            wait_for(lambda: all(watch.since(name, given_back) for name in names), ALL_RETURN_SECONDS)
            back = max(watch.first_after(name, given_back) for name in names) - given_back
            attempts, planned = watch.connects(lost), watch.planned(lost)
            print(
                f"{count} cameras: {len(attempts)} attempts, at most {most_at_once(attempts)} in"
                f" {AT_ONCE_SECONDS:.1f} s ({most_at_once(planned)} were planned); the last one back after"
                f" {back:.1f} s"
            )
        assert len(watch.pids()) == len(set(watch.pids())) <= 2
    assert len(attempts) >= len(planned) >= count
    assert most_at_once(planned) < count * MOST_AT_ONCE[count]
