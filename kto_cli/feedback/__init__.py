"""From the records of a source to the rows of a dataset: labels, findings, shape, split, files."""
