"""The commands of the command line, one module each: flags and help -> config -> workflow -> result."""
