"""A dependency that steps reach by name: no argument, nothing in the log, no second call after a crash."""

from __future__ import annotations

import tempfile
from typing import Protocol

import zart_core as zart


class Model(Protocol):
    """What the host hands in; the workflow does not know which one."""

    def embed(self, text: str) -> list[float]: ...


class SmallModel:
    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.calls = 0

    def embed(self, text: str) -> list[float]:
        self.calls += 1
        return [float(ord(letter)) for letter in text]


@zart.step("embed-query")
def embed_query(text: str) -> list[float]:
    model: Model = zart.resource("model")
    return model.embed(text)


@zart.step("nearest")
def nearest(vector: list[float]) -> str:
    return f"document {int(sum(vector)) % 7}"


@zart.workflow("injected-dependency")
def injected_dependency(query: str) -> zart.Flow[str]:
    vector = yield from embed_query(query)
    return (yield from nearest(vector))


def main() -> None:
    model = SmallModel(secret="sk-42")
    with (
        tempfile.TemporaryDirectory() as place,
        zart.open(f"sqlite:{place}/log.db", [injected_dependency], resources={"model": model}) as engine,
    ):
        handle = engine.start(injected_dependency, "durable execution")
        print(handle.result(), f"after {model.calls} call of the model")
        print(
            "in the log:",
            "the secret!" if model.secret in repr(handle.history()) else "no trace of the model",
        )


if __name__ == "__main__":
    main()
