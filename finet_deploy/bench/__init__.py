"""Measuring: jobs, run records, their order and their statistics. `README.md` here is the protocol.

Nothing is imported here: a worker needs the protocol alone, and imports no more than the runtime it measures.
"""
