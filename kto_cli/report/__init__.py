"""report.html: what a checkpoint's results look like to a person, made from its files alone."""
