//! Protocols: the leaves of the graph, which reach storage.
