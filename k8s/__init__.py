"""Kubernetes manifests, and what makes their generated parts."""
