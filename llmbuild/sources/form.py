"""The form of the file behind a URL, by its name: planning needs nothing else, and need not import what fetches."""

from __future__ import annotations

import urllib.parse

from llmbuild.errors import FetchError
from llmbuild.urls import shown

FORMS = {
    "gguf": (".gguf",),
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    "zip": (".zip", ".whl"),
}
"""The forms that the file can have, with their endings."""


def form_of(url: str) -> str:
    """The form of the file that a URL's path names: "gguf", "tar" or "zip".  Raises FetchError when it is none of them."""
    path = urllib.parse.urlsplit(url).path.lower()
    for form, suffixes in FORMS.items():
        if path.endswith(suffixes):
            return form
    raise FetchError(
        "names a file that cannot hold a checkpoint",
        where=shown(url),
        fix="name a .gguf file or an archive (" + ", ".join((*FORMS["tar"], *FORMS["zip"])) + ")",
    )
