"""What makes parts of the documentation; see `make.py`."""
