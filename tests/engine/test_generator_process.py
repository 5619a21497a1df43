"""The server's side of the generator process, where its timing cannot be provoked from outside."""

import asyncio

from pipeline.engine.embedded.generator_process import Generation, GeneratorProcess


def test_an_answer_to_a_client_that_has_just_left_is_dropped() -> None:
    async def answers() -> None:
        process = GeneratorProcess()
        for number, answer in enumerate(({"prompt_tokens": 3}, {"refused": "too long"})):
            generation = process._running[number] = Generation()
            generation.prompt_tokens.cancel()  # what a disconnect does before its handler gets to run
            process._hand_out({"id": number, **answer})
            assert generation.prompt_tokens.cancelled()

    asyncio.run(answers())
