"""The example, and the replay of two years of bike rentals through a real loop."""
