"""What becomes of a training step's answer: packaging, runtimes, the registry and its gates."""
