"""One small file a command; each is a thin shell around a typed function of the package."""
