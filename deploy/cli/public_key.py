"""The key that a signature is checked with: one in a file, or this installation's."""

from __future__ import annotations

from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deploy.installation import Installation
from identity.errors import BadInput

key_option = click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The public key, as `aswhom keys public` prints it.  [default: this installation's]",
)


def public_key(at: Installation, path: Path | None) -> Ed25519PublicKey:
    """The key in that file, or else this installation's. Raises BadInput."""
    if path is None:
        return at.signer.public_key()
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path} is no public key in PEM form: `aswhom keys public` prints one") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path} is another kind of key: receipts and the audit are signed with Ed25519")
    return key
