"""Keys and signatures: a site's identity (EC P-384) and the coordinator's seal (Ed25519).

The one module of `common` that imports cryptography.
"""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from common.errors import SettingsError, StateDamaged
from common.files import sync_folder, writing_to


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, whole or not at all.

    An existing one is never replaced: SettingsError. StorageFull where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(partial, path)  # fails where there is one, at whatever moment it came
            sync_folder(path.parent)
        except FileExistsError:
            raise SettingsError(
                f"{path} is there already; move it away first if it is to be replaced"
            ) from None
        finally:
            partial.unlink(missing_ok=True)


# -- a site's key -------------------------------------------------------------------------------


def new_site_key() -> bytes:
    """A new private key for a site, EC P-384 as Flower's node authentication asks for, PEM."""
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _site_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateDamaged(
            "the site's key is not readable; restore it from a backup or join anew"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StateDamaged("the site's key is no EC key; restore it from a backup or join anew")
    return key


def public_part(private: bytes) -> str:
    """The public key of a site's private one, one line in OpenSSH's form."""
    public = _site_key(private).public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode("ascii")


def fingerprint(public: str) -> str:
    """What people compare of a public key: ``SHA256:...`` as `ssh-keygen -l` prints it."""
    parts = public.split()
    blob = base64.b64decode(parts[1] if len(parts) > 1 else "")
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def node_key(public: str) -> bytes:
    """A site's public key in the form in which Flower registers a node, PEM."""
    return serialization.load_ssh_public_key(public.encode("ascii")).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign_as_site(private: bytes, content: bytes) -> str:
    """A site's signature of ``content``, base64."""
    signature = _site_key(private).sign(content, ec.ECDSA(hashes.SHA384()))
    return base64.b64encode(signature).decode("ascii")


def is_signed_by_site(public: str, content: bytes, signature: str) -> bool:
    """Whether ``signature`` is of ``content`` by the owner of a P-384 public key."""
    try:
        key = serialization.load_ssh_public_key(public.encode("ascii"))
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
            return False
        key.verify(base64.b64decode(signature, validate=True), content, ec.ECDSA(hashes.SHA384()))
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


# -- the coordinator's seal ---------------------------------------------------------------------


def new_seal() -> tuple[bytes, str]:
    """A new Ed25519 key: the private part as PEM, the public one as base64 of its 32 bytes."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, _raw(key.public_key())


def seal_public(private: bytes) -> str:
    """The public part of a seal."""
    return _raw(_seal(private).public_key())


def seal(private: bytes, content: bytes) -> bytes:
    """The Ed25519 signature of ``content``, 64 bytes."""
    return _seal(private).sign(content)


def is_sealed(public: str, content: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is that of ``content`` by the seal's owner."""
    try:
        raw = base64.b64decode(public, validate=True)
        ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, content)
    except (ValueError, InvalidSignature):
        return False
    return True


def _seal(private: bytes) -> ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateDamaged(
            "the bundle-signing key is not readable; restore it from a backup"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise StateDamaged("the bundle-signing key is no Ed25519 key; restore it from a backup")
    return key


def _raw(key: ed25519.Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode("ascii")
