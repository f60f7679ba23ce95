"""Trusted public keys for verifying signatures, from a file or from this installation."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deploy.installation import Installation
from identity.audit.handovers import trusted_keys
from identity.errors import BadInput
from identity.keys.trusted_keys import TrustedKeys, read_handover

_END = "-----END PUBLIC KEY-----\n"

key_option = click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the public keys, as `aswhom keys public` prints them.  [default: this installation's]",
)


def public_keys(at: Installation, path: Path | None) -> TrustedKeys:
    """Return the keys in a file, or this installation's if *path* is None. Raise BadInput."""
    if path is None:
        if at.settings.database_url is None and not at.settings.data_dir.is_dir():
            raise BadInput(
                f"there is no installation in {at.settings.data_dir} whose key to use: give the public key with "
                "--key FILE (`aswhom keys public` printed it), or say where the installation is with --data-dir"
            )
        return at.read(lambda c: trusted_keys(c, at.signer.public_key()))
    try:
        pem, end, more = path.read_text(encoding="ascii").partition(_END)
        key = load_pem_public_key((pem + end).encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path} is no public key in PEM form: `aswhom keys public` prints one") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path} is another kind of key: receipts and the audit are signed with Ed25519")
    return TrustedKeys(key, [read_handover(line) for line in more.splitlines() if line.strip()])
