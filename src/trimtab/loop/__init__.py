"""Loops: the declaration, and the controller that keeps a model on it."""
