"""Arguments that functions people call have in common: what each may be, and what it means."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from .values import AtMostOne, Count, CountOrZero, Folder, NotNegative, Rate

# Of loading.
Length = Annotated[Count, "longest row or conversation in tokens"]
Bits4 = Annotated[bool, "hold the weights in 4 bits; adapters are trained on them"]
Bits8 = Annotated[bool, "hold the weights in 8 bits"]
Whole = Annotated[bool, "train every weight, without adapters"]
Token = Annotated[str | None, "of the Hugging Face hub; None: the one of `hf auth login`"]
Revision = Annotated[str | None, "branch, tag or commit on the hub; None: main"]
Trust = Annotated[bool, "run Python that the model's folder brings"]
TextOnly = Annotated[bool | None, "True: only the language model of one that reads images; None: as its config says"]
Seed = Annotated[int, "seed of what is made at random"]
Template = Annotated[str | None, "a chat template's source, or the name of one the tokenizer has; None: its own"]
Resize = Annotated[bool, "add rows to the embedding for tokens that it has none for"]

# Of adapters.
Checkpointing = Annotated[
    bool | Literal["auto", "unsloth"],
    "what TrainingConfig.gradient_checkpointing is where it is None; 'auto': on for a run that would not fit in "
    "memory without; 'unsloth' is True",
]

# Of writing.
MaxTokens = Annotated[Count, "longest answer in tokens"]
Temperature = Annotated[NotNegative, "0: always the likeliest token; 1: as the model has it"]
TopP = Annotated[AtMostOne, "draw from the likeliest tokens that have this share together"]
Thinking = Annotated[bool | None, "the chat template's switch for thoughts; None: on where the model thinks"]
Tools = Annotated[Sequence[Mapping[str, Any]] | None, "JSON schemas of the tools an answer may call, as in a row"]

# Of a run in a process of its own.
Restarts = Annotated[CountOrZero, "how often it is begun again by itself, from its newest checkpoint, where it dies"]
Keep = Annotated[bool, "go on when this kernel is gone; False: it is then stopped, with a checkpoint"]
Processes = Annotated[Count, "that train it together on this machine, each with its share of every step's rows"]
Hosts = Annotated[Folder | None, "a hosts file of mlx.launch, which starts a process on each machine in it"]
Again = Annotated[bool, "train anew, also where a run of this very work goes on or has finished in output_dir"]

# Of a trial of learning rates.
Tries = Annotated[Count, "how many rates are tried, a step each"]
Lowest = Annotated[Rate, "the rate of its first step"]
Highest = Annotated[Rate, "the rate of its last step"]

# Of saving.
Into = Annotated[Folder, "the folder, made if there is none"]
Quantizations = Annotated[
    tuple[str, ...] | str, "q8_0, q4_k_m, f16, ...: the type of most weights; of a list a file for each"
]
Repository = Annotated[str, "user/name on the hub; made if there is none"]
Private = Annotated[bool, "whether only you see the repository"]
