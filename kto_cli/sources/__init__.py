"""One module per raw feedback format; all of them give the record types of `records.py`."""
