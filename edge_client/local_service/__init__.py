"""The local gRPC service: what other programs of the hospital ask the site's chip.

`server.serve` runs it, `client.LocalServiceClient` asks it, ``fedqana_edge.proto`` defines it;
docs/local-service.md explains it.
"""
