"""What the file behind a URL is, by its name: planning asks for nothing else, and need not import what fetches."""

from __future__ import annotations

import urllib.parse

from llmbuild.errors import FetchError
from llmbuild.urls import shown

FORMS = {
    "gguf": (".gguf",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    "zip": (".zip", ".whl"),
}
"""What the file can be, with the endings that say so."""


def form_of(url: str) -> str:
    """What a URL's path says the file is: "gguf", "tar" or "zip".  Raises FetchError when it is none of them."""
    path = urllib.parse.urlsplit(url).path.lower()
    for form, suffixes in FORMS.items():
        if path.endswith(suffixes):
            return form
    raise FetchError(
        "names a file that cannot hold a checkpoint",
        where=shown(url),
        fix="name a .gguf file or an archive (" + ", ".join((*FORMS["tar"], *FORMS["zip"])) + ")",
    )
