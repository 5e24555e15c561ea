"""A file of numbers: what it may hold, and how its mistakes are told."""

from __future__ import annotations

import pytest

from agentao_trio.campaign import CampaignRow, read_numbers
from agentao_trio.errors import AgentaoError, NumbersError

A, B = "+15550100001", "+15550100017"


def problems(data: bytes) -> list[tuple[int, str]]:
    with pytest.raises(NumbersError) as caught:
        read_numbers(data)
    return list(caught.value.problems)


def test_the_layout() -> None:
    data = (
        "to,call_from,trunk_id,name,note\r\n"
        f'{A}, +15550109999 ,berlin,Ada,"likes tea, and\ncake"\r\n'
        "\r\n"
        f"sip:bob@example.com,,,Böb\r\n"
        f"{B}\r\n"
    )
    first, second, third = read_numbers(data.encode("utf-8-sig"))
    assert first == CampaignRow(
        to=A,
        call_from="+15550109999",
        trunk_id="berlin",
        data={"name": "Ada", "note": "likes tea, and\ncake"},
        line=2,
    )
    assert second == CampaignRow(to="sip:bob@example.com", data={"name": "Böb", "note": ""}, line=5)
    assert third == CampaignRow(to=B, data={"name": "", "note": ""}, line=6)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_columns_in_any_order_and_lines_ended_as_they_like(newline: str) -> None:
    rows = read_numbers(newline.join(["", "name,to", f"Ada,{A}", f"Bob,{B}"]).encode())
    assert [(row.line, row.to, row.data["name"]) for row in rows] == [(3, A, "Ada"), (4, B, "Bob")]


@pytest.mark.parametrize(
    ("data", "line", "complaint"),
    [
        (b"", 1, "the file is empty; expected a line that names the columns, 'to' among them"),
        (b"\xef\xbb\xbf\r\n \r\n", 1, "the file is empty"),
        (b"\nto,name\n\n", 2, "no numbers follow the line that names the columns"),
        (b"number,name\n", 1, "no column is called 'to'; found 'number', 'name'"),
        (b"To\n", 1, "no column is called 'to'; found 'To'"),
        (b"+15550100001\n", 1, "The first line has to name the columns"),
        (b"to;name\n", 1, "Cells are separated by commas"),
        (b"to,name,\n+15550100001\n", 1, "column 3 has no name"),
        (b"to,a,a\n+15550100001\n", 1, "2 columns are called 'a'"),
        (b"to,to\n+15550100001\n", 1, "2 columns are called 'to'"),
        (b"to\n+15550100001\n5550100001\n", 3, "'5550100001' is not a destination; expected an E.164 number"),
        (b"to\n+1 555 010 0001\n", 2, "is not a destination"),
        (b"to\n+1.5E+10\n", 2, "is not a destination"),
        (b"to\n+1234567890123456\n", 2, "is not a destination"),
        (b"name,to\nAda\n", 2, "the cell 'to' is empty"),
        (b"to,name\n+15550100001,Ada,Lovelace\n", 2, "3 cells, but the header names 2 columns"),
        (b"to\n+15550100001\n+15550100002\n+15550100001\n", 4, "+15550100001 is in line 2 already"),
        (b"to,name\n+15550100001,Ada\n+15550100002,J\xf6rg\n", 3, "byte 0xf6 is not UTF-8"),
        (b"\xff\xfet\x00o\x00\n\x00", 1, "byte 0xff is not UTF-8; save the file as 'CSV UTF-8'"),
        (b"to,name\n+15550100001," + b"x" * 65_600, 2, "the line has 65613 characters; at most 65536 are read"),
        (b'to,name\n+15550100001,"Ada\n+15550100002,Bob\n', 2, "not CSV: a quoted cell is not closed"),
        (b'to,name\n+15550100001,"Ada"Bob\n', 2, "not CSV: "),
        (b'to,name\n+15550100001,"' + b"x\n" * 70_000 + b'"', 2, "not CSV: field larger than field limit"),
        (b"to\n+1555\x000100001\n", 2, "is not a destination"),
    ],
)
def test_a_mistake_is_named_with_its_line(data: bytes, line: int, complaint: str) -> None:
    [(found, text)] = problems(data)
    assert (found, complaint in text) == (line, True), text


def test_all_mistakes_are_told_and_the_first_ones_in_the_message() -> None:
    data = b"to,name\n" + b"".join(b"%d,x\n" % number for number in range(30)) + b"\xff\n"
    assert problems(data) == [(32, "byte 0xff is not UTF-8; save the file as 'CSV UTF-8'")]
    with pytest.raises(NumbersError) as caught:
        read_numbers(data[:-2])
    assert [line for line, _ in caught.value.problems] == list(range(2, 32))
    first, *_, tenth, more = str(caught.value).splitlines()
    assert first.startswith("line 2: '0' is not a destination")
    assert tenth.startswith("line 11: ")
    assert more == "and 20 more"
    assert isinstance(caught.value, AgentaoError)


def test_a_number_that_comes_twice() -> None:
    data = f"to,name\n{A},Ada\n{B},Bob\n{A},Cy\n".encode()
    assert problems(data) == [(4, f"{A} is in line 2 already")]
    assert [row.duplicate_of for row in read_numbers(data, duplicates="skip")] == [0, 0, 2]
    assert [row.duplicate_of for row in read_numbers(data, duplicates="call")] == [0, 0, 0]
    with pytest.raises(ValueError, match="expected 'refuse', 'skip' or 'call'"):
        read_numbers(data, duplicates="ignore")  # type: ignore[arg-type]


def test_a_row_cannot_be_changed_through_the_mapping_it_was_made_with() -> None:
    data = {"name": "Ada"}
    row = CampaignRow(to=A, data=data)
    data["name"] = "Bob"
    assert row.data["name"] == "Ada"
    with pytest.raises(TypeError):
        row.data["name"] = "Bob"  # type: ignore[index]
