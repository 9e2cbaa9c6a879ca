"""A certificate for a run: the loops show it, the load generator trusts who signed it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Files of PEM."""

    chain: Path
    key: Path
    authority: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        """Make one for `localhost`, and an authority that signs it."""
        import trustme

        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        made = cls(directory / "chain.pem", directory / "key.pem", directory / "authority.pem")
        made.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(made.key))
        authority.cert_pem.write_to_path(str(made.authority))
        return made


def context(chain: str, key: str) -> ssl.SSLContext:
    """What a server on a loop uses: Python's own defaults."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(chain, key)
    return made
