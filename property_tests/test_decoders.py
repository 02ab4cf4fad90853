"""Every decoder on bytes that were arbitrary, or valid and then changed: a value or its documented error, nothing else.

Bytes come from seeds, which are cheap: the laws of values and events under Hypothesis stand in test_codec_laws.py.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from decoders import CODEC, DECODERS, EVENTS, RECORDS, Tree
from seeds import fresh, keeping, kept
from tally import tally

import zart_core as zart
from zart_core.log import Turn
from zart_stores.file import bodies

EXAMPLES = 2_000_000 if os.environ.get("ZART_DEEP") else 24_000
JUNK = [b"", b"null", b"{}", b"[]", b"\xff", b"1e999", b'"\\ud800"', b"[[", b'{"":', b"-", b"NaN", b'{"$":']


def mutated(lots: random.Random, data: bytes) -> bytes:
    """Valid bytes with a few changes, or arbitrary ones."""
    if lots.random() < 0.1:
        return lots.randbytes(lots.randrange(40))
    for _ in range(lots.choice([1, 1, 2, 3])):
        at = lots.randrange(len(data) + 1)
        to = min(len(data), at + lots.randrange(8))
        match lots.randrange(4):
            case 0:
                data = data[:at] + data[to:]
            case 1:
                data = data[:at] + lots.choice(JUNK) + data[to:]
            case 2:
                data = data[:at] + data[at:to] * lots.choice([2, 50]) + data[to:]
            case _:
                data = data[:at] + lots.randbytes(1) + data[at + 1 :]
    return data


def test_hostile_bytes_give_a_value_or_the_documented_error():
    """F21, F22: no other exception, whatever the bytes; each decoder sees its share, and both ways out."""
    seeds = fresh("decoders", EXAMPLES // len(DECODERS) + 1)
    counts: Counter[tuple[str, bool]] = Counter()
    for seed in [*kept("decoders"), *seeds]:
        lots = random.Random(seed)
        for name, (decode, valid, errors) in DECODERS.items():
            data = mutated(lots, lots.choice(valid))
            with keeping("decoders", seed):
                try:
                    decode(data)
                    counts[name, True] += 1
                except errors:
                    counts[name, False] += 1
    assert counts.total() >= EXAMPLES
    assert min(counts[name, gone_well] for name in DECODERS for gone_well in (True, False)) > 0, counts
    tally("decoders", seeds=seeds, examples=counts.total())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_deep_json_is_refused(name, deep):
    """F22: 100,000 levels are an error like any other, and no crash of the process."""
    decode, _, errors = DECODERS[name]
    with pytest.raises(errors):
        decode(deep)


def lines_run(action: Callable[[], Any]) -> int:
    """How many lines of Python it takes."""
    count = 0

    def trace(_: FrameType, event: str, __: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def wide(size: int) -> dict[str, Callable[[], Any]]:
    """Something to decode for each decoder, of a size."""
    tree = CODEC.encode(Tree("a", [Tree(str(n), more={"x": n}) for n in range(size)]), Tree)
    tagged = CODEC.encode({n: {str(n)} for n in range(size)}, Any)
    body = bodies.encode(Turn("a", 0, 0, 0, RECORDS * size, 2.0, zart.Status.WAITING))
    records = CODEC.encode_events(EVENTS * size, "an-id", 0, 0)
    return {
        "value by type": lambda: CODEC.decode(tree, Tree),
        "tagged value": lambda: CODEC.decode(tagged, Any),
        "arguments": lambda: CODEC.decode_args(b"[" + tree + b"]", (Tree,)),
        "body": lambda: bodies.decode(body),
        "events": lambda: CODEC.decode_events(records, "an-id", 0, 0),
    }


@pytest.mark.parametrize("what", wide(1))
def test_work_is_linear_in_the_size(what):
    """Four times as much takes at most four times the lines, and a little for what is done once."""
    wide(2)[what]()  # what is compiled once is compiled now
    small, large = (lines_run(wide(size)[what]) for size in (100, 400))

    assert large <= 4.2 * small + 50
