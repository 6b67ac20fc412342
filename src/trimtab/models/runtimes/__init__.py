"""Serving models from native files: no pickle, no mlflow, no pandas."""
