"""The file of numbers that a campaign calls: CSV, with every mistake named and its line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from agentao_trio.dialplan import check_destination
from agentao_trio.errors import LocalProtocolError, NumbersError

__all__ = ["CampaignRow", "read_numbers"]

#: Characters in one line of the file.
MAX_LINE = 65_536


def _frozen(data: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(data))


@attrs.frozen(kw_only=True)
class CampaignRow:
    """One number to call, and what the agent is to know about it."""

    #: A number in E.164 form or a SIP URI.
    to: str
    #: The number that the called party sees, and the trunk; empty for the campaign's own.
    call_from: str = ""
    trunk_id: str = ""
    #: The cells of all further columns, by the name of the column.
    data: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen)
    #: Where the row begins in its file; 0 for a row that comes from elsewhere.
    line: int = 0
    #: The line that has the same number already, where that means that this one is not called; 0 otherwise.
    duplicate_of: int = 0


def read_numbers(data: bytes, *, duplicates: Literal["refuse", "skip", "call"] = "refuse") -> tuple[CampaignRow, ...]:
    """The rows of a file of numbers: CSV in UTF-8 whose first line names the columns.

    ``to`` is required: a number in E.164 form or a SIP URI. ``call_from`` and ``trunk_id`` replace the campaign's own
    where they are not empty. Every other column is kept as :attr:`CampaignRow.data`. Spaces around cells and empty
    lines are ignored; cells at the end of a line may be missing.

    A number that comes twice is refused; with ``duplicates="skip"`` only the first is called and the others get the
    outcome DUPLICATE, with ``"call"`` each is called. Raises :class:`NumbersError`, which names every mistake and its
    line, and :class:`ValueError` for another policy.
    """
    if duplicates not in ("refuse", "skip", "call"):
        raise ValueError(f"duplicates is {duplicates!r}; expected 'refuse', 'skip' or 'call'")
    reader = _Reader(duplicates)
    try:
        for line, cells in _records(_text(data)):
            reader.record(line, cells)
    except _Unreadable as stop:
        reader.problems.append((stop.line, str(stop)))
    else:
        reader.end()
    if reader.problems:
        raise NumbersError(reader.problems)
    return tuple(reader.rows)


class _Unreadable(Exception):  # noqa: N818 - what it says is a problem of the file, told by NumbersError
    """Nothing beyond this line can be made sense of."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def _text(data: bytes) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as 'CSV UTF-8'") from None


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not empty, each with the line in which it begins."""

    def lines() -> Iterator[str]:
        for number, line in enumerate(io.StringIO(text, newline=""), 1):
            if len(line) > MAX_LINE:
                raise _Unreadable(number, f"the line has {len(line)} characters; at most {MAX_LINE} are read")
            yield line

    begins = 1
    reader = csv.reader(lines(), strict=True, skipinitialspace=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            what = "a quoted cell is not closed" if "unexpected end" in str(error) else str(error)
            raise _Unreadable(begins, f"not CSV: {what}") from None
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield begins, cells
        begins = reader.line_num + 1


class _Reader:
    """Makes rows of records, and notes what is wrong with them."""

    def __init__(self, duplicates: str) -> None:
        self.rows: list[CampaignRow] = []
        self.problems: list[tuple[int, str]] = []
        self._duplicates = duplicates
        self._columns: list[str] | None = None
        self._first_line: dict[str, int] = {}
        self._header_line = 1

    def record(self, line: int, cells: list[str]) -> None:
        if self._columns is None:
            self._header(line, cells)
            return
        if len(cells) > len(self._columns):
            self._wrong(line, f"{len(cells)} cells, but the header names {len(self._columns)} columns")
            return
        row = dict(zip(self._columns, cells + [""] * (len(self._columns) - len(cells)), strict=True))
        to = row.pop("to")
        try:
            check_destination(to)
        except LocalProtocolError as error:
            self._wrong(line, str(error) if to else "the cell 'to' is empty")
            return
        first = self._first_line.setdefault(to, line)
        if first != line and self._duplicates == "refuse":
            self._wrong(line, f"{to} is in line {first} already")
            return
        self.rows.append(
            CampaignRow(
                to=to,
                call_from=row.pop("call_from", ""),
                trunk_id=row.pop("trunk_id", ""),
                data=row,
                line=line,
                duplicate_of=first if first != line and self._duplicates == "skip" else 0,
            )
        )

    def end(self) -> None:
        """The file is over."""
        if self._columns is None:
            self._wrong(1, "the file is empty; expected a line that names the columns, 'to' among them")
        elif not self.rows and not self.problems:
            self._wrong(self._header_line, "no numbers follow the line that names the columns")

    def _header(self, line: int, cells: list[str]) -> None:
        if "to" not in cells:
            raise _Unreadable(line, _why_no_header(cells))
        mistakes = [f"column {index} has no name" for index, name in enumerate(cells, 1) if not name]
        mistakes += [
            f"{count} columns are called {name!r}" for name, count in Counter(cells).items() if name and count > 1
        ]
        if mistakes:
            raise _Unreadable(line, ", ".join(mistakes))
        self._columns = cells
        self._header_line = line

    def _wrong(self, line: int, what: str) -> None:
        self.problems.append((line, what))


def _why_no_header(cells: list[str]) -> str:
    found = ", ".join(repr(cell[:40]) for cell in cells[:10])
    message = f"no column is called 'to'; found {found}"
    if cells[0].startswith(("+", "sip:", "sips:")):
        return f"{message}. The first line has to name the columns"
    if len(cells) == 1 and any(separator in cells[0] for separator in ";\t"):
        return f"{message}. Cells are separated by commas"
    return message
