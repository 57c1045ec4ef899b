"""The command line: `mexit`. Commands import rooms when they run, so that `mexit --help` starts at once."""

from mexit_edge.cli.app import main

__all__ = ["main"]
