"""The command line: thin over the packages, one module for each command, loaded when it is called."""

from trimtab.cli.main import main

__all__ = ["main"]
