"""Experiments, runs, and what is logged to them: params, metrics, tags, artifacts."""
