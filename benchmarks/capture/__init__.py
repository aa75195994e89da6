"""What reading a camera costs, against what else a user would take: `python -m benchmarks.capture`."""
