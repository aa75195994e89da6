"""What the stages tell in; what the page remembers of it out: scores, pictures, news."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from monitor.web.history import History
from monitor.web.news import News
from monitor.web.pictures import Pictures


@dataclass(slots=True)
class Feed:
    """What the page remembers of what the stages tell. Every method may be called from any thread.

    Args:
        ask: asks capture for a camera's newest keyframe.
    """

    ask: Callable[[str], None] = field(default=lambda _camera: None)
    history: History = field(default_factory=History)
    news: News = field(default_factory=News)
    pictures: Pictures = field(init=False)

    def __post_init__(self) -> None:
        self.pictures = Pictures(self.ask)

    def keep_only(self, cameras: set[str]) -> None:
        """Forget the cameras that are none of these."""
        self.history.keep_only(cameras)
        self.pictures.keep_only(cameras)
