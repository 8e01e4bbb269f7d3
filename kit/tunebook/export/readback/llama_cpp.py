"""What llama.cpp makes of a .gguf: how probable it finds tokens, how it cuts texts into them, how it writes chats.

This is the independent reader our exports are checked against: llama.cpp itself (the `xllamacpp` package, an optional
dependency), on the CPU. It runs in a process of its own, this file as a script: llama.cpp ends the process when a file
surprises it, and in xllamacpp 2026.10 taking a server down hangs now and then on a busy machine.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# -P: the files beside this one are not to be imported by their bare names.
COMMAND = (sys.executable, "-P", __file__)  # a line of its standard input is answered on its standard output

_TOP = (64, 2048, 1 << 20)  # how many candidates to ask for, in turn, where the target itself is not reported


def is_installed() -> bool:
    """Whether llama.cpp can be asked at all: `xllamacpp` is an optional dependency."""
    return importlib.util.find_spec("xllamacpp") is not None


def check(path: Path | str) -> None:
    """Raise FileNotFoundError where there is no such file, ModuleNotFoundError where llama.cpp is not installed."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if not is_installed():
        raise ModuleNotFoundError(
            "Opening a .gguf elsewhere needs llama.cpp, which is not installed: pip install xllamacpp"
        )


def target_log_probs(
    path: Path | str,
    token_ids: Sequence[int],
    positions: Sequence[int] | None = None,
    *,
    adapter: Path | str | None = None,
    threads: int = 1,
) -> np.ndarray:
    """(len(positions),) fp64, in nats: log p(token_ids[i] | token_ids[:i]) for every i in `positions`.

    The prefix is exactly these ids: no bos is added. By default all positions from 1 on are scored. `adapter` is a
    .gguf of LoRA adapters to put on the model. Ascending positions are quick (about 40 ms each on SmolLM2-135M and one
    CPU core), for llama.cpp keeps the prefix it has seen. Two of its threads are faster only on cores nobody else uses:
    they wait for each other by spinning.
    """
    token_ids = [int(token) for token in token_ids]
    positions = range(1, len(token_ids)) if positions is None else positions
    if bad := [i for i in positions if not 1 <= i < len(token_ids)]:
        raise ValueError(f"positions holds {bad[:5]}; they must be 1 to {len(token_ids) - 1} for these token_ids.")
    question = {"context": len(token_ids) + 1, "token_ids": token_ids, "positions": list(positions)}
    if adapter is not None:
        question["adapter"] = str(adapter)
    return np.array(_ask(path, threads, question), dtype=np.float64)


def tokenize(path: Path | str, text: str) -> list[int]:
    """The ids llama.cpp makes of a prompt: special tokens recognised, bos and eos added if the file says so."""
    return tokenize_all(path, [text])[0]


def tokenize_all(path: Path | str, texts: Sequence[str]) -> list[list[int]]:
    """As `tokenize`, for many texts and one opening of the file."""
    return _ask(path, 1, {"context": 64, "texts": list(texts)})


