"""The demo: simulated RTSP cameras, the monitor on them, its page and its alerts as they come."""
