"""What may be asked of a site over its socket: the messages, and the courier's client.

`agent.proto` defines them; `scripts/make_site_api` makes the modules `agent_pb2` and
`agent_pb2_grpc` of it. Imports gRPC alone, so that a courier starts quickly and holds no code that
could read labels.
"""
