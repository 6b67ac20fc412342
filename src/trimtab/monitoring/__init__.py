"""Watching what was asked and answered: outcomes, live profiles, drift, monitors, alerts."""
