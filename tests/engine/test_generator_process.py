"""The server's side of the generator process, where its timing cannot be provoked from outside."""

import asyncio

from pipeline.engine.embedded.generator_process import Generation, GeneratorProcess


def test_an_answer_to_a_client_that_has_just_left_is_dropped() -> None:
    async def hand_out() -> None:
        process = GeneratorProcess()
        answers: tuple[dict[str, object], ...] = ({"prompt_tokens": 3}, {"refused": "too long"})
        for number, answer in enumerate(answers):
            generation = process._running[number] = Generation()
            generation.prompt_tokens.cancel()  # what a disconnect does before its handler gets to run
            process._hand_out({"id": number, **answer})
            assert generation.prompt_tokens.cancelled()

    asyncio.run(hand_out())
