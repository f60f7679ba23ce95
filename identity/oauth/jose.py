"""Verification of signed JWTs from others (RFC 7515, RFC 7519): algorithms, and how a header is read. Pure.

The laws, for security events, workloads and ID tokens alike:

- an unknown header parameter is ignored (RFC 7515 §4). Parameters that must not be ignored are named by `crit`, and no
  extension is supported here, so a token with `crit` is refused, even an empty one (§4.1.11);
- the algorithm is one of these, and fits the key: its kind, its curve, and the `alg` that the key declares;
- keys come from where they were registered: `jku`, `jwk`, `x5u` and `x5c` are never followed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import CompactSignature, JWSRegistry

Key = RSAKey | ECKey | OKPKey
_KINDS: Mapping[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: RFC 9864 renamed `EdDSA` to `Ed25519`. Here they are equivalent, and a key for either serves both.
_CURVES: Mapping[str, str] = {
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "Ed25519": "Ed25519",
    "EdDSA": "Ed25519",
}
ALGORITHMS = (*_RSA, *_CURVES)  # asymmetric only: with a shared key, a verifier could sign


class _Registry(JWSRegistry):
    max_header_length = 16_000  # room for an `x5c` with several certificates, which is not read

    def get_alg(self, name: str) -> Any:  # the library does not export the type
        return super().get_alg("Ed25519" if name == "EdDSA" else name)


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


class Unusable(Exception):
    """A token that cannot be verified. The message tells its sender why, and quotes nothing of it."""


class NotASignedToken(Unusable):
    """It is not a compact JWT, or its header is unusable; no key is at fault."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A token before verification: neither its header nor its payload may be trusted."""

    token: bytes
    type: str | None  # in lower case and without `application/` (RFC 7515 §4.1.9)
    kid: str | None
    algorithm: str
    payload: bytes
    _parsed: CompactSignature

    def is_signed_by(self, key: Key) -> bool:
        """True if that key signed it. Raises Unusable for a key that does not fit its algorithm."""
        if not fits(key, self.algorithm):
            raise Unusable("the key it names does not go with its alg")
        try:
            return jws.validate_compact(self._parsed, key, registry=_REGISTRY)
        except (JoseError, ValueError, TypeError) as error:  # a registered parameter of the wrong type
            raise NotASignedToken("a parameter of its header is not as RFC 7515 has it") from error


def read(token: bytes) -> Signed:
    """Parse a token without verifying it. Raises NotASignedToken, or Unusable for an algorithm that is not accepted."""
    try:
        parsed = jws.extract_compact(token, registry=_REGISTRY)
        header = parsed.headers()
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):  # raised by joserfc for an odd header
        raise NotASignedToken("it is not a signed JWT in compact form") from None
    if not isinstance(header, dict):
        raise NotASignedToken("its header is no JSON object")
    if "crit" in header:
        raise NotASignedToken("its header has a crit, and no extension is understood here")
    kind, kid, algorithm = header.get("typ"), header.get("kid"), header.get("alg")
    if not isinstance(kind, str | None) or not isinstance(kid, str | None) or not isinstance(algorithm, str):
        raise NotASignedToken("its header's alg, typ and kid should be texts")
    if algorithm not in ALGORITHMS:
        raise Unusable(f"its alg should be one of {', '.join(ALGORITHMS)}")
    return Signed(
        token=token,
        type=None if kind is None else kind.lower().removeprefix("application/"),
        kid=kid,
        algorithm=algorithm,
        payload=parsed.payload,
        _parsed=parsed,
    )


def fits(key: Key, algorithm: str) -> bool:
    """True if that key may verify a signature by *algorithm*."""
    if key.alg not in (None, algorithm):
        return False
    return key.key_type == "RSA" if algorithm in _RSA else key.get("crv") == _CURVES[algorithm]


def public_key(row: Mapping[str, Any]) -> Key | None:
    """Return the key of a JWK (RFC 7517); None for a kind not used here.

    Raises JoseError and others for an invalid one.
    """
    kind = _KINDS.get(str(row.get("kty")))
    if kind is None:
        return None
    if row.get("crv") == "Ed25519" and row.get("alg") in ("EdDSA", "Ed25519"):
        # the curve already implies it, under either name
        row = {name: value for name, value in row.items() if name != "alg"}
    return kind.import_key(dict(row))


def claims(payload: bytes) -> Mapping[str, Any] | None:
    """Return the claims; None if they are not a JSON object."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
