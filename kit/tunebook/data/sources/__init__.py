"""Where rows come from: a file, a folder, a hub id or an object that yields dicts becomes a sequence of rows.

`read_rows` opens a source and checks it, `stream_rows` reads one while a run goes on, `hold_out` splits one. Another
kind of file is a file here and an entry in READERS (`paths.py`). A row is a plain dict, one per training example; what
its columns mean is the business of `formats/`, and none is renamed, dropped or filled in here.
"""

from .identity import content_of
from .places import Broken, Place, broken_lines, by_reason, named, row_number, told
from .read import read_rows
from .rows import Row, Rows, Source, place_of, reach_of
from .split import held_out_places, hold_out, rows_at
from .streams import RowStream, stream_rows

__all__ = [
    "Broken",
    "Place",
    "Row",
    "RowStream",
    "Rows",
    "Source",
    "broken_lines",
    "by_reason",
    "content_of",
    "held_out_places",
    "hold_out",
    "named",
    "place_of",
    "reach_of",
    "read_rows",
    "row_number",
    "rows_at",
    "stream_rows",
    "told",
]
