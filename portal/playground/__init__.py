"""The playground: calls that people make from the portal, through the gateway as any program's."""
