"""Everything that speaks to a server: the client, the wire protocol of ours, the dialects of others."""
