"""Certificates as a company has them: an authority that clients trust, and what it has signed."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import Any

from services import library


@functools.cache
def _authority() -> Any:
    return library("trustme").CA()


@functools.cache
def _issued() -> Any:
    return _authority().issue_cert("localhost", "127.0.0.1", "::1")


def server_context(*protocols: str) -> ssl.SSLContext:
    """A context that presents the certificate, and offers `protocols` by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _issued().configure_cert(context)
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def client_context(*protocols: str) -> ssl.SSLContext:
    """A context that trusts the authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority().configure_trust(context)
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def key_and_chain() -> tuple[bytes, bytes]:
    return _issued().private_key_pem.bytes(), b"".join(
        blob.bytes() for blob in _issued().cert_chain_pems
    )


def authority() -> bytes:
    return bytes(_authority().cert_pem.bytes())


def write_to(folder: Path) -> None:
    """Writes key.pem, certificate.pem and authority.pem."""
    key, chain = key_and_chain()
    (folder / "key.pem").write_bytes(key)
    (folder / "key.pem").chmod(0o600)
    (folder / "certificate.pem").write_bytes(chain)
    (folder / "authority.pem").write_bytes(authority())
