"""Check the structure of a .tflite before anything unpacks it.

Python's flatbuffer reader follows every offset and every length that a file states. A hostile file of a few
kilobytes can state vectors that overlap, tables in them that hold such vectors again, and so on, so that the
reader runs for hours. What is checked here bounds the reader's work by the size of the file.
"""

from __future__ import annotations

import struct

from ai_edge_litert import schema_py_generated as schema

from mexit_edge.errors import InputError

IDENTIFIER = b"TFL3"
MAX_MODEL_BYTES = 256 << 20
# A network of a thousand operators has some ten thousand tables.
MAX_TABLES = 100_000

STRING = 1
_Fields = dict[int, "int | tuple[_Fields] | _Fields"]
# Slot of a field -> bytes per element of a vector or string, (fields,) of a vector of tables, or fields of
# one table. Numbers stand in the table itself. Options of an operator are left to the reader: they hold no
# vectors of tables.
_TENSOR_MAP: _Fields = {0: STRING}
_QUANTIZATION: _Fields = {0: 4, 1: 4, 2: 4, 3: 8}
_TENSOR: _Fields = {0: 4, 3: STRING, 4: _QUANTIZATION, 6: {0: 4, 1: 4, 2: ({},)}, 7: 4, 9: ({0: 4},)}
_OPERATOR: _Fields = {1: 4, 2: 4, 4: {}, 5: 1, 7: 1, 8: 4, 12: {}}
_SUBGRAPH: _Fields = {0: (_TENSOR,), 1: 4, 2: 4, 3: (_OPERATOR,), 4: STRING}
_MODEL: _Fields = {
    1: ({1: STRING},),
    2: (_SUBGRAPH,),
    3: STRING,
    4: ({0: 1},),
    5: 4,
    6: ({0: STRING},),
    7: ({0: (_TENSOR_MAP,), 1: (_TENSOR_MAP,), 2: STRING},),
    8: ({0: STRING},),
    9: ({4: STRING},),
}
# Their options hold strings, which the reader copies.
_WITH_STRINGS = {schema.BuiltinOptions.VarHandleOptions}


def verify(content: bytes) -> None:
    """Refuse bytes that a flatbuffer reader would run away with.

    Args:
        content: what should be a .tflite.

    Raises:
        InputError: the bytes have no mark of a .tflite, are more than 256 MiB, or state an offset or a length
            that leaves the file, or so many tables and vectors that they cannot all be there.
    """
    if content[4:8] != IDENTIFIER:
        raise InputError(f"a model must be a .tflite file. Received: {len(content)} bytes without its mark.")
    if len(content) > MAX_MODEL_BYTES:
        raise InputError(f"a model must be at most {MAX_MODEL_BYTES} bytes. Received: {len(content)} bytes.")
    walk = _Walk(content)
    try:
        walk.table(walk.number("<I", 0), _MODEL)
    except struct.error as error:
        raise damaged(f"{error}") from error


def damaged(what: str) -> InputError:
    """Return the error for bytes that look like a .tflite and are none."""
    return InputError(
        f"a model must be a whole .tflite file. Received: a damaged one ({what}). Copy or convert it again."
    )


class _Walk:
    """Follows offsets, and counts."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.tables_left = MAX_TABLES
        # An honest file holds every vector once; twice its size leaves room for some that are shared.
        self.bytes_left = 2 * len(content)

    def number(self, kind: str, place: int) -> int:
        """Read one number; a negative place would count from the end."""
        if place < 0:
            raise damaged("an offset before its beginning")
        return int(struct.unpack_from(kind, self.content, place)[0])

    def table(self, place: int, fields: _Fields) -> None:
        """Walk one table and what it points to."""
        self.tables_left -= 1
        if self.tables_left < 0:
            raise damaged(f"more than {MAX_TABLES} tables")
        vtable = place - self.number("<i", place)
        vtable_end = self.number("<H", vtable)
        for slot, kind in fields.items():
            entry = 4 + 2 * slot
            if entry >= vtable_end:
                continue
            offset = self.number("<H", vtable + entry)
            if not offset:
                continue
            start = place + offset + self.number("<I", place + offset)
            if isinstance(kind, dict):
                self.table(start, kind)
                continue
            n = self.number("<I", start)
            size = kind if isinstance(kind, int) else 4
            self.bytes_left -= n * size
            if start + 4 + n * size > len(self.content) or self.bytes_left < 0:
                raise damaged(f"a vector of {n} elements")
            if isinstance(kind, tuple):
                for item in range(start + 4, start + 4 + 4 * n, 4):
                    self.table(item + self.number("<I", item), kind[0])
        if fields is _OPERATOR:
            self._refuse_strings(place, vtable, vtable_end)

    def _refuse_strings(self, place: int, vtable: int, vtable_end: int) -> None:
        """Refuse the two kinds of operators whose options are copied, not viewed."""
        for slot, refused in ((3, _WITH_STRINGS), (11, None)):
            offset = self.number("<H", vtable + 4 + 2 * slot) if 4 + 2 * slot < vtable_end else 0
            kind = self.number("<B", place + offset) if offset else 0
            if kind and (refused is None or kind in refused):
                raise InputError(
                    "a model must consist of TFLite's own operators without variables. Received: "
                    f"{'StableHLO' if refused is None else 'VAR_HANDLE'}. Convert the network without them."
                )
