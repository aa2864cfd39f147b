"""The `fedistill` command: `main` is its entry point."""

from fedistill.cli.entry import main

__all__ = ["main"]
