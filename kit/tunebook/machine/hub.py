"""Whether the Hugging Face hub answers at all, found out in seconds.

huggingface_hub and datasets try again and again, or wait for ever; nobody at a notebook wants to.
"""

import http.client
import ssl
import threading
import urllib.error
import urllib.request

from huggingface_hub import constants

HUB_SECONDS = 8  # how long the hub may take to show that it is there


def why_silent() -> str | None:
    """None when something answers at the hub's address within HUB_SECONDS, else the reason."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: list[str | None] = []
    # A thread, because no timeout covers the look-up of a name or the many addresses of one.
    knocking = threading.Thread(target=lambda: answers.append(_knock(constants.ENDPOINT)), daemon=True)
    knocking.start()
    knocking.join(HUB_SECONDS)
    return answers[0] if answers else f"{constants.ENDPOINT} was silent for {HUB_SECONDS} s"


def _knock(address: str) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            return None
    except urllib.error.HTTPError:  # an answer, though not a friendly one
        return None
    except urllib.error.URLError as error:
        # A Python without root certificates; huggingface_hub brings its own.
        return None if isinstance(error.reason, ssl.SSLError) else f"{address}: {_said(error.reason)}"
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {error}"


def _said(reason: str | BaseException) -> str:
    """The bare words: "Name or service not known" rather than "[Errno -2] Name or service not known"."""
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
