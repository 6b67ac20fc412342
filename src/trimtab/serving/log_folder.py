"""Where a gateway keeps its prediction log and what it last knew: a name that costs nothing to look up."""

from __future__ import annotations

FOLDER = "log"
"""Inside the state folder."""
