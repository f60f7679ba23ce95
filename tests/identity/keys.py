"""Private keys for tests, made once a process."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


def pem(algorithm: str = "RS256", *, number: int = 1) -> str:
    """A key that signs by *algorithm*, in PEM; another for each *number*."""
    return _made(algorithm, number)


@cache
def _made(algorithm: str, number: int) -> str:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    match algorithm:
        case "RS256":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            key = ec.generate_private_key(ec.SECP384R1())
        case _:
            key = ed25519.Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()
