"""Searching for the cheapest way to run a network on a device: runtime, precision, passes, threads and cores.

    candidates = space (what may be tried) -> build (exported bundles) -> halving (which are measured how often)

Measuring is `bench`'s and exporting is `export`'s: nothing here has a loop of its own for either. `halving`, `pareto`
and `space` are pure; `search` puts the parts together.
"""
