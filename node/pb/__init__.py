"""Generated protobuf code of the wire; see node/pb_generate.py."""
