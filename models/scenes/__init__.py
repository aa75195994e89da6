"""The demo's moving scenes: a seed in, pictures of a yard with walking figures and known event times out.

The event is a *scuffle*: two figures standing together begin to jerk around each other for some seconds.
It cannot be told from one picture: two figures that talk take the very same poses, only slowly
(see `models.scenes.script.Sway`). Needs NumPy and OpenCV, no torch.
"""

from models.scenes.scene import BACKGROUND_LABEL, EVENT_LABEL, Scene

__all__ = ["BACKGROUND_LABEL", "EVENT_LABEL", "Scene"]
