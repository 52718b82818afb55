"""Two sets of runs against each other: what became faster or slower, and how sure that is."""

from __future__ import annotations
