"""An answer, a patience that runs out, or a quick machine: the first one wins, the others are cancelled."""

from __future__ import annotations

import asyncio

import attrs

import zart_core as zart


@attrs.frozen
class Question:
    text: str
    patience_s: float = 60.0
    machine_s: float = 30.0


@zart.step("ask-machine", cancel_grace="1s")
async def ask_machine(text: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"the machine says {len(text)}"


@zart.workflow("race")
def race(question: Question) -> zart.Flow[str]:
    won = yield from zart.race(
        zart.wait_for_event("answer", str),
        zart.sleep("patience", question.patience_s),
        ask_machine(question.text, question.machine_s),
    )
    match won:
        case (0, answer):
            return f"somebody says {answer}"
        case (1, _):
            return "nobody knows"
        case (2, answer):
            return answer


def main() -> None:
    with zart.open("memory:", [race]) as engine:
        answered = engine.start(race, Question("why?"))
        answered.send("answer", "because")
        questions = [Question("when?", patience_s=0.2), Question("how?", machine_s=0.2)]
        for handle in (answered, *(engine.start(race, question) for question in questions)):
            print(handle.result())


if __name__ == "__main__":
    main()
