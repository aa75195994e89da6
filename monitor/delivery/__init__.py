"""Alerts in; committed to the outbox, and from there to Kafka, out."""
