"""Grafana dashboards as code, and the Prometheus rules beside them. `python -m dashboards.build` writes the JSON."""
