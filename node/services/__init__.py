"""gRPC services: thin; they authorise, convert, call and answer."""
