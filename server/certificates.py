"""The coordinator's own certificate authority and its server's certificate.

Sites trust exactly this authority (it is in their enrolment file), so no public one is needed.
"""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import StateDamaged
from common.files import write_atomically
from common.keys import write_secret

CA_DAYS = 3650
SERVER_DAYS = 825
"""What Apple's and other clients accept at most for a server certificate."""

_CLOCK_SLACK = timedelta(hours=1)


def make_authority(folder: Path) -> None:
    """Write ``ca.key`` and ``ca.crt`` (EC P-256, ten years) into a new folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedQANA coordinator")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_secret(folder / "ca.key", _pem(key))
    write_atomically(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))


def make_server_certificate(folder: Path, host: str, days: int = SERVER_DAYS) -> None:
    """Write ``server.key`` and ``server.crt`` for ``host`` and this machine's loopback.

    Made anew before the old one expires; sites need not do anything, as they trust the authority.
    StateDamaged where the authority's files cannot be read.
    """
    try:
        authority_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise StateDamaged(
            f"the certificate authority in {folder} is not readable; restore it from a backup"
        ) from error
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedQANA server")])
    names = [_alternative(n) for n in dict.fromkeys((host, "localhost", "127.0.0.1", "::1"))]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        _builder(name, authority.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(usage, critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    write_atomically(folder / "server.key", _pem(key), mode=0o600)
    write_atomically(folder / "server.crt", certificate.public_bytes(serialization.Encoding.PEM))


def expires(certificate: Path) -> datetime:
    """When a PEM certificate ends; StateDamaged where it is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise StateDamaged(
            f"{certificate} is not a certificate; make it anew with 'fedqana server renew'"
        ) from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _CLOCK_SLACK)
        .not_valid_after(end)
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
