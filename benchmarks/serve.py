"""`demur serve` in front of a real vLLM: its answers against demur's own, and what it costs.

    VLLM_CPU_KVCACHE_SPACE=1 build/engines/vllm/bin/vllm serve MODEL --enable-prompt-embeds \\
        --chat-template-content-format string --dtype float32 --enforce-eager --max-model-len 2048
    python benchmarks/serve.py RUN [--endpoint URL] [--model NAME] [--queries 20]

The same requests go to vLLM directly, with the rows in them, and through `demur serve`, in turn:
one at a time for the seconds to the first token, and 64 at once for the tokens a second. A machine
that does other work as well disturbs seconds but hardly the time on its processors, so that is kept
too, for a server on this machine. With `--model`, greedy answers of 20 tokens are compared with
those of demur in this process, in float32. MODEL is the folder of the unchanged model; a GGUF file
that demur has loaded in float32 lies unpacked in the folder `dequantized` of its cache.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import httpx2

from common import run, stop, write_results
from demur.chat import ChatModel
from demur.endpoint.address import Address
from demur.endpoint.key import Key
from demur.exports.base import Subject
from demur.queries import load_query_set
from demur.records import text_of
from demur.serving import Manner, ServedPrompt, ServeSettings, opened_request, served_prompts
from demur.serving.server import prepared
from engines import TOKENS, in_process

AT_ONCE, LENGTH, ROUNDS = 64, 16, 3
GREEDY = {"temperature": 0, "top_k": 1, "repetition_penalty": 1.0, "seed": 0}


class Asker:
    """Asks for chat completions, directly or through demur.

    Args:
        url: base URL.
        prompt: prompt whose rows are in direct requests.
        opens: how direct requests are opened, and the model's name; None through demur.
    """

    def __init__(self, url: str, prompt: ServedPrompt, opens: tuple[str, Manner] | None) -> None:
        self._prompt, self._opens = prompt, opens
        limits = httpx2.Limits(max_connections=AT_ONCE)
        self.client = httpx2.AsyncClient(
            base_url=url, timeout=600, trust_env=False, limits=limits, headers={"User-Agent": "x"}
        )

    def _content(self, query: str, options: dict[str, Any]) -> bytes:
        body = {"messages": [{"role": "user", "content": query}], **GREEDY, **options}
        if self._opens is None:
            return json.dumps(body).encode()
        model, manner = self._opens
        return opened_request(body, self._prompt.data, manner, model)

    async def text(self, query: str) -> str:
        """A greedy answer."""
        content = self._content(query, {"max_tokens": TOKENS})
        reply = await self.client.post("/chat/completions", content=content, headers=JSON)
        reply.raise_for_status()
        return str(reply.json()["choices"][0]["message"]["content"])

    async def seconds(self, query: str, tokens: int) -> float:
        """Seconds until the first event of a streamed answer; for more tokens, until its end."""
        options = {"max_tokens": tokens, "ignore_eos": True, "stream": True}
        content = self._content(query, options)
        begun = time.perf_counter()
        asked = self.client.stream("POST", "/chat/completions", content=content, headers=JSON)
        async with asked as reply:
            reply.raise_for_status()
            async for _ in reply.aiter_raw():
                if tokens == 1:
                    return time.perf_counter() - begun
        return time.perf_counter() - begun


JSON = {"Content-Type": "application/json"}
psutil: Any = importlib.import_module("psutil")


async def rate(asker: Asker, queries: list[str]) -> float:
    """Tokens a second with many requests at once."""
    begun = time.perf_counter()
    asked = [asker.seconds(queries[row % len(queries)], LENGTH) for row in range(AT_ONCE)]
    await asyncio.gather(*asked)
    return AT_ONCE * LENGTH / (time.perf_counter() - begun)


class Busy:
    """Seconds for which processes and their children have kept processors busy.

    Args:
        processes: the processes by what they are.
    """

    def __init__(self, processes: dict[str, Any]) -> None:
        self._processes = processes
        self.spent = dict.fromkeys(processes, 0.0)

    def seconds(self) -> dict[str, float]:
        """What each has used since it began."""
        return {
            name: sum(
                sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True))
            )
            for name, process in self._processes.items()
        }

    def add_since(self, before: dict[str, float]) -> None:
        """Add what was used since."""
        for name, seconds in self.seconds().items():
            self.spent[name] += seconds - before[name]


def server_at(url: str) -> Any:
    """The process that listens at the port of an address; None where it is not on this machine."""
    port = httpx2.URL(url).port
    for one in psutil.net_connections(kind="tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid is not None:
            return psutil.Process(one.pid)
    return None


async def measured(
    direct: Asker, through: Asker, queries: list[str], turns: int, busy: Busy
) -> dict[str, Any]:
    """Seconds to the first token and tokens a second, both ways."""
    first: dict[str, list[float]] = {"direct": [], "through": []}
    ways = {"direct": direct, "through": through}
    for row, query in enumerate([queries[0], queries[0], *queries * ROUNDS]):
        for name in sorted(ways, reverse=row % 2 == 1):
            seconds = await ways[name].seconds(query, 1)
            if row > 1:  # the first ones warm up
                first[name].append(seconds)
    print({name: round(median(one), 3) for name, one in first.items()}, flush=True)
    rates: dict[str, list[float]] = {"direct": [], "through": []}
    for row in range(turns):
        for name in sorted(ways, reverse=row % 2 == 1):
            before = busy.seconds()
            rates[name].append(await rate(ways[name], queries))
            if name == "through":
                busy.add_since(before)
            print(name, round(rates[name][-1], 1), "tokens a second", flush=True)
    added = [b - a for a, b in zip(first["direct"], first["through"], strict=True)]
    ratios = [b / a for a, b in zip(rates["direct"], rates["through"], strict=True)]
    tokens = AT_ONCE * LENGTH * turns
    return {
        "first token, ms": {name: round(median(one) * 1000, 1) for name, one in first.items()},
        "added to the first token, ms": round(median(added) * 1000, 1),
        f"tokens a second, {AT_ONCE} at once": {
            name: [round(one, 1) for one in found] for name, found in rates.items()
        },
        "ratio of tokens a second, median": round(median(ratios), 3),
        "ms of a processor a token": {
            name: round(seconds / tokens * 1000, 3) for name, seconds in busy.spent.items()
        },
    }


def main() -> None:
    """Measure, print and keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--endpoint", default="http://localhost:8000/v1")
    parser.add_argument("--model")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument(
        "--rates", type=int, default=8, help="turns of 64 requests at once, each way"
    )
    given = parser.parse_args()
    prompts = served_prompts([given.run])
    (prompt,) = prompts.values()
    settings = ServeSettings(Address(given.endpoint), Key(""), Key(""))
    opens = asyncio.run(prepared(prompts, settings))
    half = given.queries // 2
    queries = [
        text_of(one)
        for label in ("harmful", "harmless")
        for one in load_query_set("held-out", label).head(half)
    ]
    command = ["-m", "demur", "serve", given.run, "--endpoint", given.endpoint, "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        lines = (line.strip() for line in process.stdout)
        url = next((line for line in lines if line.startswith("http://127.0.0.1:")), None)
        if url is None:
            stop("demur serve ended.")
        server, watched = server_at(given.endpoint), {"demur serve": psutil.Process(process.pid)}
        if server is not None:
            watched["server behind"] = server
        direct, through = Asker(given.endpoint, prompt, opens), Asker(str(url), prompt, None)

        async def all_of_it() -> dict[str, Any]:
            texts = [await through.text(query) for query in queries]
            spent = Busy(watched)
            return {"texts": texts, **await measured(direct, through, queries, given.rates, spent)}

        found = asyncio.run(all_of_it())
    finally:
        process.terminate()
        process.wait(60)
    texts = found.pop("texts")
    if given.model is not None:
        model = ChatModel.load(given.model, dtype="float32")
        wanted = in_process(model, Subject.of(given.run).prompt, queries)
        tokenize = model.engine.tokenizer
        got = [tokenize(one, add_special_tokens=False)["input_ids"] for one in texts]
        same = sum(ours == theirs for ours, theirs in zip(wanted, got, strict=True))
        found[f"{TOKENS} greedy tokens equal"] = f"{same} of {len(queries)}"
    found = {"model": opens[0], "rows": prompt.rows, **found}
    print(json.dumps(found, indent=2))
    write_results("serve", found)


if __name__ == "__main__":
    run(main)
