"""Scores in, events and the alerts that tell of them out. Pure: no clock, thread, I/O, log or metric."""
