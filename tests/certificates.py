"""A certificate of our own for the loopback, and contexts that present or trust it."""

from __future__ import annotations

import functools
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

NAME = "localhost"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the key and the certificate lie until this process ends; made once."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tempfile.TemporaryDirectory(prefix="weft-tls-")
    request = f"""
        openssl req -x509 -nodes -days 30 -subj /CN={NAME}
        -newkey ec -pkeyopt ec_paramgen_curve:prime256v1
        -addext subjectAltName=DNS:{NAME},IP:127.0.0.1,IP:::1
        -keyout {folder.name}/key.pem -out {folder.name}/certificate.pem
    """
    subprocess.run(request.split(), check=True, capture_output=True)
    return folder


def certificate() -> Path:
    return Path(_folder().name, "certificate.pem")


def key() -> Path:
    return Path(_folder().name, "key.pem")


def server_context(*protocols: str) -> ssl.SSLContext:
    """A context that presents the certificate, and offers `protocols` by ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(), key())
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def client_context(*protocols: str) -> ssl.SSLContext:
    """A context that trusts this certificate and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate())
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context
