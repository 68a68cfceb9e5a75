"""Runs as Ray jobs: what is submitted, the cluster that takes it, and how it is followed."""
