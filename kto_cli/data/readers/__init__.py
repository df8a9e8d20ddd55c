"""Files as records: JSONL, JSON, CSV, TSV, Excel, Parquet, compressed or not, as a stream.

any_file.py     the reader of a file, by its name
open_file.py    bytes and text of a file, decompressed
jsonl.py        lines and JSON lines
json_array.py   the items of one JSON array
json_objects.py   JSON objects over several lines, one after the other, or wrapped in an object
json_shape.py   where the rows of a JSON object are, and what else it may be
not_json.py     faults of JSON in words, and what a file without JSON is instead
object_folder.py   a folder of files with one object each
header_row.py   tables whose first row names the columns
csv_file.py     CSV and TSV
excel_file.py   sheets of Excel workbooks
arrow_file.py   Arrow and Feather files
parquet.py      Parquet
"""
