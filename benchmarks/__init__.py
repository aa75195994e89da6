"""Each file answers one question: prints a table, writes JSON. Run as `python -m benchmarks.NAME [--json FILE]`."""
