"""An export on the Hugging Face hub: the repository is made and looked at first, then the folder is written and sent.

The token goes into the headers of the requests and nowhere else: not to the disk, not into a message, not into a card.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import HfApi

from ..machine.hub import why_silent
from ..machine.working import working_folder
from .report import Export, ExportTable


def publish(repo_id: str, write: Callable[[Path], Sequence[Export]], *, private: bool, token: str | None) -> str:
    """Upload what `write(folder)` puts into an empty folder as one commit; returns the repository's address.

    `token` None takes the one of `hf auth login` or HF_TOKEN. Raises ConnectionError when no hub answers, ValueError
    when the repository is there already and not as private as asked, RuntimeError for an export that failed its
    verification; nothing is sent then.
    """
    if reason := why_silent():
        raise ConnectionError(f"Cannot push {repo_id}: {reason}. save_pretrained* keep it on this disk.")
    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    found = api.repo_info(url.repo_id).private
    if found is not private:
        state = "private" if found else "public"
        raise ValueError(
            f"{url.repo_id} exists and is {state}, and private={private} was asked for; pass private={found}, change "
            "it in the repository's settings, or choose another name. Nothing was sent."
        )
    with working_folder("push") as scratch:
        folder = scratch / repo_id.rpartition("/")[2]
        exports = ExportTable(write(folder))
        if failed := [export for export in exports if export.verification and not export.verification.passed]:
            raise RuntimeError(
                f"Nothing was sent to {url.repo_id}, for it is not the same model:\n{ExportTable(failed)}"
            )
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="A tuned model from tunebook")
    return str(url)
