"""A configuration for nginx in front of the server, instead of the embedded front."""

from pathlib import Path

from common.files import write_atomically

_TEMPLATE = """\
# nginx in front of a FedQANA server: set front.kind = "proxy" in fedqana.toml, restart the server,
# and include this file in nginx's http block (on Debian: link it into /etc/nginx/sites-enabled).
# Passed on are the Fleet API, which checks every site's signature, and the enrolment page.
# Everything else, above all Flower's Control API, which has no authentication, gets 403.

server {{
    listen {port} ssl;
    listen [::]:{port} ssl;
    server_name {host};

    ssl_certificate     {tls}/server.crt;
    ssl_certificate_key {tls}/server.key;
    ssl_protocols       TLSv1.2 TLSv1.3;

    # Updates of 10 MB and more are sent in objects of up to 5 MB.
    client_max_body_size 64m;
    client_body_timeout  120s;
    proxy_read_timeout   120s;
    proxy_send_timeout   120s;
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_http_version 1.1;
    merge_slashes off;

    location ^~ /v1/fleet/ {{
        # As the site spelled it: a path with escapes, dots or doubled slashes could mean another.
        if ($request_uri !~ "^/v1/fleet/[a-z-]+$") {{ return 403; }}
        proxy_pass https://127.0.0.1:{superlink};
        proxy_ssl_trusted_certificate {tls}/ca.crt;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_set_header Host localhost;
        proxy_set_header Connection "";
    }}

    location ^~ /fedqana/v1/ {{
        client_max_body_size 16k;
        proxy_pass http://127.0.0.1:{enrolment};
        proxy_set_header Connection "";
    }}

    location / {{ return 403; }}
}}
"""


def write_nginx_configuration(
    folder: Path, tls: Path, host: str, port: int, superlink: int, enrolment: int
) -> None:
    """Write ``nginx.conf`` into a server's folder."""
    text = _TEMPLATE.format(host=host, port=port, tls=tls, superlink=superlink, enrolment=enrolment)
    write_atomically(folder / "nginx.conf", text.encode())
