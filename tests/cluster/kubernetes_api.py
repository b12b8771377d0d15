"""The part of a Kubernetes API that tells of RayClusters: HTTPS, for who has a certificate of its authority."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@contextlib.contextmanager
def kubernetes_api(directory: Path, namespace: str, clusters: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Serve these RayClusters; one that is None may not be read.

    Yields:
        The variables by which Ray's client in a pod finds it.
    """
    certificate, key = _certificate(directory)

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            *path, name = self.path.split("/")
            if path != ["", "apis", "ray.io", "v1", "namespaces", namespace, "rayclusters"] or name not in clusters:
                self._say(404, {"kind": "Status", "code": 404})
            elif clusters[name] is None:
                self._say(403, {"kind": "Status", "code": 403, "reason": "Forbidden"})
            else:
                self._say(200, {"metadata": {"name": name, "namespace": namespace}, "spec": clusters[name]})

        def _say(self, status: int, body: object) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT_HTTPS": str(server.server_address[1]),
                "RAY_KUBERAY_CA_CERT_PATH": str(certificate),
                "RAY_KUBERAY_CLIENT_CERT_PATH": str(certificate),
                "RAY_KUBERAY_CLIENT_KEY_PATH": str(key),
                "RAY_CLUSTER_NAMESPACE": namespace,
            }
        finally:
            server.shutdown()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """One that vouches for itself, server and client at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "kubernetes.crt", directory / "kubernetes.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
