"""Turning estimators into files that are served without their own code, and checking that nothing changed."""
