"""The proof: a history checker of sales under fire, state machines, faults that are counted. See ``docs/proof.md``."""

import os

# Before the first `import grpc`: children are forked while channels are open, and gRPC's handlers harm them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