def render_all(path: Path | str, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    """The prompt llama.cpp makes of each list of messages with the file's chat template, the answer's opening added."""
    return _ask(path, 1, {"context": 64, "conversations": [list(messages) for messages in conversations]})


def _ask(path: Path | str, threads: int, question: dict[str, Any]) -> Any:
    """Run this file as a script with the question on its standard input; what comes back is its answer."""
    check(path)
    done = subprocess.run(
        COMMAND,
        input=json.dumps({"path": str(path), "threads": threads, **question}),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"])[-1]
        raise RuntimeError(f"llama.cpp does not read {path}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _answer(server: Any, question: dict[str, Any]) -> list:
    """In the process of its own: the log probabilities, the ids of each text, or the text of each conversation."""
    if "texts" in question:
        return [_tokenize(server, text, add_special=True) for text in question["texts"]]
    if "conversations" in question:
        return [_post(server, "/apply-template", {"messages": each})["prompt"] for each in question["conversations"]]
    letter = _tokenize(server, "a", add_special=False)[-1]
    ids = question["token_ids"]
    return [_log_prob(server, ids[:i], ids[i], sampled=letter)[0] for i in question["positions"]]


def _replies(server: Any, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the process of its own: a reply to everything that `asking.py` asks, in its order."""
    for text, _ in asked["texts"]:
        yield {"ids": _tokenize(server, text, add_special=True)}
    for ids in asked["prompts"]:
        yield _written(server, ids, asked["max_tokens"], asked["stop"])
    letter = _tokenize(server, "a", add_special=False)[-1]
    for row in asked["rows"]:
        ids = row["tokens"]
        found = [_log_prob(server, ids[:i], ids[i], sampled=letter) for i in row["positions"]]
        yield {"nats": sum(nats for nats, _ in found), "is_greedy": all(likeliest for _, likeliest in found)}


def _server(path: str, *, adapter: str | None, context: int, threads: int) -> Any:
    """A llama.cpp server for one file and the adapter on it: quiet, on the CPU, its attention cache in fp32."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # a compiled module, which declares no types
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False
    params.warmup = False
    params.ui = False
    params.use_jinja = True
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    params.verbosity = -1
    return xllamacpp.Server(params)


def _tokenize(server, text: str, *, add_special: bool) -> list[int]:
    return _post(server, "/tokenize", {"content": text, "add_special": add_special, "parse_special": True})["tokens"]


def _post(server, route: str, document: dict[str, Any], *, seconds: float | None = 60) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server.listening_address}{route}",
        data=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )
    # It listens on this machine only; a proxy from the environment must not be asked for it.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=seconds) as answer:
        return json.load(answer)


def _written(server, prompt: list[int], most: int, stop: list[str]) -> dict[str, Any]:
    """What is greedily written after a prompt of these ids, up to one of the texts `stop` or beyond it."""
    answer = _post(
        server,
        "/completion",
        {
            "prompt": prompt,
            "n_predict": most,
            "stop": stop,
            "temperature": 0.0,
            "samplers": ["top_k", "temperature"],  # no penalties, and none of the others
            "top_k": 1,
            "return_tokens": True,
            "cache_prompt": False,  # what was read with others may be rounded otherwise
        },
        seconds=None,  # a long answer of a large model takes minutes
    )
    of_itself = answer["stop_type"] == "eos"  # the token that ends it is then among them
    return {"tokens": answer["tokens"][: -1 if of_itself else None], "ended": answer["stop_type"] != "limit"}


def _log_prob(server, prefix: list[int], target: int, *, sampled: int) -> tuple[float, bool]:
    """(log p(target | prefix) in nats, whether no token is likelier).

    A bias decides only which token is drawn, not the probabilities reported.

    The target itself is drawn, with its probability beside it. The server reports none while the text ends inside a
    character, as after a byte token: then `sampled` is drawn, and the target looked for among the candidates, which
    takes seconds where all of a large vocabulary are listed.
    """
    drawn = _drawn(server, prefix, target, candidates=1)
    if drawn is not None and drawn["id"] == target:
        return drawn["logprob"], drawn["top_logprobs"][0]["logprob"] <= drawn["logprob"]
    listed = []
    for top in _TOP:
        drawn = _drawn(server, prefix, sampled, candidates=top)
        listed = [] if drawn is None else drawn["top_logprobs"]
        found = [candidate["logprob"] for candidate in listed if candidate["id"] == target]
        if found:
            return found[0], listed[0]["logprob"] <= found[0]
    raise ValueError(f"Token {target} is not in the file's vocabulary of {len(listed)}.")


def _drawn(server, prefix: list[int], token: int, *, candidates: int) -> dict[str, Any] | None:
    """What is reported of `token`, drawn after `prefix`, with so many candidates beside it; None where nothing is."""
    answer = server.handle_completions(
        {
            "prompt": prefix,
            "n_predict": 1,
            "temperature": 0.0,
            "logit_bias": [[token, 1000.0]],
            "n_probs": candidates,
            "cache_prompt": True,
        }
    )
    if "choices" not in answer:
        raise RuntimeError(f"llama.cpp did not answer for a prefix of {len(prefix)} tokens: {answer}")
    [choice] = answer["choices"]
    content = choice["logprobs"]["content"] if choice.get("logprobs") else []
    return content[0] if content else None


if __name__ == "__main__":
    running = None
    try:
        for line in sys.stdin:  # a question each, and all of one file
            asked = json.loads(line)
            running = running or _server(
                asked["path"], adapter=asked.get("adapter"), context=asked["context"], threads=asked["threads"]
            )
            for reply in _replies(running, asked) if "prompts" in asked else [_answer(running, asked)]:
                print("\n" + json.dumps(reply), flush=True)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)  # without taking the server down
