"""The papers' tables again: grids of training runs as data (`grids.json`), run cell by cell, and their tables."""
