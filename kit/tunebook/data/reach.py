"""Which files and machines the rows of a set may name for their images: a reference goes in, its path comes out.

Rows a person made may name any file. Rows that were loaded, from a file or a hub, name files below the folder they came
from and no other, unless the person says where their images are. No file is opened here.
"""

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SPECIAL = (  # prefixes that carry an address of IPv4 in their last 32 bits (RFC 6052, RFC 4291)
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("::ffff:0:0/96"),
    ipaddress.ip_network("::/96"),
)

Allows = Callable[[str], bool]  # whether the machine of an address may be asked for an image


def is_public(host: str) -> bool:
    """Whether an address, as a resolver gives it, is one of the public internet."""
    found = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = found.sixtofour or (found.teredo[1] if found.teredo else None)
        if any(found in network for network in SPECIAL):
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return is_public(str(within))
    return found.is_global and not found.is_multicast


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where the images of a set may be."""

    folder: str | Path | None = None  # paths are below it and may not lead out of it; None: as they stand
    within: tuple[Path, ...] | None = None  # without `folder`: where the files of a loaded set may be; None: anywhere
    remote: bool = False  # http(s) addresses are fetched
    allows: Allows = is_public  # from which machines

    def path_of(self, reference: str) -> Path:
        """Where a file is, links followed unless it may be anywhere.

        Of a loaded set it is looked for below its folders first, and then as it stands. Raises ValueError, with its
        name and without its folders, for one outside of them, and for a name that no file can have.
        """
        if self.folder is None and self.within is None:
            return Path(reference)
        name = os.path.basename(reference)[:80]
        try:
            roots = [os.path.realpath(root) for root in (self.within or () if self.folder is None else (self.folder,))]
            places = [os.path.join(root, reference) for root in roots]
            places += [reference] if self.folder is None else []
            path = Path(os.path.realpath(next(filter(os.path.isfile, places), places[-1])))
        except ValueError:  # a NUL, half of a surrogate pair
            raise ValueError(f"its image {name!r} is not there, or is no file.") from None
        if any(path.is_relative_to(root) for root in roots):
            return path
        if self.folder is not None:
            raise ValueError(f"its image {name!r} lies outside of the folder of images.")
        raise ValueError(
            f"its image {name!r} lies outside of the folder its rows were loaded from; to allow it, pass "
            "read_rows(..., image_base_dir=the folder the images are in)."
        )


ANYWHERE = Reach()
