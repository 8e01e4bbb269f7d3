"""How to open an export, as code and commands to copy: for the model card, and for the cell that exported.

Everything here is text; nothing is opened.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..models.families.base import Library

Form = Literal["lora", "peft", "merged", "merged for mlx-lm", "gguf"]

_MLX = """\
from mlx_lm import generate, load{imports}

model, tokenizer = load({arguments})
prompt = {prompt}
print(generate(model, tokenizer, prompt=prompt, max_tokens=200))"""

_MLX_VLM = """\
from mlx_vlm import generate, load{imports}
from mlx_vlm.prompt_utils import apply_chat_template

model, processor = load({arguments})
prompt = apply_chat_template(processor, model.config, "What is this?", num_images=1)
print(generate(model, processor, prompt, image="image.png", max_tokens=200).text)"""

_TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({model})
model = AutoModelForCausalLM.from_pretrained({model})"""

_TRANSFORMERS_VISION = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained({model})
model = AutoModelForImageTextToText.from_pretrained({model})"""

_PEFT = """\
from peft import PeftModel
{transformers}
model = PeftModel.from_pretrained(model, {place})"""

_CHAT_PROMPT = 'tokenizer.apply_chat_template([{"role": "user", "content": "Hello!"}], add_generation_prompt=True)'
_TEXT_PROMPT = '"Once upon a time"'


def how_to_open(
    form: Form,
    *,
    base: str,
    place: str,
    hub: bool,
    files: Sequence[str],
    chats: bool,
    library: Library = "mlx-lm",
) -> str:
    """Markdown: a sentence and a block of code per program that opens the export.

    `base` is the base model and `place` the export itself, as a folder or, with `hub`, a repository on the hub.
    """
    if form == "gguf":
        commands = [f"hf download {quoted(place)} --local-dir ."] if hub else []
        commands += [line for file in files for line in gguf_commands(Path(file), modelfile=_modelfile(file))]
        return _block("llama.cpp, Ollama and LM Studio open the files:", "sh", "\n".join(commands))
    if form == "peft":
        opened = _TRANSFORMERS_VISION if library == "mlx-vlm" else _TRANSFORMERS
        code = _PEFT.format(transformers=opened.format(model=_literal(base)), place=_literal(place))
        return _block("transformers and PEFT:", "python", code)
    imports, arguments = "", _literal(place)
    if form == "lora":
        # mlx-lm takes adapters from a folder only.
        imports = "\nfrom huggingface_hub import snapshot_download" if hub else ""
        folder = f"snapshot_download({_literal(place)})" if hub else _literal(place)
        arguments = f"{_literal(base)}, adapter_path={folder}"
    if library == "mlx-vlm":
        return _block("mlx-vlm:", "python", _MLX_VLM.format(imports=imports, arguments=arguments))
    prompt = _CHAT_PROMPT if chats else _TEXT_PROMPT
    code = _block("mlx-lm:", "python", _MLX.format(imports=imports, arguments=arguments, prompt=prompt))
    if form == "merged":
        code += "\n\n" + _block("transformers:", "python", _TRANSFORMERS.format(model=_literal(place)))
    return code


def gguf_commands(path: Path, *, modelfile: Path | None) -> list[str]:
    """Shell lines that chat with one .gguf in llama.cpp, Ollama and LM Studio; Ollama needs its `modelfile`."""
    file = quoted(str(path))
    lines = [f"llama-cli -m {file}"]
    if modelfile is not None:
        name = quoted(path.stem.replace(".", "-").lower())
        lines.append(f"ollama create {name} -f {quoted(str(modelfile))} && ollama run {name}")
    return [*lines, f"lms import --copy {file}  # LM Studio"]


def commands_for_folder(path: Path, *, base: str | None, library: Library) -> list[str]:
    """Shell lines that chat with a folder of adapters on `base`, or (None) of merged weights.

    mlx-vlm's way in is Python (`how_to_open`), so for its models there are none.
    """
    if library == "mlx-vlm":
        return []
    folder = quoted(str(path))
    return [f"mlx_lm.chat --model {folder if base is None else f'{quoted(base)} --adapter-path {folder}'}"]


def quoted(text: str) -> str:
    """`text` as one word of a shell command, in one line and without what a terminal would take for more than text."""
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}
    written = "".join(escapes.get(letter) or (letter if letter.isprintable() else _bytes_of(letter)) for letter in text)
    return f"$'{written}'"


def _bytes_of(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode(errors="surrogateescape"))


def _literal(text: str) -> str:
    """`text` as a string in Python, which no fence of a block of code is in."""
    return repr(text).replace("```", "\\x60\\x60\\x60")


def _modelfile(file: str) -> Path:
    return Path(file).with_suffix(".Modelfile")


def _block(title: str, language: str, code: str) -> str:
    return f"{title}\n\n```{language}\n{code}\n```"
