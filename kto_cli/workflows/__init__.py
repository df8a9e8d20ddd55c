"""One module per command: takes a config and a screen, does the work, returns a result."""
