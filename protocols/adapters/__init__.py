"""The protocols inside other runtimes for federated learning, which carry the messages; the machines are the same."""
