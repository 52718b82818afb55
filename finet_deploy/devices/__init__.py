"""Where bundles run: this machine, and later phones. `base.Device` is what a device is to a benchmark."""
