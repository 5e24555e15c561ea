"""Tasks that share a reader, against a naive model: a queue of those who wait, and a queue of what nobody has taken."""

from __future__ import annotations

from collections import deque
from typing import Literal, TypeAlias

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from agentao_trio.broadcast import Broadcast

Step: TypeAlias = tuple[Literal["wait", "cancel", "publish"], int]

BOUND = 3
TASKS = 3
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["wait", "cancel"]), st.integers(0, TASKS - 1)),
        st.tuples(st.just("publish"), st.integers(0, 1000)),
    ),
    min_size=6,
    max_size=30,
)


@settings(max_examples=300)
@given(steps=STEPS, ends=st.booleans())
def test_who_has_waited_longest_is_served_first(steps: list[Step], ends: bool) -> None:
    async def main() -> None:
        news: Broadcast[int] = Broadcast()
        reader = news.subscribe(BOUND)
        got: list[list[int | None]] = [[] for _ in range(TASKS)]
        scopes: dict[int, trio.CancelScope] = {}
        # The model: who waits, and what waits.
        waiting: deque[int] = deque()
        left: deque[int] = deque(maxlen=BOUND)
        expected: list[list[int | None]] = [[] for _ in range(TASKS)]

        async def read(task: int) -> None:
            with trio.CancelScope() as scopes[task]:
                got[task].append(await anext(reader, None))

        async with trio.open_nursery() as nursery:
            for step, number in steps:
                if step != "publish":  # what is published in a row, and the end, come before anybody has woken
                    await trio.testing.wait_all_tasks_blocked()
                    assert got == expected
                if step == "wait" and number not in waiting:
                    nursery.start_soon(read, number)
                    if left:
                        expected[number].append(left.popleft())
                    else:
                        waiting.append(number)
                elif step == "cancel" and number in waiting:
                    scopes[number].cancel()
                    waiting.remove(number)
                elif step == "publish":
                    news.publish(number)
                    if waiting:
                        expected[waiting.popleft()].append(number)
                    else:
                        left.append(number)
                if step != "publish":
                    await trio.testing.wait_all_tasks_blocked()
                    assert got == expected
            if ends:
                news.end()
            else:
                reader.close()
            for task in waiting:
                expected[task].append(None)
        assert got == expected

    trio.run(main)
