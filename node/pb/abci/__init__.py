"""Messages of the consensus engine's application interface, generated from proto/node/pb/abci."""
