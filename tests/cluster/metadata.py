"""What a cloud tells a machine of itself: of EC2, which wants a token, and of Compute Engine.

python -m tests.cluster.metadata SECONDS    serves at 169.254.169.254, which it makes this machine's, a notice at once
"""

from __future__ import annotations

import datetime
import http.server
import subprocess
import sys

ADDRESS = "169.254.169.254"


class Metadata(http.server.BaseHTTPRequestHandler):
    """``end``: when the machine will be taken, as its notice says; None: it has none."""

    end: str | None = None

    def do_PUT(self) -> None:
        asked = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._say("a token" if self.path == "/latest/api/token" and asked else None)

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            knows = self.headers.get("X-aws-ec2-metadata-token") == "a token"
            self._say(f'{{"action": "terminate", "time": "{self.end}"}}' if knows and self.end else None)
        elif self.path == "/computeMetadata/v1/instance/preempted":
            knows = self.headers.get("Metadata-Flavor") == "Google"
            self._say(("TRUE" if self.end else "FALSE") if knows else None)
        else:
            self._say(None)

    def _say(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> None:
    """Serve until killed."""
    seconds = datetime.timedelta(seconds=float(sys.argv[1]))
    Metadata.end = f"{datetime.datetime.now(datetime.UTC) + seconds:%Y-%m-%dT%H:%M:%SZ}"
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    http.server.ThreadingHTTPServer((ADDRESS, 80), Metadata).serve_forever()


if __name__ == "__main__":
    main()
