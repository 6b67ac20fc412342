"""Metrics, intervals and sequential tests: one definition for gates, monitors and rollouts."""
