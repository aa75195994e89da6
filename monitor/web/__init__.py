"""What people and probes see over HTTP."""
