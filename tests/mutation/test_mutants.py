"""The faults themselves: what becomes of a few lines."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mutation.mutants import mutants_of

SOURCE = '''
LIMIT: int = 8
__all__ = ["take"]

def take(data: bytes, *, room=-1) -> int:
    """How much is taken."""
    if not data and room < LIMIT:
        raise ValueError("nothing to take")
    log.info("taking %d", 1)
    self.taken += 1
    return [3, 4]
'''

FAULTS = """
8 -> 9
8 -> 7
-1 -> 1
1 -> 2
1 -> 0
if not data and room < LIMIT -> negated
not data and room < LIMIT -> not data or room < LIMIT
not data -> data
room < LIMIT -> room <= LIMIT
raise ValueError('nothing to take') -> pass
self.taken += 1 -> self.taken -= 1
self.taken += 1 -> pass
1 -> 2
1 -> 0
return [3, 4] -> return None
3 -> 4
3 -> 2
4 -> 5
4 -> 3
"""


def test_each_fault_is_small_and_words_for_people_have_none() -> None:
    found = mutants_of(Path("taking.py"), ast.parse(SOURCE), None)
    assert sorted(" ".join(each.text.split()) for each in found) == sorted(FAULTS.strip().splitlines())


def test_a_fault_is_made_in_its_tree_and_in_no_other_definition() -> None:
    tree = ast.parse(SOURCE)
    [more, less] = mutants_of(Path("taking.py"), tree, {"LIMIT"})
    assert (str(more), str(less)) == ("taking.py:2: 8  ->  9", "taking.py:2: 8  ->  7")
    less.apply()
    assert ast.unparse(tree).startswith("LIMIT: int = 7\n")
