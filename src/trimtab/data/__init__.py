"""Datasets and their versions, the contracts that rows must meet, and the profiles of what rows look like."""
