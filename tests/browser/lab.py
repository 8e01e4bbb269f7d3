"""JupyterLab on the loopback interface, and a notebook in it as a person would use it, for tests to drive.

`running_lab` starts a server of its own, with its own settings and a token; `LabNotebook` opens one notebook in a
Playwright page, runs its cells and saves it. Neither knows what the notebook is about.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Locator, Page, Response
from playwright.sync_api import TimeoutError as NotSeen

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

# As root there is no sandbox to be had; the rest keeps the browser quiet and off the network.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_START_SECONDS = 60
_RUN_ATTEMPTS = 10
_TAKEN_UP = ".jp-CodeCell .jp-InputArea-prompt:text-matches('[*0-9]')"


def chromium_path() -> str | None:
    """The system's Chromium, or None."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Lab:
    """A running server: `folder` is what it serves, `settings` what each new page reads its preferences from."""

    url: str
    token: str
    folder: Path
    settings: Path

    def use_theme(self, name: str) -> None:
        """'JupyterLab Light' or 'JupyterLab Dark', for pages opened from now on."""
        _write_setting(self.settings, "apputils-extension", "themes", {"theme": name})

    def shut_kernels_down(self) -> None:
        """End every kernel, so that a notebook opened again finds none of its own."""
        headers = {"Authorization": f"token {self.token}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/sessions", headers=headers)) as answer:
            sessions = json.load(answer)
        for session in sessions:
            address = f"{self.url}/api/sessions/{session['id']}"
            urllib.request.urlopen(urllib.request.Request(address, headers=headers, method="DELETE")).close()

    def write_notebook(self, name: str, cells: list[str]) -> Path:
        """A notebook of these code cells, in the served folder."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.folder / name
        nbformat.write(notebook, path)
        return path


@contextmanager
def running_lab(home: Path, *, environment: dict[str, str] | None = None) -> Iterator[Lab]:
    """A JupyterLab that keeps everything of its own below `home`; it is stopped when the block ends.

    `environment` is added to that of the kernels. Raises RuntimeError with the server's log if it does not come up.
    """
    folder, settings = home / "notebooks", home / "settings"
    folder.mkdir(parents=True)
    _write_setting(settings, "apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False})
    token, port = secrets.token_hex(16), _free_port()
    lab = Lab(f"http://127.0.0.1:{port}", token, folder, settings)
    own = {
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": settings,
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        *(f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly", "--LabApp.news_url="),
    ]
    log = home / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=home,
            env={**os.environ, **{name: str(path) for name, path in own.items()}, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_up(lab, server, log)
            yield lab
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


class LabNotebook:
    """One notebook, open in a page of its own without the side bars."""

    def __init__(self, browser: Browser, lab: Lab, path: Path, *, width: int = 1200, height: int = 1100):
        self._context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=2)
        self.page: Page = self._context.new_page()
        self._path = path
        name = path.relative_to(lab.folder).as_posix()
        self.page.goto(f"{lab.url}/doc/tree/{name}?token={lab.token}", wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)

    def __enter__(self) -> "LabNotebook":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._context.close()

    def wait_for_kernel(self) -> None:
        """Until the status bar says that a kernel is there and idle; the notebook's own circle is idle with none."""
        self.page.wait_for_selector("#jp-main-statusbar >> text=/\\S \\| Idle/", timeout=60_000)

    def run_all(self) -> None:
        """Start every cell; returns once the kernel has taken them up."""
        self.wait_for_kernel()
        for _ in range(_RUN_ATTEMPTS):
            self._menu("Run", "Run All Cells")
            try:
                self.page.wait_for_selector(_TAKEN_UP, timeout=2000)
            except NotSeen:
                continue  # a kernel that has only just come up is shown as idle and loses the request
            return
        raise RuntimeError(f"The cells of {self._path.name} did not start after {_RUN_ATTEMPTS} attempts.")

    def wait_until_done(self, *, seconds: float) -> None:
        """Until every code cell has a number, none a star."""
        self.page.wait_for_function(
            """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]
                     .every((prompt) => /\\[\\d+\\]/.test(prompt.textContent))""",
            timeout=1000 * seconds,
        )

    def outputs(self, cell: int) -> Locator:
        """The outputs of the cell with this index, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea-output")

    def save(self) -> nbformat.NotebookNode:
        """Save, wait until the server has written the file, and read it."""
        with self.page.expect_response(_is_save):
            self._menu("File", "Save Notebook")
        return nbformat.read(self._path, as_version=4)

    def _menu(self, menu: str, item: str) -> None:
        self.page.locator(f'.lm-MenuBar-itemLabel:text-is("{menu}")').click()
        self.page.locator(f'.lm-Menu-itemLabel:text-is("{item}")').click()


def _is_save(response: Response) -> bool:
    return response.request.method == "PUT" and "/api/contents/" in response.url


def _write_setting(settings: Path, extension: str, plugin: str, values: dict[str, object]) -> None:
    file = settings / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


def _wait_until_up(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{lab.url}/api/status?token={lab.token}", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not come up within {_START_SECONDS} s:\n{log.read_text()[-4000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
