"""Samples of all cameras in, scored windows out."""
