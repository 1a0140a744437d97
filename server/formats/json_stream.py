"""Large JSON files, element by element.

Only the arrays of the top-level object are of interest, and only one element is held at a time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from server.formats.folder import open_regular

CHUNK_CHARACTERS = 1 << 16
# One element, or one value that is skipped. The polygons of a single object never need this much,
# and what two million characters of brackets become in memory is fifty times as much.
MAX_ELEMENT_CHARACTERS = 1 << 21
_SPACE = " \t\r\n"


class JsonRefused(ValueError):
    """The file is not the JSON it should be; the message says where and why."""


def top_level_arrays(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) for every element of the top-level arrays that are wanted.

    Numbers with a point or exponent come as `Decimal`, exactly as written.

    Raises:
        JsonRefused: broken JSON, not UTF-8, not an object at the top, or an element out of measure.
        FileRefused: the file is not there any more.
    """
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
        try:
            yield from _Reader(file).arrays(wanted)
        except UnicodeDecodeError as error:
            raise JsonRefused(f"the JSON is not UTF-8 ({error.reason})") from None
        except RecursionError:
            raise JsonRefused("the JSON is nested too deeply") from None


class _Reader:
    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters that were read and dropped
        self._ended = False
        self._decoder = json.JSONDecoder(parse_float=Decimal)

    def arrays(self, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
        self._expect("{")
        if self._peek() == "}":
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._broken("a key is due")
            self._expect(":")
            if self._peek() == "[":
                for element in self._elements():
                    if key in wanted:
                        yield key, element
            else:
                self._value()
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("}")

    def _elements(self) -> Iterator[Any]:
        self._expect("[")
        if self._peek() == "]":
            self._expect("]")
            return
        while True:
            yield self._value()
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("]")

    def _value(self) -> Any:
        """The next value; reads on until all of it is here."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._read_more():
                    raise self._broken(error.msg, error.pos) from None
                continue
            except ValueError as error:  # a whole number of thousands of digits
                raise self._broken(str(error)) from None
            # A number that touches the end may go on in the next chunk.
            if end == len(self._text) and self._read_more():
                continue
            self._at = end
            return value

    def _peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self._broken(f"{character!r} is due")
        self._at += 1

    def _read_more(self) -> bool:
        if self._ended:
            return False
        kept = self._text[self._at :]
        if len(kept) > MAX_ELEMENT_CHARACTERS:
            raise self._broken(f"an element of more than {MAX_ELEMENT_CHARACTERS} characters")
        # As much again as is kept: a long element is tried a few times, not once per chunk.
        chunk = self._file.read(max(CHUNK_CHARACTERS, len(kept)))
        self._ended = not chunk
        self._before += self._at
        self._text, self._at = kept + chunk, 0
        return not self._ended

    def _broken(self, what: str, at: int | None = None) -> JsonRefused:
        place = self._before + (self._at if at is None else at)
        return JsonRefused(f"the JSON is broken at character {place}: {what}")
